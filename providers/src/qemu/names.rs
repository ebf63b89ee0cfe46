//! Telling a guest which machines are in its private networks: lines of its `/etc/hosts`.
//!
//! A seed is read on boot only, and machines come and go while others run. So the lines are written over ssh: each
//! time that a machine is waited for, and in a machine that runs when they change. Each line ends with a mark, and no
//! line without it is touched.

use tokio::time::Instant;

use super::backend::QemuBackend;
use super::guest::{LOGIN, while_alive};
use super::manifest::{Manifest, Owner};
use crate::error::{Error, Result};
use crate::spec::{Peer, VmHandle};
use crate::ssh::{CarriedOut, Session, quote};
use crate::workdir::WorkDir;

/// How a line of ours ends.
const MARK: &str = "# vmctl";

impl QemuBackend {
    /// Brings a running guest up to date, if there is anything new. Nobody tells one that vmctl does not log in to.
    pub(super) async fn tell_names(&self, vm: &VmHandle) -> Result<()> {
        let Some(manifest) = manifest(vm)? else { return Ok(()) };
        if vm.ssh.is_none() || manifest.told == vm.machine.peers() {
            return Ok(());
        }
        let process = self.process_of(vm, "name the machines of the networks of")?;
        let deadline = Instant::now() + LOGIN;
        let telling = async {
            let session = match self.sessions.get(vm.id, process.pid()) {
                Some(session) => session,
                None => self.log_in(vm, &process, LOGIN, true).await?,
            };
            tell(vm, &session, deadline).await
        };
        while_alive(vm, &process, telling, || true).await
    }
}

/// Whether a guest that has just started is to be told anything.
pub(super) fn are_to_be_told(vm: &VmHandle) -> Result<bool> {
    let told = manifest(vm)?.is_some_and(|manifest| !manifest.told.is_empty());
    Ok(told || !vm.machine.peers().is_empty())
}

/// Writes the lines, and remembers what they say.
pub(super) async fn tell(vm: &VmHandle, session: &Session, deadline: Instant) -> Result<()> {
    let peers = vm.machine.peers();
    match session.carry_out(&command(&peers), deadline).await? {
        CarriedOut::Done => {}
        CarriedOut::Failed(said) => return Err(Error::Names { said, in_time: true }),
        CarriedOut::TooLate => {
            return Err(Error::Names { said: "it did not answer in time".to_owned(), in_time: false });
        }
    }
    if let Some(mut manifest) = manifest(vm)?.filter(|manifest| manifest.told != peers) {
        manifest.told = peers;
        manifest.store(&WorkDir::new(&vm.work_dir))?;
    }
    Ok(())
}

fn manifest(vm: &VmHandle) -> Result<Option<Manifest>> {
    match Manifest::owner(&WorkDir::new(&vm.work_dir), vm.id)? {
        Owner::Ours(manifest) => Ok(Some(*manifest)),
        Owner::Missing | Owner::Vacant | Owner::Other(_) => Ok(None),
    }
}

/// The line for the login user's shell. The file is written to and not replaced: it keeps its owner, mode and labels.
fn command(peers: &[Peer]) -> String {
    let lines: String = peers.iter().map(|peer| format!("{peer} {MARK}\n")).collect();
    let script = format!(
        "set -e\nf=/etc/hosts\nold=$(cat $f 2>/dev/null || :)\n\
         new=$(printf '%s\\n' \"$old\" | sed '/ {MARK}$/d'; printf '%s' {})\n\
         [ \"$new\" = \"$old\" ] || printf '%s\\n' \"$new\" >$f\n",
        quote(&lines)
    );
    let script = quote(&script);
    format!("if [ \"$(id -u)\" = 0 ]; then sh -c {script}; else sudo -n sh -c {script}; fi")
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn lines_bear_the_mark_by_which_they_are_found_again() {
        let peer = |last, names: &[&str]| Peer {
            address: Ipv4Addr::new(10, 77, 0, last),
            names: names.iter().map(ToString::to_string).collect(),
        };
        let command = command(&[peer(10, &["db", "db.lan"]), peer(11, &["web_1", "web-1"])]);
        assert!(
            command.contains("10.77.0.10 db db.lan # vmctl\n10.77.0.11 web_1 web-1 # vmctl\n"),
            "{command}"
        );
    }
}
