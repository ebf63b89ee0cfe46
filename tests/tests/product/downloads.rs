//! Downloads that end in the middle: killed, asked to stop once, told to stop at once. The next one goes on.

use std::fs;
use std::path::PathBuf;

use vmctl_tests::server::{Answer, Server};
use vmctl_tests::{World, await_condition, leaks, process};

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

#[test]
fn download_killed_in_the_middle_is_gone_on_with() {
    for is_apply in [false, true] {
        let (world, server) = (World::new(0), server());
        let url = server.url("/disk.raw");
        vmfile(&world, &url);
        let arguments: &[&str] = if is_apply { &["apply", "--yes"] } else { &["image", "pull", &url] };
        let run = world.start(arguments);
        await_bytes(&world);
        run.kill();
        world.vmctl(arguments).expect(0);
        went_on(&world, &server);
        if is_apply {
            leaks::leakcheck(&world);
        }
    }
}

#[test]
fn download_that_is_asked_to_stop_ends_at_once_and_is_gone_on_with() {
    for is_apply in [false, true] {
        let (world, server) = (World::new(0), server());
        let url = server.url("/disk.raw");
        vmfile(&world, &url);
        let arguments: &[&str] = if is_apply { &["apply", "--yes"] } else { &["image", "pull", &url] };
        let run = world.start(arguments);
        await_bytes(&world);
        process::interrupt(run.pid());
        let ended = run.end().expect(130);
        if !is_apply {
            ended.says("What came so far is kept");
        }
        world.vmctl(arguments).expect(0);
        went_on(&world, &server);
        if is_apply {
            leaks::leakcheck(&world);
        }
    }
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
