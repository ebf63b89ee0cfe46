//! Raw disks, as Propolis has them: the bytes of an image in a file, or on a device.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::spawn_blocking;

use crate::error::{Error, Result};
use crate::failpoints::failpoint;
use crate::process::helper;
use crate::qemu::QEMU_IMG;
use crate::qemu::places::{give_up, publish, remove_file, unfinished};
use crate::spec::{DiskImage, ImageFormat};

/// How long the conversion of an image may take.
const CONVERSION: Duration = Duration::from_secs(1800);

/// How much is copied at once. Raw devices take whole sectors only, and this is many.
const BLOCK: usize = 1 << 20;

/// Makes the file `path`, a disk of `bytes` that begins with `image`. It appears whole; an existing one is kept, and grown.
pub(super) async fn ensure_file(path: &Path, image: Option<&DiskImage>, bytes: u64) -> Result<()> {
    if path.exists() {
        return grow(path, bytes);
    }
    let part = unfinished(path);
    let made = async {
        match image {
            Some(image) if image.format == ImageFormat::Qcow2 => convert(&image.path, &part).await?,
            Some(image) => copy(image.path.clone(), part.clone(), true).await?,
            None => drop(File::create(&part).map_err(Error::io("create", &part))?),
        }
        grow(&part, bytes)?;
        failpoint!("prepare.propolis.disk-drafted", path);
        publish(path)
    };
    let made = made.await;
    made.inspect_err(|_| give_up(&part))
}

/// Writes `image` to a device that holds nothing but zeros. `scratch` is a path for a file that is removed again.
pub(super) async fn write_to_device(image: &DiskImage, device: &Path, scratch: &Path) -> Result<()> {
    match image.format {
        ImageFormat::Raw => copy(image.path.clone(), device.to_owned(), false).await,
        ImageFormat::Qcow2 => {
            let written = async {
                convert(&image.path, scratch).await?;
                copy(scratch.to_owned(), device.to_owned(), false).await
            };
            let written = written.await;
            remove_file(scratch)?;
            written
        }
    }
}

async fn convert(from: &Path, to: &Path) -> Result<()> {
    let args = ["convert", "-q", "-f", "qcow2", "-O", "raw"].map(Into::into);
    let mut args: Vec<std::ffi::OsString> = args.into();
    args.extend([from.into(), to.into()]);
    helper(&QEMU_IMG, &args, CONVERSION).await.map(drop)
}

/// Makes a file larger. It never shrinks: what is at its end would be lost.
fn grow(path: &Path, bytes: u64) -> Result<()> {
    let file = OpenOptions::new().write(true).open(path).map_err(Error::io("open", path))?;
    let length = file.metadata().map_err(Error::io("examine", path))?.len();
    if length < bytes { file.set_len(bytes).map_err(Error::io("grow", path)) } else { Ok(()) }
}

async fn copy(from: PathBuf, to: PathBuf, is_file: bool) -> Result<()> {
    let place = to.clone();
    let copied = spawn_blocking(move || copy_now(&from, &to, is_file)).await;
    copied.map_err(|error| Error::io("write", place)(io::Error::other(error)))?
}

fn copy_now(from: &Path, to: &Path, is_file: bool) -> Result<()> {
    let mut source = File::open(from).map_err(Error::io("open", from))?;
    let mut options = OpenOptions::new();
    options.write(true).create(is_file).truncate(is_file);
    let target = options.open(to).map_err(Error::io("open", to))?;
    if is_file {
        let length = source.metadata().map_err(Error::io("examine", from))?.len();
        target.set_len(length).map_err(Error::io("grow", to))?;
    }
    let (mut block, mut place) = (vec![0; BLOCK], 0);
    loop {
        let length = read_block(&mut source, &mut block).map_err(Error::io("read", from))?;
        if length == 0 {
            return target.sync_all().map_err(Error::io("write", to));
        }
        // What is zero is zero there already, and takes no room.
        if block[..length].iter().any(|byte| *byte != 0) {
            let end = if is_file { length } else { length.next_multiple_of(512) };
            block[length..end].fill(0);
            target.write_all_at(&block[..end], place).map_err(Error::io("write", to))?;
        }
        place += length as u64;
    }
}

/// Fills the block, unless the source ends before.
fn read_block(source: &mut File, block: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < block.len() {
        match source.read(&mut block[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}
