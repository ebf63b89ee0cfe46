//! The VMFile of a project that has none of a user's: the machines that were made by command are described in it.
//!
//! It is no part of the state, and is read as any VMFile. Only the holder of the project's lock writes it.

use std::path::PathBuf;

use super::ProjectDir;
use crate::error::StoreError;
use crate::failpoints::failpoint;
use crate::files;

impl ProjectDir {
    /// The project's own VMFile; it may not be there.
    pub fn vmfile(&self) -> PathBuf {
        self.path().join("VMFile.kdl")
    }

    /// Puts `text` in place of the project's own VMFile, as a whole, or removes it with the pins beside it. It is durable
    /// then.
    ///
    /// Only the holder of the project's lock may call this.
    pub fn write_vmfile(&self, text: Option<&str>) -> Result<(), StoreError> {
        let path = self.vmfile();
        match text {
            Some(text) => files::replace(&path, text.as_bytes())?,
            None => {
                // What it pinned, nothing asks for any more.
                let pins = files::remove(&self.path().join("VMFile.lock"))?;
                if files::remove(&path)? || pins {
                    files::sync_folder(self.path())?;
                }
            }
        }
        failpoint!("state.own.written", &path);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn own_vmfile_is_private_and_goes_without_a_trace() {
        let data = tempfile::tempdir().unwrap();
        let dir = ProjectDir::of_project(data.path(), "default");
        files::create_private_folder(dir.path()).unwrap();
        dir.write_vmfile(Some("vm \"a\"\n")).unwrap();
        dir.write_vmfile(Some("vm \"b\"\n")).unwrap();
        assert_eq!(std::fs::read_to_string(dir.vmfile()).unwrap(), "vm \"b\"\n");
        assert_eq!(std::fs::metadata(dir.vmfile()).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(dir.path().join("VMFile.lock"), "").unwrap();
        dir.write_vmfile(None).unwrap();
        dir.write_vmfile(None).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
