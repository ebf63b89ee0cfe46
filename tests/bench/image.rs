//! Images from a server.

use std::fs;
use std::process::Command;

use vmctl_tests::World;
use vmctl_tests::server::{Answer, Server};

use crate::table::{Case, Need, Row, Sides};
use crate::usage::timed;

pub(crate) const CASES: &[Case] = &[
    Case {
        rows: &[Row::new("P10", "256 MiB pulled, against curl and sha256sum", 1.1)],
        needs: &[Need::Program("curl")],
        measure: |runs| pull(runs, Served::Plain),
    },
    Case {
        rows: &[Row::new("P10", "256 MiB pulled packed, against curl, gzip and sha256sum", 1.1)],
        needs: &[Need::Program("curl")],
        measure: |runs| pull(runs, Served::Packed),
    },
];

/// How an image lies on its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Served {
    Plain,
    Packed,
}

/// Pulling an image from a server of this host (P10): downloaded, digested, unpacked and synced in one pass, against
/// programs that do the same behind one another in a pipe.
fn pull(runs: usize, served: Served) -> Vec<Sides> {
    const SIZE: usize = 256 << 20;
    let world = World::new(1);
    let folder = world.folder().join("home");
    let mut bytes: Vec<u8> = (0..SIZE).map(|n| (n / 4096 + n % 251) as u8).collect();
    bytes[510..512].copy_from_slice(b"\x55\xaa");
    if served == Served::Packed {
        let plain = folder.join("plain");
        fs::write(&plain, &bytes).expect("room for an image");
        bytes = Command::new("gzip").arg("-1c").arg(plain).output().expect("gzip").stdout;
    }
    let server = Server::start(move |_| Answer::whole(bytes.clone()));
    let url = server.url("/disk.raw");
    let ours = || {
        let elapsed = timed(|| drop(world.vmctl(&["image", "pull", &url]).expect(0)));
        fs::remove_dir_all(world.data()).expect("to remove the image");
        elapsed
    };
    let unpack = if served == Served::Packed { "gzip -dc" } else { "cat" };
    let pipe = format!("set -e; curl -sf '{url}' | {unpack} | tee disk | sha256sum; sync disk; rm disk");
    let theirs = || {
        timed(|| {
            let done = Command::new("sh").args(["-c", &pipe]).current_dir(&folder).output().expect("a shell");
            assert!(done.status.success(), "{done:?}");
        })
    };
    vec![Sides::measure(runs, ours, theirs)]
}
