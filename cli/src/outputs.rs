//! Outputs with what is known of the machines now: for people, and for programs.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};
use vmctl_planner::Desired;
use vmctl_planner::observed::Sight;
use vmctl_planner::outputs::{self, Evaluated, Standing};
use vmctl_planner::vmfile::HIDDEN;
use vmctl_providers::{Name, Runtime, VmHandle};

use crate::machines::{Machine, is_live};
use crate::reach::reachable;
use crate::ui;

/// What stands in the place of a text that is not known.
const UNKNOWN: &str = "(known after apply)";

/// The outputs of `desired`, of which `machines` are recorded.
pub(crate) fn of(desired: &Desired, machines: &[Machine]) -> BTreeMap<Name, Evaluated> {
    let named = |machine: &Machine| Some((machine.name().parse().ok()?, standing(machine)));
    outputs::evaluate(desired, &machines.iter().filter_map(named).collect())
}

fn standing(machine: &Machine) -> Standing {
    let up = |handle: &VmHandle, runtime: &Runtime| Standing::Up {
        forwards: runtime.forwards.clone(),
        user: handle.ssh.as_ref().map(|ssh| ssh.user.clone()),
        sshd: reachable(handle).map(|target| target.address),
        host: if handle.is_reached_on_a_bridge() {
            runtime.address.map(IpAddr::V4)
        } else {
            Some(IpAddr::V4(Ipv4Addr::LOCALHOST))
        },
        ip: runtime.address.map(IpAddr::V4),
    };
    let runtime = machine.handle.as_ref().and_then(|handle| Some((handle, handle.runtime.as_ref()?)));
    match (&machine.sight, runtime) {
        (Some(Sight::Seen(found)), Some((handle, runtime))) if is_live(found.state) => up(handle, runtime),
        // Who holds its monitor keeps it from answering; its ports stay as they are recorded.
        (Some(Sight::Unreachable { elsewhere: false, .. }), Some((handle, runtime))) => up(handle, runtime),
        (Some(Sight::Unreachable { reason, .. }), _) => Standing::Unreachable { reason: reason.clone() },
        _ => Standing::Off { state: machine.state().to_owned() },
    }
}

/// The outputs for people, one a line. What is sensitive is hidden.
pub(crate) fn text(outputs: &BTreeMap<Name, Evaluated>) -> String {
    let width = outputs.keys().map(|name| name.as_str().len()).max().unwrap_or(0);
    let line = |(name, output): (&Name, &Evaluated)| {
        let value = match &output.text {
            _ if output.is_sensitive => HIDDEN.to_owned(),
            Ok(text) => ui::visible(text).replace('\n', "\\n"),
            Err(_) => UNKNOWN.to_owned(),
        };
        format!("{:width$} = {value}\n", name.as_str())
    };
    outputs.iter().map(line).collect()
}

/// The outputs for programs, by name.
pub(crate) fn data(outputs: &BTreeMap<Name, Evaluated>, shows_sensitive: bool) -> Value {
    let form = |output: &Evaluated| {
        let value = match &output.text {
            Ok(_) if output.is_sensitive && !shows_sensitive => Some(HIDDEN),
            Ok(text) => Some(text.as_str()),
            Err(_) => None,
        };
        json!({
            "value": value,
            "description": output.description,
            "sensitive": output.is_sensitive,
            "reason": output.text.as_ref().err().map(ToString::to_string),
        })
    };
    json!(outputs.iter().map(|(name, output)| (name.as_str(), form(output))).collect::<BTreeMap<_, _>>())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vmctl_planner::outputs::Unknown;
    use vmctl_providers::VmState;

    use super::*;
    use crate::machines::samples;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn output(text: Result<&str, Unknown>, is_sensitive: bool) -> Evaluated {
        Evaluated { description: None, text: text.map(str::to_owned), is_sensitive }
    }

    fn samples() -> BTreeMap<Name, Evaluated> {
        [
            (name("address"), output(Err(Unknown::NotMade { vm: name("web") }), false)),
            (name("login"), output(Ok("root:hunter2"), true)),
            (name("url"), output(Ok("http://127.0.0.1:8080/\u{1b}[2J\nx"), false)),
        ]
        .into()
    }

    #[test]
    fn list_is_aligned_and_hides_what_is_sensitive() {
        insta::assert_snapshot!(text(&samples()), @r"
        address = (known after apply)
        login   = (sensitive)
        url     = http://127.0.0.1:8080/^[[2J\nx
        ");
    }

    #[test]
    fn data_says_why_a_value_is_missing() {
        let shown = data(&samples(), true);
        assert_eq!(shown["login"]["value"], "root:hunter2");
        assert_eq!(data(&samples(), false)["login"]["value"], "(sensitive)");
        let unknown = json!({
            "value": null, "description": null, "sensitive": false, "reason": "`vm.web` is not made yet",
        });
        assert_eq!(shown["address"], unknown);
    }

    #[test]
    fn only_a_process_that_lives_has_ports() {
        let Standing::Up { forwards, user, sshd, .. } = standing(&samples::machine("web", VmState::Running))
        else {
            panic!("it runs");
        };
        assert_eq!((forwards[0].host_port, user.as_deref()), (40022, Some("vm")));
        assert_eq!(sshd.map(|address| address.port()), Some(40022));
        assert_eq!(
            standing(&samples::machine("web", VmState::Stopped)),
            Standing::Off { state: "stopped".to_owned() }
        );
        let mut silent = samples::unreachable("web");
        assert!(matches!(standing(&silent), Standing::Up { .. }), "as recorded");
        Arc::make_mut(silent.handle.as_mut().unwrap()).runtime = None;
        assert!(matches!(standing(&silent), Standing::Unreachable { .. }));
    }
}
