//! Which folder a machine gets.
//!
//! It is the one that bears its name, unless that is another machine's: one that was renamed or let go of keeps its
//! folder. Then it is a folder beside it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::backend::QemuBackend;
use super::manifest::{Manifest, Owner};
use crate::error::Result;
use crate::name::Name;
use crate::spec::{InstanceId, VmSpec};
use crate::workdir::{WorkDir, beside};

/// What was chosen by this backend, so that the handle that is recorded names the folder that is made, even if the
/// machine in the way goes in between.
#[derive(Debug, Default)]
pub(super) struct Placements(Mutex<HashMap<(InstanceId, Name), PathBuf>>);

impl QemuBackend {
    /// The folder of the machine that `spec` describes, whether it is made already or not.
    pub(super) fn place(&self, spec: &VmSpec) -> Result<WorkDir> {
        let plain = self.config().vms_dir.join(spec.name.as_str());
        let mut placements = self.placements.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (spec.id, spec.name.clone());
        if let Some(path) = placements.get(&key) {
            return Ok(WorkDir::new(path));
        }
        let path = choose(&plain, spec.id)?;
        placements.insert(key, path.clone());
        Ok(WorkDir::new(path))
    }
}

/// A folder that is ours already stays it, wherever it is.
pub(crate) fn choose(plain: &Path, id: InstanceId) -> Result<PathBuf> {
    let beside = beside(plain, id);
    if let Owner::Ours(_) = Manifest::owner(&WorkDir::new(&beside), id)? {
        return Ok(beside);
    }
    let work = WorkDir::new(plain);
    match Manifest::owner(&work, id)? {
        // Files without a manifest are nobody's we know, and no reason to step aside silently.
        Owner::Other(_) if Manifest::load(&work)?.is_some() => Ok(beside),
        Owner::Missing | Owner::Vacant | Owner::Ours(_) | Owner::Other(_) => Ok(plain.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::manifest::tests::spec;
    use super::*;

    #[test]
    fn folder_of_another_machine_is_stepped_aside_from() {
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("web");
        let ours = spec(Path::new("/image"));
        let mut manifest = Manifest::new(&ours, None);
        assert_eq!(choose(&plain, ours.id).unwrap(), plain);
        std::fs::create_dir(&plain).unwrap();
        assert_eq!(choose(&plain, ours.id).unwrap(), plain);
        manifest.store(&WorkDir::new(&plain)).unwrap();
        assert_eq!(choose(&plain, ours.id).unwrap(), plain);

        let other = InstanceId(uuid::Uuid::from_u128(0xabcd << 112));
        let aside = folder.path().join("web~abcd000000000000");
        assert_eq!(choose(&plain, other).unwrap(), aside);
        // Begun there, it goes on there, though the plain folder is free by now.
        std::fs::create_dir(&aside).unwrap();
        manifest.id = other;
        manifest.store(&WorkDir::new(&aside)).unwrap();
        std::fs::remove_dir_all(&plain).unwrap();
        assert_eq!(choose(&plain, other).unwrap(), aside);

        std::fs::create_dir(&plain).unwrap();
        std::fs::write(plain.join("thesis.txt"), "").unwrap();
        assert_eq!(choose(&plain, ours.id).unwrap(), plain);
    }
}
