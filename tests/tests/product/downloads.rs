//! Downloads that end in the middle: killed, asked to stop once, told to stop at once. The next one goes on.

use std::fs;
use std::path::PathBuf;

use vmctl_tests::disk::Disks;
use vmctl_tests::server::{Answer, Server};
use vmctl_tests::{Running, World, await_condition, leaks, process};

/// How much comes before the server falls silent for the first time.
const CAME: usize = 300_000;

/// A raw disk with a boot record's mark.
fn disk() -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..2_u32 << 20).map(|n| (n / 5 + n / 997) as u8).collect();
    bytes[510..512].copy_from_slice(b"\x55\xaa");
    bytes
}

/// A server that falls silent in the middle of the first answer.
fn server() -> Server {
    Server::start(|asked| match asked.before {
        0 => Answer { stall: Some(CAME), ..Answer::file(asked, &disk(), "\"a\"") },
        _ => Answer::file(asked, &disk(), "\"a\""),
    })
}

/// What lies in the folder of downloads.
fn downloads(world: &World) -> Vec<PathBuf> {
    let files = fs::read_dir(world.data().join("images/.downloads")).into_iter().flatten().flatten();
    files.map(|file| file.path()).collect()
}

/// Waits until all that came is in a file.
fn await_bytes(world: &World) {
    await_condition("what came is on the disk", || {
        let parts =
            downloads(world).into_iter().filter(|path| path.extension().is_some_and(|end| end == "part"));
        parts.filter_map(|path| path.metadata().ok()).any(|part| part.len() == CAME as u64)
    });
}

/// Nothing that came was asked for again, nothing is left, and the image is whole.
fn went_on(world: &World, server: &Server) {
    let from: Vec<_> = server.asked().iter().map(|asked| asked.from()).collect();
    assert_eq!(from, [None, Some(CAME)]);
    assert_eq!(downloads(world), [] as [PathBuf; 0]);
    let list = world.vmctl(&["image", "list", "--json"]).expect(0).json();
    let path = list["images"][0]["path"].as_str().expect("an image");
    assert!(fs::read(path).expect("an image") == disk());
}

fn vmfile(world: &World, url: &str) {
    world.vmfile(&format!("vm \"far\" {{ image-url {url:?}; backend \"noop\" }}"));
}

/// Ends an apply and a pull in the middle of a download, and has each gone on with.
fn gone_on_with(end: impl Fn(Running, bool)) {
    for is_apply in [false, true] {
        let (world, server) = (World::new(0), server());
        let url = server.url("/disk.raw");
        vmfile(&world, &url);
        let arguments: &[&str] = if is_apply { &["apply", "--yes"] } else { &["image", "pull", &url] };
        let run = world.start(arguments);
        await_bytes(&world);
        end(run, is_apply);
        world.vmctl(arguments).expect(0);
        went_on(&world, &server);
        if is_apply {
            leaks::leakcheck(&world);
        }
    }
}

#[test]
fn download_killed_in_the_middle_is_gone_on_with() {
    gone_on_with(|run, _| run.kill());
}

#[test]
fn download_that_is_asked_to_stop_ends_at_once_and_is_gone_on_with() {
    gone_on_with(|run, is_apply| {
        process::interrupt(run.pid());
        let ended = run.end().expect(130);
        if !is_apply {
            ended.says("What came so far is kept");
        }
    });
}

/// What blocks a download at its end cannot be ended by the first Ctrl-C; more of them end vmctl.
#[test]
fn download_that_blocks_is_ended_by_the_second_ctrl_c_and_gone_on_with() {
    for is_apply in [false, true] {
        let mut world = World::with_failpoints(0);
        let server = Server::start(|asked| Answer::file(asked, &disk(), "\"a\""));
        let url = server.url("/disk.raw");
        vmfile(&world, &url);
        let arguments: &[&str] = if is_apply { &["apply", "--yes"] } else { &["image", "pull", &url] };
        world.arm("fetch-image.download.placed=delay:3600000");
        let mut run = world.start(arguments);
        run.await_line(|line| line.contains("checked"));
        let pid = run.pid();
        // Two signals that come at once may be one to the process.
        await_condition("it ends", || {
            process::interrupt_if_alive(pid);
            process::await_end(pid, std::time::Duration::from_millis(50))
        });
        run.end().expect(130);
        world.unset("VMCTL_FAILPOINT");
        world.vmctl(arguments).expect(0);
        assert_eq!(server.whole(), 1);
        assert_eq!(downloads(&world), [] as [PathBuf; 0]);
        if is_apply {
            leaks::leakcheck(&world);
        }
    }
}

/// What is packed in few bytes fills the disk: the room is given back, what came is kept, and it goes on when there is room.
#[test]
fn disk_that_fills_up_in_a_download_is_given_back() {
    let mut world = World::new(0);
    let plain = world.folder().join("home/disk.raw");
    fs::write(&plain, disk().repeat(40)).expect("an image");
    let packed = world.beside_vmctl("gzip").arg("-1c").arg(plain).output().expect("gzip").stdout;
    let server = Server::start(move |asked| Answer::file(asked, &packed, "\"a\""));
    let url = server.url("/disk.raw.gz");
    let disks = Disks::of(&mut world);
    let images = world.data().join("images");
    disks.mount(&images, 8 << 10);
    world.vmctl(&["image", "pull", &url]).expect(1).says("no room is left").says("64 MiB besides stay free");

    disks.remount(&images, "size=70m");
    world.vmctl(&["image", "pull", &url]).expect(1).says("No space left on device");
    let downloads = fs::read_dir(disks.see(&images.join(".downloads"))).expect("the folder of downloads");
    let ends = downloads.map(|file| file.expect("a file").path().extension().map(std::ffi::OsStr::to_owned));
    let mut ends: Vec<_> = ends.flatten().collect();
    ends.sort();
    assert_eq!(ends, ["json", "part"]);

    disks.remount(&images, "size=200m");
    world.vmctl(&["image", "pull", &url]).expect(0);
    assert_eq!(server.whole(), 2, "what came was asked for again");
}

#[test]
fn update_that_is_asked_to_stop_keeps_the_pins_that_moved() {
    let server = Server::start(|asked| match &*asked.path {
        "/b.raw" if asked.before == 0 => {
            Answer { stall: Some(CAME), ..Answer::file(asked, &disk(), "\"b\"") }
        }
        _ => Answer::file(asked, &disk(), "\"a\""),
    });
    let world = World::new(0);
    let [a, b] = ["/a.raw", "/b.raw"].map(|path| server.url(path));
    let vm = |name: &str, url: &str| format!("vm \"{name}\" {{ image-url {url:?}; backend \"noop\" }}\n");
    world.vmfile(&[vm("one", &a), vm("two", &b)].concat());
    let update = world.start(&["image", "update"]);
    await_bytes(&world);
    process::interrupt(update.pid());
    update.end().expect(130).says("What moved before is pinned");
    let lock = fs::read_to_string(world.project().join("VMFile.lock")).expect("a lock file");
    assert!(lock.contains(&a) && !lock.contains(&b), "{lock}");
    world.vmctl(&["image", "update"]).expect(0).says("/a.raw: unchanged").says("/b.raw: pinned");
}
