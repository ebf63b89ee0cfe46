//! What a store looked like when it was last closed in order.
//!
//! sled mends what it opens: a torn log becomes a shorter one, and that is written. So a store is opened in its place
//! only if it is byte for byte what was closed, or if a copy of it was opened first and is the state that was expected.
//! The seal says which of both it takes; and its serial is one below which no later store of this lineage can be.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::StoreError;
use crate::files;
use crate::record::{FORMAT_VERSION, Snapshot};

/// Read at once while a file is summed up.
const CHUNK: usize = 256 << 10;

/// The content of the seal. It stands in the store's folder, so that it travels with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seal {
    /// Format of what is in the store.
    format: u32,
    pub(crate) lineage: Uuid,
    pub(crate) serial: u64,
    /// Length of the data file in bytes.
    length: u64,
    /// CRC-32 of the data file, then of the engine's settings.
    sum: u32,
}

/// Which state a store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) lineage: Uuid,
    pub(crate) serial: u64,
}

impl Version {
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        Self { lineage: snapshot.lineage, serial: snapshot.serial }
    }
}

/// The seal's file.
fn path(folder: &Path) -> PathBuf {
    folder.join("seal.json")
}

impl Seal {
    /// Seals a store that nobody has open.
    pub(crate) fn put(folder: &Path, lineage: Uuid, serial: u64) -> Result<(), StoreError> {
        let (length, sum) = summed(folder)?;
        let seal = Self { format: FORMAT_VERSION, lineage, serial, length, sum };
        let json =
            serde_json::to_vec(&seal).map_err(|e| StoreError::io("encode", &path(folder))(e.into()))?;
        files::replace(&path(folder), &json)
    }

    /// The seal of a store; `None` if it was never closed in order, or by a vmctl that knows no seals.
    pub(crate) fn of(folder: &Path) -> Result<Option<Self>, StoreError> {
        let Some(json) = files::read(&path(folder))? else { return Ok(None) };
        // One that cannot be read only costs the shorter way.
        Ok(serde_json::from_slice(&json).ok())
    }

    /// Which state was sealed.
    pub(crate) fn version(&self) -> Version {
        Version { lineage: self.lineage, serial: self.serial }
    }

    /// Refuses what a newer vmctl sealed.
    pub(crate) fn check_format(&self, folder: &Path) -> Result<(), StoreError> {
        if self.format <= FORMAT_VERSION {
            return Ok(());
        }
        Err(StoreError::Newer { path: folder.to_path_buf(), found: self.format, supported: FORMAT_VERSION })
    }

    /// Whether the store is byte for byte what was sealed.
    pub(crate) fn fits(&self, folder: &Path) -> Result<bool, StoreError> {
        Ok(self.fits_length(folder)? && summed(folder)? == (self.length, self.sum))
    }

    /// Whether the data file has the length that was sealed; cheap, for readers.
    pub(crate) fn fits_length(&self, folder: &Path) -> Result<bool, StoreError> {
        Ok(files::size(&crate::sled_store::data_file(folder))? == Some(self.length))
    }
}

/// Length of the data file, and the sum of all that cannot be made again.
fn summed(folder: &Path) -> Result<(u64, u32), StoreError> {
    let mut sum = crc32fast::Hasher::new();
    let mut length = 0;
    let mut chunk = vec![0; CHUNK];
    for path in [crate::sled_store::data_file(folder), folder.join("conf")] {
        let mut file = match File::open(&path) {
            Ok(file) => file,
            // Its absence is summed up as well: by what is not there.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(StoreError::io("open", &path)(error)),
        };
        loop {
            match file.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => {
                    sum.update(&chunk[..read]);
                    length += if path.ends_with("db") { read as u64 } else { 0 };
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(StoreError::io("read", &path)(error)),
            }
        }
    }
    Ok((length, sum.finalize()))
}
