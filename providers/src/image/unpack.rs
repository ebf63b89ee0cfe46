//! Compressed images: told by their first bytes, never by their names, and unpacked with bounded memory.

use std::io::{self, Read};

use bzip2::read::MultiBzDecoder;
use flate2::read::MultiGzDecoder;
use liblzma::read::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};

/// Largest window of a zstd frame, as a power of two: what the `zstd` program takes without being told to take more.
const ZSTD_WINDOW: u32 = 27;

/// Most memory of xz's decoder: twice what its strongest preset needs.
const XZ_MEMORY: u64 = 130 << 20;

/// How a file is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Zstd,
    Gzip,
    Xz,
    Bzip2,
}

impl Packing {
    /// How a file is packed that begins with `head`; none if it is not.
    pub(super) fn of(head: &[u8]) -> Option<Self> {
        match head {
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            // A frame that is to be skipped; the real ones follow (RFC 8878, 3.1.2).
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Some(Self::Bzip2),
            _ => None,
        }
    }

    /// What it is called.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Bzip2 => "bzip2",
        }
    }

    /// What is in `packed`, all of its members one behind the other.
    pub(super) fn unpack<'r>(self, packed: impl Read + 'r) -> io::Result<Box<dyn Read + 'r>> {
        Ok(match self {
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::new(packed)?;
                decoder.window_log_max(ZSTD_WINDOW)?;
                Box::new(decoder)
            }
            Self::Gzip => Box::new(MultiGzDecoder::new(packed)),
            Self::Xz => {
                let stream = Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED).map_err(io::Error::from)?;
                Box::new(XzDecoder::new_stream(packed, stream))
            }
            Self::Bzip2 => Box::new(MultiBzDecoder::new(packed)),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use super::*;

    const ALL: [Packing; 4] = [Packing::Zstd, Packing::Gzip, Packing::Xz, Packing::Bzip2];

    /// `bytes`, packed.
    pub(in super::super) fn packed(packing: Packing, bytes: &[u8]) -> Vec<u8> {
        match packing {
            Packing::Zstd => zstd::encode_all(bytes, 1).unwrap(),
            Packing::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Packing::Xz => liblzma::encode_all(bytes, 0).unwrap(),
            Packing::Bzip2 => {
                let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
        }
    }

    fn unpacked(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Packing::of(bytes).expect("a packed file").unpack(bytes)?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn every_packing_is_told_by_its_content_and_undone_with_all_its_members() {
        for packing in ALL {
            let mut bytes = packed(packing, b"one ");
            assert_eq!(Packing::of(&bytes), Some(packing));
            bytes.extend(packed(packing, b"two"));
            assert_eq!(unpacked(&bytes).unwrap(), b"one two", "{packing:?}");
        }
        for other in [&b"QFI\xfb\0\0"[..], b"", b"BZh", b"BZhello", b"\x1f"] {
            assert_eq!(Packing::of(other), None);
        }
    }

    #[test]
    fn cut_off_or_changed_bytes_are_an_error() {
        let content: Vec<u8> = (0..50_000_u32).flat_map(|n| (n * n).to_le_bytes()).collect();
        for packing in ALL {
            let whole = packed(packing, &content);
            for length in [whole.len() - 1, whole.len() / 2, 20] {
                assert!(unpacked(&whole[..length]).is_err(), "{packing:?} {length}");
            }
            // zstd's encoder writes no sum unless told to.
            if packing != Packing::Zstd {
                let mut changed = whole.clone();
                changed[whole.len() / 2] ^= 0x10;
                assert_ne!(unpacked(&changed).unwrap_or_default(), content, "{packing:?}");
            }
        }
    }

    #[test]
    fn frame_that_wants_too_much_memory_is_refused() {
        // Magic, a header that says 2 GiB of window (exponent 21), an empty last block.
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x01, 0x00, 0x00];
        assert!(unpacked(&frame).is_err());
        let small = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 10 << 3, 0x01, 0x00, 0x00];
        assert_eq!(unpacked(&small).unwrap(), b"");
        // xz's largest dictionary, 4 GiB, in the header of the first block.
        let mut stream = packed(Packing::Xz, &[7; 1000]);
        assert_eq!(unpacked(&stream).unwrap(), [7; 1000]);
        let block = 12..12 + (usize::from(stream[12]) + 1) * 4;
        assert_eq!(stream[14..16], [0x21, 1], "LZMA2 and one byte of properties");
        stream[16] = 40;
        let mut sum = flate2::Crc::new();
        sum.update(&stream[block.start..block.end - 4]);
        stream[block.end - 4..block.end].copy_from_slice(&sum.sum().to_le_bytes());
        assert!(unpacked(&stream).unwrap_err().to_string().contains("emory"));
    }
}
