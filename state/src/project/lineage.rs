//! The lineage of a state that is not there yet, so that everything planned before it is made is planned for the same.

use uuid::Uuid;

use super::ProjectDir;
use crate::error::StoreError;
use crate::files;

/// The lineage that this project's state has, or will have when it is made: the one that was reserved first.
///
/// `fresh` is reserved if none was. Several processes may reserve at once; all get the same answer. The folder is
/// made if it is not there. A project that has a state keeps the lineage that stands in it, whatever this says.
pub fn reserve_lineage(dir: &ProjectDir, fresh: Uuid) -> Result<Uuid, StoreError> {
    let path = dir.lineage();
    if let Some(reserved) = read(dir)? {
        return Ok(reserved);
    }
    files::create_private_folder(dir.path())?;
    let draft = path.with_file_name(format!("lineage-{}", fresh.simple()));
    files::create_once(&path, &draft, fresh.to_string().as_bytes())?;
    Ok(read(dir)?.unwrap_or(fresh))
}

fn read(dir: &ProjectDir) -> Result<Option<Uuid>, StoreError> {
    let path = dir.lineage();
    let Some(bytes) = files::read(&path)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes);
    text.trim()
        .parse()
        .map(Some)
        .map_err(|_| StoreError::Damaged { path, detail: "it holds no lineage".to_owned() })
}
