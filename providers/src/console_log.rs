//! The file in which QEMU keeps what a guest wrote to its console, and how it is kept from growing without bound.
//!
//! QEMU appends to it for as long as the machine runs and knows no limit, and no process of ours stays beside it. So
//! every command that looks at a running machine, and every wait for one, gives the older part back to the file system
//! once the file takes more than [`MOST`]: the part becomes a hole. Places in the file stay what they are, and nothing
//! that QEMU writes at the same time is lost. At the next start, when nobody writes, the file is made anew of a note
//! and what was kept.
//!
//! So the file is bounded while somebody looks, at least at every command; a guest that floods its console while
//! nobody does fills the disk as fast as the serial line allows.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FallocateFlags, OFlags, SeekFrom as Place};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::qemu::places::write_private;

/// What the file may take of the disk before its older part is dropped.
pub const MOST: u64 = 16 << 20;

/// What is kept of it then: its end.
pub const KEPT: u64 = 8 << 20;

/// Holes begin and end between blocks of the file system; this is a multiple of all usual ones.
const BLOCK: u64 = 64 << 10;

/// What `stat` counts blocks in.
const STAT_BLOCK: u64 = 512;

/// Where what is kept begins; everything before was dropped.
pub fn kept_from(file: &File) -> io::Result<u64> {
    match rustix::fs::seek(file, Place::Data(0)) {
        Ok(place) => Ok(place),
        // There is nothing, or the file system knows of no holes and has none.
        Err(Errno::NXIO) => Ok(file.metadata()?.len()),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Drops the older part of a log that somebody may be writing to, if it takes too much. Missing is fine.
pub fn trim(path: &Path) -> Result<()> {
    let opened = options().open(path);
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(Error::io("open", path))?,
    };
    let found = file.metadata().map_err(Error::io("examine", path))?;
    if found.blocks().saturating_mul(STAT_BLOCK) <= MOST {
        return Ok(());
    }
    let drop = found.len().saturating_sub(KEPT) / BLOCK * BLOCK;
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(&file, flags, 0, drop) {
        Ok(()) => Ok(()),
        // Without holes all of it goes: QEMU appends, wherever the end is.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.set_len(0).map_err(Error::io("shorten", path)),
        Err(error) => Err(Error::io("shorten", path)(error.into())),
    }
}

/// Makes a log anew, of a note and what is kept, if something was or must be dropped. Nobody may be writing to it.
pub(crate) fn renew(path: &Path) -> Result<()> {
    trim(path)?;
    let mut file = match options().open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(Error::io("open", path))?,
    };
    let dropped = kept_from(&file).map_err(Error::io("read", path))?;
    if dropped == 0 {
        return Ok(());
    }
    let mut content = note(dropped).into_bytes();
    let read = file.seek(SeekFrom::Start(dropped)).and_then(|_| file.read_to_end(&mut content));
    read.map_err(Error::io("read", path))?;
    write_private(path, &content)
}

/// The line that tells what is missing.
pub fn note(dropped: u64) -> String {
    format!("==> {dropped} bytes of the console were dropped\n")
}

fn options() -> OpenOptions {
    let mut options = File::options();
    options.read(true).write(true).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    options
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn taken(path: &Path) -> u64 {
        path.metadata().unwrap().blocks() * STAT_BLOCK
    }

    #[test]
    fn long_log_gives_its_older_part_back_while_it_is_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console.log");
        trim(&path).unwrap();
        // As QEMU holds it.
        let mut writer = File::options().append(true).create(true).open(&path).unwrap();
        let lines = "a line of forty bytes with its line end\n".repeat(1 << 17);
        let mut written = 0;
        for round in 0..8 {
            writer.write_all(lines.as_bytes()).unwrap();
            written += lines.len() as u64;
            trim(&path).unwrap();
            assert!(taken(&path) <= MOST, "{round}: {} bytes", taken(&path));
        }
        writer.write_all(b"the end").unwrap();
        assert_eq!(path.metadata().unwrap().len(), written + 7, "places stay what they are");
        let mut file = File::open(&path).unwrap();
        let from = kept_from(&file).unwrap();
        assert!(written - from >= KEPT, "{from} of {written}");
        file.seek(SeekFrom::Start(from)).unwrap();
        let mut kept = Vec::new();
        file.read_to_end(&mut kept).unwrap();
        assert!(kept.ends_with(b"its line end\nthe end") && !kept.contains(&0));

        renew(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, note(from) + std::str::from_utf8(&kept).unwrap());
        renew(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "once is enough");
    }
}
