//! Bringing the forwards of a running machine to what is asked for.
//!
//! What to do is decided from what is really bound, whoever bound it. If one forward cannot be made, everything is
//! put back as it was.

use super::ports;
use super::qmp::Monitor;
use super::usernet::{self, Comparison, Rule};
use crate::error::{Error, Result};
use crate::spec::Machine;

/// Brings the forwards of the machine behind `monitor`, process `pid`, to what `machine` says.
///
/// Connections through forwards that stay, and ports of the kernel's choice that are bound, are left alone. Fixed
/// ports are looked at before anything is touched.
pub(super) async fn bring(monitor: &mut Monitor, machine: &Machine, pid: u32) -> Result<()> {
    let wanted = usernet::wanted(machine);
    let before = usernet::parse(&monitor.user_network().await?);
    let change = usernet::compare(&wanted, before.clone());
    for rule in &change.missing {
        ports::check_free(&rule.forward, Some(pid))?;
    }
    match carry_out(monitor, &change).await {
        Ok(()) => Ok(()),
        Err(cause) => Err(put_back(monitor, &before, cause).await),
    }
}

/// Removes first, since what is added may need the port.
async fn carry_out(monitor: &mut Monitor, change: &Comparison) -> Result<()> {
    for rule in &change.surplus {
        remove(monitor, rule).await?;
    }
    for rule in &change.missing {
        add(monitor, rule).await?;
    }
    Ok(())
}

async fn add(monitor: &mut Monitor, rule: &Rule) -> Result<()> {
    let command = rule.add_command();
    let text = monitor.human(command.clone()).await?;
    if usernet::was_added(&text) {
        return Ok(());
    }
    // QEMU does not say why.
    ports::check_free(&rule.forward, None)?;
    Err(refused(&command, &text))
}

async fn remove(monitor: &mut Monitor, rule: &Rule) -> Result<()> {
    let command = rule.remove_command();
    let text = monitor.human(command.clone()).await?;
    if usernet::is_gone(&text) { Ok(()) } else { Err(refused(&command, &text)) }
}

fn refused(command: &str, text: &str) -> Error {
    Error::Monitor(format!("`{command}` was refused: {}", text.trim()))
}

/// Makes the forwards again what they were, as far as it goes, and says with `cause` what could not be put back.
async fn put_back(monitor: &mut Monitor, before: &[Rule], cause: Error) -> Error {
    let left = match undo(monitor, before).await {
        Ok(left) if left == Comparison::default() => return cause,
        Ok(left) => describe(&left),
        Err(error) => error.to_string(),
    };
    Error::NotUndone { cause: Box::new(cause), left }
}

/// Tries every single thing; what still differs afterwards is returned.
async fn undo(monitor: &mut Monitor, before: &[Rule]) -> Result<Comparison> {
    let now = usernet::parse(&monitor.user_network().await?);
    let Comparison { missing, surplus, .. } = usernet::compare(before, now);
    for rule in &surplus {
        let removed = remove(monitor, rule).await;
        note(removed);
    }
    for rule in &missing {
        let added = add(monitor, rule).await;
        note(added);
    }
    let now = usernet::parse(&monitor.user_network().await?);
    Ok(Comparison { met: Vec::new(), ..usernet::compare(before, now) })
}

/// The comparison that follows tells whether it mattered.
fn note(result: Result<()>) {
    if let Err(error) = result {
        tracing::debug!(%error, "a forward cannot be put back");
    }
}

fn describe(left: &Comparison) -> String {
    let describe = |rules: &[Rule], what: &str| -> Vec<String> {
        rules.iter().map(|rule| format!("{} is {what}", ports::describe(&rule.forward))).collect()
    };
    [describe(&left.missing, "no longer bound"), describe(&left.surplus, "still bound")].concat().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::manifest::tests::spec;
    use super::*;

    #[test]
    fn what_could_not_be_put_back_is_named() {
        let mut machine = spec("/image".as_ref()).machine;
        machine.nics[0].forwards[0].host_port = 2222;
        let left = Comparison { missing: usernet::wanted(&machine), ..Comparison::default() };
        assert_eq!(describe(&left), "127.0.0.1:2222/tcp is no longer bound");
    }
}
