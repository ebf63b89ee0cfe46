//! Files and folders of a guest on their way to the host.

use std::io::{self, Read};
use std::path::Path;

use tokio::io::AsyncWriteExt;
use tokio_util::io::SyncIoBridge;

use super::session::{Session, keep};
use super::{SshError, quote};
use crate::provision::OutputStream;

/// Packs what the guest has been asked for.
const PACK: &str = include_str!("pack.sh");

/// Bytes that may have come and are not unpacked yet.
const AHEAD: usize = 256 * 1024;

impl Session {
    /// Copies the file or folder `source` of the guest into the folder `into`, under its own name; what a `source` is that
    /// ends in no name, such as `.`, lies in `into` itself.
    ///
    /// A relative path begins at the login user's home; sudo reads what the login user may not, if it asks for no
    /// password. Permission bits, times and links are kept; owners, set-user-id bits and devices are not: a guest is not
    /// trusted, and nothing of what it sends lands outside of `into`. On failure `into` may hold a part. The guest needs
    /// `tar`.
    pub async fn download(&self, source: &str, into: &Path) -> Result<(), SshError> {
        let io = |error| SshError::Io { action: "write to", path: into.into(), source: error };
        let mut running = self.start(&format!("sh -c {} sh {}", quote(PACK), quote(source))).await?;
        running.input().end().await?;
        let (mut sink, archive) = tokio::io::duplex(AHEAD);
        let unpacking = tokio::task::spawn_blocking({
            let (into, archive) = (into.to_owned(), SyncIoBridge::new(archive));
            move || unpack(archive, &into)
        });
        let mut said = Vec::new();
        let mut is_taken = true;
        while let Some((stream, bytes)) = running.next().await? {
            match stream {
                OutputStream::Stdout => is_taken = sink.write_all(&bytes).await.is_ok(),
                OutputStream::Stderr => keep(&mut said, &bytes),
            }
            if !is_taken {
                break;
            }
        }
        drop(sink);
        let unpacked = unpacking.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        if !is_taken {
            return unpacked.map_err(io);
        }
        // The guest knows better than whoever unpacks why its archive is cut off.
        let status = running.finish().await?;
        if !status.is_success() {
            let said = String::from_utf8_lossy(&said);
            let reason = if said.trim().is_empty() { status.to_string() } else { said.trim().to_owned() };
            return Err(SshError::DownloadRefused { source_path: source.to_owned(), reason });
        }
        unpacked.map_err(io)
    }
}

/// Unpacks an archive, and reads it to its end.
fn unpack(mut archive: impl Read, into: &Path) -> io::Result<()> {
    let mut entries = tar::Archive::new(&mut archive);
    entries.set_preserve_mtime(true);
    entries.set_overwrite(false);
    for entry in entries.entries()? {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        if kind.is_character_special() || kind.is_block_special() || kind.is_fifo() {
            continue;
        }
        // What would leave the folder, by its name or through a link, is not unpacked.
        if !entry.unpack_in(into)? {
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            return Err(io::Error::other(format!("`{name}`, which the guest sent, would leave the folder")));
        }
    }
    io::copy(&mut archive, &mut io::sink()).map(drop)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use tar::{Builder, EntryType, Header};

    use super::*;

    fn archive(entries: &[(&str, EntryType, &str, u32)]) -> Vec<u8> {
        let mut archive = Builder::new(Vec::new());
        for (name, kind, text, mode) in entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(*mode);
            // The builder refuses names that a hostile guest writes all the same.
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            if kind.is_symlink() {
                header.set_link_name_literal(text).unwrap();
                header.set_size(0);
                header.set_cksum();
                archive.append(&header, io::empty()).unwrap();
            } else {
                header.set_size(text.len() as u64);
                header.set_cksum();
                archive.append(&header, text.as_bytes()).unwrap();
            }
        }
        archive.into_inner().unwrap()
    }

    #[test]
    fn nothing_leaves_the_folder_and_nothing_runs_as_somebody_else() {
        let folder = tempfile::tempdir().unwrap();
        let into = folder.path().join("into");
        fs::create_dir(&into).unwrap();
        let bytes = archive(&[
            ("ok", EntryType::Regular, "fine", 0o4755),
            ("link", EntryType::Symlink, "..", 0o777),
            ("null", EntryType::Char, "", 0o666),
        ]);
        unpack(&bytes[..], &into).unwrap();
        assert_eq!(fs::read(into.join("ok")).unwrap(), b"fine");
        assert_eq!(fs::metadata(into.join("ok")).unwrap().permissions().mode() & 0o7777, 0o755);
        assert!(!folder.path().join("out").exists() && !into.join("null").exists());
        let above = archive(&[("../out", EntryType::Regular, "no", 0o644)]);
        unpack(&above[..], &into).unwrap_err();
        let through = archive(&[("link/out", EntryType::Regular, "no", 0o644)]);
        unpack(&through[..], &into).unwrap_err();
        assert!(!folder.path().join("out").exists());
    }

    #[test]
    fn archive_that_is_cut_off_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = archive(&[("ok", EntryType::Regular, &"x".repeat(2000), 0o644)]);
        unpack(&bytes[..1000], folder.path()).unwrap_err();
    }
}
