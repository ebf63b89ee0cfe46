//! Hypervisor backends behind one trait.
//!
//! [`Hypervisor`] is the seed of the whole tool: prepare, start, stop, suspend, resume, destroy, plus questions.
//! [`QemuBackend`] runs real machines, [`PropolisBackend`] those of illumos, [`NoopBackend`] is a remembering fake, [`RouterHypervisor`] picks by
//! [`BackendTag`]. What only some backends can do is a small trait of its own in [`abilities`].
//!
//! The crate reads no environment and no home folder: every path comes in through configuration.

pub mod abilities;
pub mod capacity;
mod cloud_init;
pub mod console_log;
pub mod contract;
pub mod error;
mod failpoints;
pub mod hypervisor;
pub mod image;
pub mod keys;
pub mod mask;
pub mod media;
pub mod name;
pub mod noop;
pub mod packages;
pub mod pattern;
pub mod process;
pub mod propolis;
pub mod provision;
pub mod qemu;
pub mod router;
pub mod secrets;
pub mod seed;
pub mod spec;
pub mod ssh;
pub mod template;
pub mod text;
mod volume;
pub mod workdir;

pub use abilities::{
    ConsoleHistory, Custody, Damage, Ending, GuestAccess, GuestInterface, Inspect, Inspection, Keep,
    Preflight, Probe, RanByAgent, Readiness, Reconfigure, Stall, Stray, Verdict,
};
pub use capacity::{Capacity, Footprint, Space};
pub use error::{Error, ErrorKind, Result};
pub use hypervisor::{ConsoleEndpoint, Hypervisor};
pub use mask::Mask;
pub use name::{MAX_NAME, Name, NameError};
pub use noop::NoopBackend;
pub use pattern::{Pattern, PatternError};
pub use propolis::PropolisBackend;
pub use qemu::QemuBackend;
pub use router::RouterHypervisor;
pub use secrets::{SealKey, Secrets};
pub use spec::{
    AccelChoice, Arch, BackendTag, CloneStage, Cloned, CloudInitConfig, Digest, DiskImage, Firmware, Forward,
    Hardware, ImageFormat, InputFile, InstanceId, Kernel, MOST_UNASKED, MacAddr, Machine, MadeFrom,
    NetworkConfig, Nic, Peer, PrivateLink, PropolisOptions, Protocol, Runtime, Secret, SeedContent, SeedFile,
    SeedText, SeedUser, Share, ShareDriver, SshConfig, Sudo, Uefi, VmHandle, VmSpec, VmState, VncTcp, Volume,
    Warm, WarmLevel, WarmSpec, ZoneOptions,
};
pub use volume::{FoundVolume, VolumeState, Volumes};

// The code of the guide is compiled and run with the tests of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../../docs/library.md")]
struct LibraryGuide;
