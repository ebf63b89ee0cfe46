//! Disk images: what a file is, and the cache of immutable copies named by digest.
//!
//! A file is taken for an image only if [`header`] understands all of it that could refer to something outside the
//! file. This happens before any other program opens it, over the same bytes that its digest is made of.

mod cache;
mod clusters;
mod error;
pub mod header;
mod remote;

pub use cache::{ImageCache, ImageIdentity};
pub use error::ImageError;
pub use remote::{FetchOptions, FetchPhase, FetchProgress, Fetched, Proxies, RemoteImage, Stall, Upstream};
