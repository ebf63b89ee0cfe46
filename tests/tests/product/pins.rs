//! Images from the network: pinned by the first apply, the same from then on and elsewhere, and moved when told.

use std::fs;
use std::sync::{Arc, Mutex};

use vmctl_tests::server::{Answer, Server};
use vmctl_tests::{World, leaks};

/// A server whose `/disk.img` is what `body` holds.
fn server(body: &Arc<Mutex<Vec<u8>>>) -> Server {
    let body = Arc::clone(body);
    Server::start(move |asked| {
        let body = body.lock().expect("no test panics while it holds this");
        match &*asked.path {
            "/disk.img" => Answer::file(asked, &body, &format!("\"{}\"", body.len())),
            _ => Answer::status(404),
        }
    })
}

#[test]
fn image_is_pinned_kept_elsewhere_and_moved_when_told() {
    let image = Arc::new(Mutex::new(fs::read(World::tiny_image()).expect("the tiny image")));
    let server = server(&image);
    let url = server.url("/disk.img");
    let mut world = World::new(2);
    let vmfile =
        |more: &str| format!("vm \"web\" {{ image-url {url:?}; memory 384; ssh {{ user \"vm\" }} }}\n{more}");
    world.vmfile(&vmfile(&format!("vm \"gone\" {{ image-url {:?}; memory 384 }}", server.url("/none.img"))));
    let lock = world.project().join("VMFile.lock");

    // Known after apply; `--locked` refuses that. One download fails, and the other machine boots.
    world.vmctl(&["plan"]).expect(0).says("known after apply: image");
    world.vmctl(&["apply", "--yes", "--locked"]).expect(1).says("does not pin every image");
    world.vmctl(&["apply", "--yes"]).expect(5).says("/none.img");
    assert_eq!(world.states()["web"], "running");
    let pinned = fs::read_to_string(&lock).expect("a lock file");
    assert!(pinned.contains(&url) && !pinned.contains("none.img"), "{pinned}");
    world.vmfile(&vmfile(""));
    world.vmctl(&["plan", "--locked", "--detailed-exitcode"]).expect(0).says("No changes");
    leaks::leakcheck(&world);

    // With another data folder the lock file says all before anything is downloaded.
    let data = world.data();
    world.set("VMCTL_DATA_DIR", world.folder().join("elsewhere"));
    let plan = world.vmctl(&["plan", "--json"]).expect(0).json();
    assert!(plan["pins"][0]["image"]["digest"].is_string(), "{plan}");
    assert_eq!(plan["pins"][0]["by"], "lock");
    world.set("VMCTL_DATA_DIR", data);

    // The server moves on: a note; told to, the pin follows, and the machine is replaced.
    image.lock().expect("no panic").extend_from_slice(&[0; 65536]);
    let reports = ["plan", "--detailed-exitcode", "--html", "plan.html", "--markdown"];
    world.vmctl(&reports).expect(0).says("has something else by now");
    let page = fs::read_to_string(world.project().join("plan.html")).expect("a report");
    assert!(page.contains("has something else by now"), "{page}");
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("has something else by now");
    world.vmctl(&["image", "update", "web"]).expect(0).says(" => ");
    assert_ne!(fs::read_to_string(&lock).expect("a lock file"), pinned);
    assert_eq!(world.decisions()["vm.web"], "replace");
    fs::write(&lock, "{").expect("to damage the lock file");
    world.vmctl(&["plan"]).expect(1).says("is damaged");
    fs::write(&lock, pinned).expect("the lock file as it was");
    assert_eq!(world.decisions()["vm.web"], "no-op");
    world.vmctl(&["down", "--destroy"]).expect(0);
}
