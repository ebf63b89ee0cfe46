//! The display of a running machine: where it is, and what opens it.
//!
//! It is always on a private socket. Over TCP it is served only where the VMFile asks for that, on the loopback, and
//! with a password that never stands on a command line: QEMU starts with none, which opens for nobody, and is told it
//! through the monitor.

use std::fs;
use std::io;

use uuid::Uuid;

use super::places::{RuntimeDir, write_private};
use super::qmp::Monitor;
use crate::error::{Error, Result};
use crate::spec::{Secret, VmHandle};
use crate::workdir::WorkDir;

/// Letters and digits that are not taken for one another; 32 of them, so that five random bits choose one.
const SIGNS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// VNC looks at no more of a password (RFC 6143, 7.2.2).
const LENGTH: usize = 8;

/// Where the display is, if the machine has one.
pub(super) async fn address(
    vm: &VmHandle,
    run: &RuntimeDir,
    monitor: &mut Monitor,
) -> Result<Option<String>> {
    let hardware = &vm.machine.hardware;
    if hardware.is_microvm() {
        return Ok(None);
    }
    if hardware.vnc.is_some()
        && let Some((host, port)) = monitor.display().await?
    {
        return Ok(Some(format!("tcp:{host}:{port}")));
    }
    Ok(Some(format!("unix:{}", run.vnc().display())))
}

/// Sets the machine's password where its display is served over TCP; makes one first where it has none.
pub(super) async fn protect(vm: &VmHandle, monitor: &mut Monitor) -> Result<()> {
    if vm.machine.hardware.vnc.is_none() {
        return Ok(());
    }
    let path = WorkDir::new(&vm.work_dir).vnc_password();
    let known = match fs::read_to_string(&path) {
        Ok(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    let password = match known {
        Some(known) => known,
        None => {
            let made = password(Uuid::new_v4());
            write_private(&path, made.as_bytes())?;
            made
        }
    };
    monitor.set_display_password(&Secret::new(password)).await
}

/// A password out of a random id.
fn password(random: Uuid) -> String {
    // Two bytes of such an id say what kind of id it is (RFC 9562, 5.4).
    let bytes = random.as_bytes().iter().enumerate().filter(|(at, _)| ![6, 8].contains(at));
    bytes.take(LENGTH).map(|(_, byte)| char::from(SIGNS[usize::from(byte & 31)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_have_the_length_that_counts_and_differ() {
        let (one, other) = (password(Uuid::new_v4()), password(Uuid::new_v4()));
        assert_eq!((one.len(), other.len()), (8, 8));
        assert_ne!(one, other);
        assert_eq!(password(Uuid::from_u128(0)), "aaaaaaaa");
    }
}
