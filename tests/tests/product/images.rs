//! `vmctl image`: pulled once, listed, kept while a machine needs it, removed when none does.

use std::fs;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use crate::schema::promised;
use serde_json::json;
use vmctl_tests::World;
use vmctl_tests::server::{Answer, Server};

/// A raw disk with a boot record's mark.
fn disk() -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..2_u32 << 20).map(|n| (n / 3) as u8).collect();
    bytes[510..512].copy_from_slice(b"\x55\xaa");
    bytes
}

#[test]
fn image_is_pulled_once_listed_kept_while_needed_and_pruned() {
    let server = Server::start(|asked| Answer::file(asked, &disk(), "\"a\""));
    let world = World::new(0);
    let url = server.url("/disk.raw?secret=1");
    let (first, second) =
        (world.start(&["image", "pull", &url, "--json"]), world.start(&["image", "pull", &url, "--json"]));
    let (first, second) = (first.end().expect(0).json(), second.end().expect(0).json());
    promised("image", &first);
    assert_eq!(first["images"][0]["digest"], second["images"][0]["digest"]);
    // The other one waited for it, or came later and was told that there is nothing newer.
    let whole =
        server.asked().into_iter().filter(|asked| !asked.headers.contains_key("if-none-match")).count();
    assert_eq!(whole, 1);
    let path = first["images"][0]["path"].as_str().expect("a path").to_owned();
    assert_eq!(fs::read(&path).expect("an image"), disk());

    let list = world.vmctl(&["image", "list", "--json"]).expect(0);
    assert!(!list.text().contains("secret"), "{}", list.text());
    let list = list.json();
    promised("image", &list);
    assert_eq!(list["images"].as_array().map(Vec::len), Some(1));
    let digest = list["images"][0]["digest"].as_str().expect("a digest").to_owned();
    promised("image", &world.vmctl(&["image", "inspect", &digest[..20], "--json"]).expect(0).json());

    world.write("VMFile.kdl", &format!("vm \"web\" {{\n  backend \"noop\"\n  image \"{path}\"\n}}\n"));
    world.vmctl(&["apply", "--yes"]).expect(0);
    world.vmctl(&["image", "rm", &digest]).expect(1).says("is needed by shop/web");
    let kept = world.vmctl(&["image", "prune", "--json"]).expect(0).json();
    assert_eq!((kept["removed"].as_array().map(Vec::len), fs::exists(&path).ok()), (Some(0), Some(true)));

    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    let dry = world.vmctl(&["image", "prune", "--dry-run", "--json"]).expect(0).json();
    assert_eq!((dry["removed"].as_array().map(Vec::len), fs::exists(&path).ok()), (Some(1), Some(true)));
    let gone = world.vmctl(&["image", "prune", "--json"]).expect(0).json();
    promised("image", &gone);
    assert_eq!((&gone["freed_bytes"], fs::exists(&path).ok()), (&dry["freed_bytes"], Some(false)));
}

#[test]
fn pull_that_failed_says_why_and_leaves_no_image() {
    let server = Server::start(|asked| match asked.path.as_str() {
        "/page" => Answer::whole("<html><body>Log in</body></html>"),
        _ => Answer::status(404),
    });
    let world = World::new(0);
    world.vmctl(&["image", "pull", &server.url("/page")]).expect(1).says("a web page in place of an image");
    world.vmctl(&["image", "pull", &server.url("/none")]).expect(1).says("answered 404");
    world.vmctl(&["image", "pull", "http://example.org/x"]).expect(1).says("plain http");
    let list = world.vmctl(&["image", "list", "--json"]).expect(0).json();
    assert_eq!(list["images"], serde_json::json!([]));
}

/// The pin of a machine that is gone, or not made yet, is what the next apply counts on.
#[test]
fn prune_keeps_what_lock_files_pin_as_long_as_they_do() {
    let server = Server::start(|asked| Answer::file(asked, &disk(), "\"a\""));
    let world = World::new(0);
    world.vmfile(&format!("vm \"far\" {{ image-url {:?}; backend \"noop\" }}", server.url("/disk.raw")));
    world.vmctl(&["apply", "--yes"]).expect(0);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    let lock = world.project().join("VMFile.lock");
    let listed = world.vmctl(&["image", "list", "--json"]).expect(0).json();
    promised("image", &listed);
    let image = &listed["images"][0];
    assert_eq!((&image["used_by"], &image["pinned_by"]), (&json!([]), &json!([lock.to_str()])));
    world.vmctl(&["image", "list"]).expect(0).says("(pinned)");
    world
        .vmctl(&["image", "inspect", &image["digest"].as_str().unwrap()[..20]])
        .expect(0)
        .says("VMFile.lock");

    // Here, and from a folder that knows nothing of it.
    let elsewhere = || {
        let prune =
            world.command(&["image", "prune", "--json"]).current_dir(world.folder().join("home")).output();
        let prune = prune.unwrap();
        (prune.status.code(), String::from_utf8(prune.stdout).unwrap())
    };
    let kept = world.vmctl(&["image", "prune", "--json"]).expect(0).json();
    assert_eq!(kept["removed"], json!([]));
    let (code, kept) = elsewhere();
    assert!(code == Some(0) && kept.contains("\"removed\": []"), "{kept}");
    // One that says nothing may pin anything.
    let text = fs::read(&lock).unwrap();
    fs::write(&lock, "{").unwrap();
    world.vmctl(&["image", "prune"]).expect(1).says("is damaged");
    assert_eq!(elsewhere().0, Some(1));
    fs::write(&lock, text).unwrap();
    assert_eq!(world.vmctl(&["image", "prune", "--json"]).expect(0).json()["removed"], json!([]));

    fs::remove_file(lock).unwrap();
    let (code, gone) = elsewhere();
    assert!(code == Some(0) && !gone.contains("\"removed\": []"), "{gone}");
    assert_eq!(world.vmctl(&["image", "list", "--json"]).expect(0).json()["images"], json!([]));
}

#[test]
fn update_tells_programs_what_became_of_each_pin() {
    let image = Arc::new(Mutex::new(disk()));
    let served = Arc::clone(&image);
    let server = Server::start(move |asked| match &*asked.path {
        "/gone.raw" => Answer::status(404),
        _ => {
            let body = served.lock().expect("no panic");
            Answer::file(asked, &body, &format!("\"{}\"", body.len()))
        }
    });
    let world = World::new(0);
    let far = |name: &str, more: &str| {
        format!(
            "vm \"{name}\" {{ image-url {:?}; backend \"noop\" }}\n{more}",
            server.url(&format!("/{name}.raw"))
        )
    };
    world.vmfile(&far("far", ""));
    let update = |code| {
        let document = world.vmctl(&["image", "update", "--json"]).expect(code).json();
        promised("image", &document);
        document["pins"].clone()
    };
    let outcomes = |pins: &serde_json::Value| {
        let pins = pins.as_array().expect("a list");
        pins.iter().map(|pin| pin["outcome"].as_str().expect("a word").to_owned()).collect::<Vec<_>>()
    };
    let first = update(0);
    assert_eq!((outcomes(&first), &first[0]["before"]), (vec!["pinned".to_owned()], &json!(null)));
    assert_eq!(outcomes(&update(0)), ["unchanged"]);
    image.lock().expect("no panic").extend_from_slice(&[0; 65536]);
    world.vmfile(&far("far", &far("gone", "")));
    let second = update(1);
    assert_eq!(outcomes(&second), ["moved", "failed"]);
    assert_eq!(second[0]["before"], first[0]["sha256"]);
    assert!(second[1]["error"].as_str().is_some_and(|error| error.contains("404")), "{second}");
    assert_eq!((&second[1]["sha256"], &second[1]["before"]), (&json!(null), &json!(null)));
    assert_eq!(outcomes(&update(1)), ["unchanged", "failed"]);
}

/// `sha256sum` tells the digest of a packed file, `vmctl image list` that of the image in it: either is asked for.
#[test]
fn digest_of_a_packed_file_is_its_own_or_that_of_what_it_becomes() {
    let world = World::new(0);
    let path = world.project().join("disk.img");
    fs::write(&path, disk()).unwrap();
    let digest = || {
        let sum = world.beside_vmctl("sha256sum").args(["disk.img", "disk.img.gz"]).output().unwrap();
        let text = String::from_utf8(sum.stdout).unwrap();
        text.lines().map(|line| line[..64].to_owned()).collect::<Vec<_>>()
    };
    assert!(world.beside_vmctl("gzip").args(["-k", "disk.img"]).status().unwrap().success());
    let digests = digest();
    let [image, packed] = &digests[..] else { panic!("two digests, not {digests:?}") };
    let vmfile = |sha256: &str| {
        world.vmfile(&format!("vm \"one\" {{ image \"disk.img.gz\" sha256={sha256:?}; backend \"noop\" }}"));
    };
    for sha256 in [packed, image] {
        vmfile(sha256);
        world.vmctl(&["apply", "--yes"]).expect(0);
        assert_eq!(world.decisions()["vm.one"], "no-op");
    }
    vmfile(&"0".repeat(64));
    let refused = world.vmctl(&["plan"]).expect(1).says("is not the image that is asked for");
    refused.says(packed).says(image);
}

/// S13: an image of some kilobytes may declare a disk of terabytes.
#[test]
fn disk_larger_than_images_make_by_themselves_is_asked_for() {
    let world = World::new(0);
    world.blank_disk("large.qcow2", "100G");
    let vmfile = |disk: &str| {
        world.vmfile(&format!("vm \"one\" {{ image \"large.qcow2\"; {disk}; state \"stopped\" }}"))
    };
    vmfile("vcpus 1");
    world
        .vmctl(&["plan"])
        .expect(1)
        .says("a disk of 100.0 GB, which nobody asked for")
        .says("write `disk 100`");
    vmfile("disk 100");
    world.vmctl(&["plan"]).expect(0).says("1 to create");
}

/// S10: what an image refers to outside itself is neither opened nor called, by vmctl or by any program that it runs.
#[test]
fn what_an_image_refers_to_is_never_touched() {
    let world = World::new(0);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let canary = world.folder().join("home/canary");
    fs::write(&canary, disk()).expect("a disk");
    let canary = canary.to_str().expect("a path in UTF-8");
    let server = format!("nbd://127.0.0.1:{port}/export");
    let make = |name: &str, rest: &[&str]| {
        let mut command = world.beside_vmctl("qemu-img");
        command.args(["create", "-q", "-u"]).args(rest).args([name, "4M"]);
        assert!(command.status().is_ok_and(|status| status.success()), "qemu-img makes {name}");
    };
    let json =
        format!("json:{{\"driver\":\"raw\",\"file\":{{\"driver\":\"file\",\"filename\":\"{canary}\"}}}}");
    make("overlay.qcow2", &["-f", "qcow2", "-b", canary, "-F", "raw"]);
    make("called.qcow2", &["-f", "qcow2", "-b", &server, "-F", "raw"]);
    make("described.qcow2", &["-f", "qcow2", "-b", &json, "-F", "raw"]);
    make("overlay.qcow", &["-f", "qcow", "-b", canary, "-F", "raw"]);
    make("overlay.qed", &["-f", "qed", "-b", canary, "-F", "raw"]);
    make("outside.qcow2", &["-f", "qcow2", "-o", &format!("data_file={canary},data_file_raw=on")]);
    let extent =
        "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n";
    world.write("extent.vmdk", &format!("{extent}RW 8192 FLAT \"{canary}\" 0\n"));

    let trace = world.folder().join("home/trace");
    let files = [
        "overlay.qcow2",
        "called.qcow2",
        "described.qcow2",
        "overlay.qcow",
        "overlay.qed",
        "outside.qcow2",
        "extent.vmdk",
    ];
    for file in files {
        world.vmfile(&format!("vm \"one\" {{ image \"{file}\" }}"));
        let url = format!("file://{}", world.project().join(file).display());
        for arguments in [&["plan"][..], &["apply", "--yes"], &["image", "pull", &url]] {
            let mut command = world.beside_vmctl("strace");
            command.args(["-f", "-qq", "-s", "4096", "-e", "trace=%file,connect", "-o"]).arg(&trace);
            let ended = command.arg(world.binary()).args(arguments).output().expect("strace");
            let said = String::from_utf8_lossy(&ended.stderr);
            assert_eq!(ended.status.code(), Some(1), "{arguments:?} of {file}: {said}");
            let calls = fs::read_to_string(&trace).expect("what strace saw");
            assert!(calls.contains("VMFile.kdl") || calls.contains(file), "strace saw nothing: {calls}");
            let touched =
                calls.lines().find(|call| call.contains(canary) || call.contains(&format!("htons({port})")));
            assert_eq!(touched, None, "{arguments:?} of {file}");
        }
    }
    listener.set_nonblocking(true).expect("a listener that does not wait");
    assert!(listener.accept().is_err(), "somebody was called");
    let list = world.vmctl(&["image", "list", "--json"]).expect(0).json();
    assert_eq!(list["images"], json!([]), "nothing is kept");
}
