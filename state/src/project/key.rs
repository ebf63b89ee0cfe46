//! The key that the planner makes digests of sensitive values with. It is printed nowhere, and no part of the state.

use uuid::Uuid;

use super::ProjectDir;
use crate::error::StoreError;
use crate::files;

/// Length of a key in bytes.
pub const KEY_LENGTH: usize = 32;

/// A project's key.
pub type Key = [u8; KEY_LENGTH];

/// The key of this project, if it has one.
pub fn key(dir: &ProjectDir) -> Result<Option<Key>, StoreError> {
    let path = dir.key();
    let Some(text) = files::read(&path)? else { return Ok(None) };
    match parse(text.trim_ascii()) {
        Some(key) => Ok(Some(key)),
        None => Err(StoreError::Damaged { path, detail: "it holds no key".to_owned() }),
    }
}

/// The key that this project has from now on: the one that was made first.
///
/// `fresh`, which must be random, is kept if there is none. Several processes may do so at once; all get the same answer.
/// The folder is made if it is not there; only the owner can read the file.
pub fn make_key(dir: &ProjectDir, fresh: Key) -> Result<Key, StoreError> {
    files::create_private_folder(dir.path())?;
    let draft = dir.key().with_file_name(format!("key-{}", Uuid::new_v4().simple()));
    let text: String = fresh.iter().map(|byte| format!("{byte:02x}")).collect();
    files::create_once(&dir.key(), &draft, text.as_bytes())?;
    Ok(key(dir)?.unwrap_or(fresh))
}

fn parse(digits: &[u8]) -> Option<Key> {
    let mut key = [0; KEY_LENGTH];
    if digits.len() != 2 * KEY_LENGTH {
        return None;
    }
    for (byte, pair) in key.iter_mut().zip(digits.chunks(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(key)
}
