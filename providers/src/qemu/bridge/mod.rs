//! Cards on a bridge of the host: the tap device behind each, and where the guest is found.
//!
//! QEMU runs in a sandbox that lets it start nothing, so that it gets each tap as an open file. Who makes the device
//! decides what this process may do: [`maker`] chooses between ourselves (`tun`) and QEMU's bridge helper (`helper`,
//! `acl`). Either way the device is gone when the last process that has the file open ends, so that nothing is to be
//! removed, and it is looked at from outside (`links`) before QEMU gets it: one that is on no bridge is an error.
//!
//! The guest gets its address from whoever gives addresses on that network. It is known by the hardware address of its
//! card alone: `sources` reads who may know, `address` asks the address itself.

mod acl;
mod address;
mod helper;
mod links;
mod maker;
mod sources;
mod taps;
mod tun;

pub use links::{Link, links};
pub use maker::{Maker, Obstacle};
