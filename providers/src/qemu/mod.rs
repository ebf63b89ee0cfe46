//! The QEMU backend: machines as detached QEMU processes.
//!
//! Two folders belong to a machine. Its *work folder* ([`crate::workdir::WorkDir`]) lasts from prepare to destroy
//! and holds a [`Manifest`] that says whose it is; nothing is removed that such a manifest does not claim. Its
//! [`RuntimeDir`] lasts from start to stop and holds the sockets and the pidfile, on a path short enough for them.
//!
//! ```text
//!   prepare            start                          suspend
//!  ─────────▶ Prepared ─────▶ Running ◀──────────────────────▶ Suspended
//!                               │  ▲        resume                │
//!                          stop │  │ start                        │ stop (resumed, then powered down)
//!                               ▼  │                              │
//!                             Stopped ◀───────────────────────────┘      destroy: from anywhere, to nothing
//! ```
//!
//! Nothing about a live machine is believed because it was once written down. Whether it lives is asked of the
//! kernel (QEMU's lock on its pidfile, with the instance's UUID on the command line), what it does is asked of its
//! monitor. Thus a machine whose launcher was killed, or that was started by an earlier run, is simply found.
//!
//! The backend alone, without the rest of vmctl:
//!
//! ```no_run
//! use std::time::Duration;
//! use vmctl_providers::{Hypervisor, QemuBackend, Result, VmSpec, qemu::{AccelChoice, QemuConfig, firmware}};
//! use vmctl_providers::ssh::Keyring;
//!
//! async fn boot_once(spec: &VmSpec) -> Result<()> {
//!     let qemu = QemuBackend::new(QemuConfig {
//!         vms_dir: "/var/lib/example/vms".into(),
//!         images_dir: "/var/lib/example/images".into(),
//!         templates_dir: "/var/lib/example/templates".into(),
//!         runtime_dir: "/run/example".into(),
//!         accel: AccelChoice::Auto,
//!         take_over: false,
//!         firmware_dirs: firmware::SYSTEM_FOLDERS.map(Into::into).into(),
//!         keyring: Keyring::default(),
//!         bridge_helper: None,
//!         lease_files: Vec::new(),
//!     });
//!     let vm = qemu.prepare(spec).await?;
//!     let vm = qemu.start(&vm).await?;
//!     let vm = qemu.stop(&vm, Duration::from_secs(60)).await?;
//!     qemu.destroy(vm).await
//! }
//! ```
//!
//! Where to read on: [`argv()`] is the command line, [`accel`] the choice of accelerator, `start` and `stop` the two
//! ends of a process's life, `look` the questions about a machine, `probe` those to its guest, `qmp` the monitor,
//! [`bridge`] the cards on bridges of the host.

pub mod accel;
pub mod argv;
pub mod bridge;
pub mod firmware;
pub mod manifest;
pub mod places;

mod agent;
mod backend;
mod base;
mod capacity;
pub(crate) mod console;
mod custody;
mod display;
pub(crate) mod ending;
mod forwards;
pub(crate) mod guest;
mod home;
mod look;
mod names;
mod overlay;
pub(crate) mod placement;
mod ports;
mod preflight;
pub(crate) mod prepare;
pub(crate) mod probe;
mod qmp;
mod reconfigure;
mod shares;
mod standstill;
mod start;
pub(crate) mod stop;
mod tsc;
mod usernet;
mod version;
mod virtiofs;
mod volumes;
mod warm;

pub use crate::spec::AccelChoice;
pub use accel::{Accel, HostFacts};
pub use argv::{Launch, Memory, argv};
pub use backend::{QEMU_ARM, QEMU_IMG, QEMU_X86, QemuBackend, QemuConfig, qemu};
pub use manifest::Manifest;
pub use places::RuntimeDir;
pub use version::{number, suffices, version};
pub use virtiofs::VIRTIOFSD;
