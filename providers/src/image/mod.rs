//! Disk images: what a file is, and the cache of immutable copies named by digest.
//!
//! A file is taken for an image only if [`header`] understands all of it that could refer to something outside the
//! file. This happens before any other program opens it, over the same bytes that its digest is made of.

mod adopt;
mod backing;
mod cache;
mod clusters;
mod convert;
mod error;
mod file;
mod foreign;
pub mod header;
mod index;
mod intake;
mod remote;
pub(crate) mod sparse;
mod stock;
mod unpack;

pub use backing::backing_name;
pub use cache::{ImageCache, ImageIdentity};
pub use error::ImageError;
pub use remote::{
    FetchError, FetchOptions, FetchPhase, FetchProgress, Fetched, Proxies, RemoteImage, Stall, Upstream,
    shown as shown_url,
};

pub use stock::{CachedImage, Origin, Unused};

use file::{read_at, read_full};

/// Whether `text` is a SHA-256 digest without its kind: it may become a file name.
fn is_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}
