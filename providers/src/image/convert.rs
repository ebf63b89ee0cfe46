//! Makes qcow2 images of what other programs wrote, by `qemu-img` within limits (S12).

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use super::foreign::{Fault, Foreign};
use super::header::HeaderError;
use crate::error::{Error, Result};
use crate::process::{Limits, limited_helper};
use crate::qemu::QEMU_IMG;

/// Address space of a conversion. Most of it is what the C library keeps for each of QEMU's threads and never touches;
/// tables of a hostile image do not fit beside it.
const MEMORY: u64 = 2 << 30;

/// How long a conversion may take, of the processor and of the clock. 64 GiB at 40 MiB a second.
const CPU_SECONDS: u64 = 1800;
const DEADLINE: Duration = Duration::from_secs(3600);

/// Why a file cannot be converted.
#[derive(Debug)]
pub(super) enum Failure {
    Read(std::io::Error),
    Refused(HeaderError),
}

/// Checks that `file` is an image of its own and returns the size of its disk.
pub(super) fn check(format: Foreign, file: &File, size: u64) -> std::result::Result<u64, Failure> {
    let mut read = |at, buffer: &mut [u8]| super::read_at(file, at, buffer);
    format.check(size, &mut read).map_err(|fault| match fault {
        Fault::Read(error) => Failure::Read(error),
        Fault::Refused(problem) => Failure::Refused(problem),
    })
}

/// Converts `source`, which [`check`] accepted, into the file `target` of at most `limit` bytes.
pub(super) async fn convert(format: Foreign, source: &Path, target: &Path, limit: u64) -> Result<()> {
    let mut args: Vec<OsString> =
        ["convert", "-q", "-m", "1", "-f", format.driver(), "-O", "qcow2"].map(Into::into).into();
    args.extend([source.into(), target.into()]);
    let limits = Limits { memory: MEMORY, cpu_seconds: CPU_SECONDS, file: limit };
    limited_helper(&QEMU_IMG, &args, limits, DEADLINE).await.map(drop)
}

/// As [`convert`], for those who wait on a thread of their own.
pub(super) fn convert_now(format: Foreign, source: &Path, target: &Path, limit: u64) -> Result<()> {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(Error::io("start a runtime to convert", source))?;
        runtime.block_on(convert(format, source, target, limit))
    };
    // The caller's thread may be one that must not wait in a runtime.
    std::thread::scope(|scope| scope.spawn(run).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
