//! Texts behind the digests that records name, kept so that a later plan can show what changed in them.
//!
//! They are no part of the state: a text that is lost costs a line diff and nothing else. They may hold what their
//! author would not show around, so that only the owner can read them.

use std::collections::BTreeSet;

use super::ProjectDir;
use crate::error::StoreError;
use crate::files;

/// Longest digest that can name a file.
const LONGEST_NAME: usize = 128;

impl ProjectDir {
    /// The text that was kept under `digest`; `None` if there is none, or none that can be read.
    pub fn text(&self, digest: &str) -> Option<String> {
        let path = self.texts().join(file_name(digest)?);
        match files::read(&path) {
            Ok(bytes) => String::from_utf8(bytes?).ok(),
            Err(error) => {
                tracing::debug!(%error, "a kept text cannot be read");
                None
            }
        }
    }

    /// Keeps each text under its digest; those that are kept already are left as they are.
    ///
    /// Only the holder of the project's lock may call this.
    pub fn keep_texts<'t>(
        &self,
        texts: impl IntoIterator<Item = (&'t str, &'t str)>,
    ) -> Result<(), StoreError> {
        let mut is_made = false;
        for (digest, text) in texts {
            let Some(name) = file_name(digest) else { continue };
            if !is_made {
                files::create_private_folder(&self.texts())?;
                is_made = true;
            }
            let path = self.texts().join(name);
            if !files::exists(&path)? {
                files::replace(&path, text.as_bytes())?;
            }
        }
        Ok(())
    }

    /// Removes every text whose digest is not in `kept`.
    ///
    /// Only the holder of the project's lock may call this.
    pub fn forget_texts_but(&self, kept: &BTreeSet<String>) -> Result<(), StoreError> {
        let kept: BTreeSet<_> = kept.iter().filter_map(|digest| file_name(digest)).collect();
        for (path, is_folder) in files::entries(&self.texts())? {
            let is_kept =
                path.file_name().and_then(|name| name.to_str()).is_some_and(|name| kept.contains(name));
            if !is_folder && !is_kept {
                files::remove(&path)?;
            }
        }
        Ok(())
    }
}

/// The name of a text's file: the digest without what no file name should have.
fn file_name(digest: &str) -> Option<String> {
    let name = digest.replace(':', "-");
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    (!name.is_empty() && name.len() <= LONGEST_NAME && name.chars().all(is_plain)).then_some(name)
}
