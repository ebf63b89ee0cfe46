//! What a QCOW2 image says it lies on. Only told: nothing follows it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// The first bytes of every QCOW2 image.
const MAGIC: [u8; 4] = *b"QFI\xfb";

/// Longest name that QEMU takes.
const LONGEST: u32 = 1023;

/// The name of the file that the QCOW2 image at `path` lies on, as it is written there; `None` if it stands alone, or
/// if it is no such image. Reads a few bytes, takes no lock and changes nothing.
pub fn backing_name(path: &Path) -> io::Result<Option<String>> {
    let mut file = File::open(path)?;
    let mut head = [0; 20];
    if let Err(error) = file.read_exact(&mut head) {
        return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(None) } else { Err(error) };
    }
    let (magic, rest) = head.split_at(4);
    let (_version, rest) = rest.split_at(4);
    let (offset, length) = rest.split_at(8);
    let offset = u64::from_be_bytes(offset.try_into().unwrap_or_default());
    let length = u32::from_be_bytes(length.try_into().unwrap_or_default());
    if magic != MAGIC || offset == 0 || length == 0 || length > LONGEST {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(offset))?;
    let mut name = Vec::new();
    file.take(length.into()).read_to_end(&mut name)?;
    Ok(String::from_utf8(name).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(offset: u64, length: u32, tail: &[u8]) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("overlay.qcow2");
        let head = [&MAGIC[..], &[0, 0, 0, 3], &offset.to_be_bytes(), &length.to_be_bytes(), tail].concat();
        std::fs::write(&path, head).unwrap();
        backing_name(&path).unwrap()
    }

    #[test]
    fn name_is_read_where_the_header_says_and_nowhere_else() {
        assert_eq!(written(20, 5, b"/base rest").as_deref(), Some("/base"));
        assert_eq!(written(0, 5, b"/base"), None);
        assert_eq!(written(20, u32::MAX, b"/base"), None);
        assert_eq!(written(20, 2, &[0xff, 0xfe]), None);
        assert_eq!(written(1 << 40, 5, b"").as_deref(), Some(""));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("short");
        std::fs::write(&path, b"QFI\xfb").unwrap();
        assert_eq!(backing_name(&path).unwrap(), None);
    }
}
