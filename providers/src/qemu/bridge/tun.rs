//! Making a tap device: the one request that the kernel takes in no other form than an `ioctl`.

use std::ffi::c_int;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::io::Errno;
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

use crate::error::{Error, Result};

/// What tap devices are made through.
pub(super) const TUN: &str = "/dev/net/tun";

/// Makes the device of this kind and name, and binds it to the open file (linux/if_tun.h).
const TUNSETIFF: Opcode = opcode::write::<c_int>(b'T', 202);

/// Whole frames, without a mark before each.
const TAP: u16 = 0x0002 | 0x1000;

/// With room for what virtio leaves to be done, such as checksums: QEMU takes large frames then.
const VNET_HDR: u16 = 0x4000;

/// Refused where there is such a device.
const NEW: u16 = 0x8000;

/// `struct ifreq` as far as this request has any of it (netdevice(7)).
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// Opens the way to tap devices. Nothing is made by that.
pub(super) fn open() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(TUN)
}

/// Makes the tap device `name`, at most 15 bytes, which lives as long as the file is open anywhere.
pub(super) fn make(name: &str) -> Result<OwnedFd> {
    let file = open().map_err(Error::io("open", TUN))?;
    let mut request = Request { name: [0; 16], flags: TAP | VNET_HDR | NEW, rest: [0; 22] };
    let room = request.name.len() - 1;
    for (to, from) in request.name.iter_mut().zip(name.bytes().take(room)) {
        *to = from;
    }
    match set(&file, &mut request) {
        Ok(()) => Ok(file.into()),
        Err(Errno::BUSY) => Err(Error::Unusable {
            path: Path::new("/sys/class/net").join(name),
            reason: "a device of that name is there already, and another process has it".to_owned(),
        }),
        Err(error) => Err(Error::io("make a tap device through", TUN)(error.into())),
    }
}

#[expect(unsafe_code, reason = "no library that is here has this request")]
fn set(file: &File, request: &mut Request) -> Result<(), Errno> {
    // SAFETY: the request is what TUNSETIFF reads and writes: an ifreq, which has 40 bytes or fewer, in memory that is
    // borrowed for the whole call.
    unsafe { ioctl(file, Updater::<TUNSETIFF, Request>::new(request)) }
}
