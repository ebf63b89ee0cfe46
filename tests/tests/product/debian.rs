//! A genuine Debian with cloud-init beside small guests, as people use machines: the example `shop`.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use vmctl_tests::world::free_port;
use vmctl_tests::{World, leaks};

use crate::examples::copy;

/// What a page of the machine `web` says, asked through the forward of the host.
fn page(port: u16) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the forward");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a deadline");
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("a question");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn shop_is_applied_changed_replaced_and_destroyed() {
    let world = World::new(3);
    let port = free_port();
    copy(&world, "shop", &[("18088", port)]);
    world.vmctl(&["apply", "--yes"]).expect(0).says("3 apples for 6 coins");
    assert!(page(port).ends_with("<h1>Fresh from the tree</h1>\n3 apples for 6 coins\n"), "{}", page(port));
    assert_eq!(world.exec("db", "cloud-init status"), "status: done\n");
    assert_eq!(world.exec("db", "hostname"), "db\n");
    let size = world.exec("db", "df --output=size -BM / | tail -1");
    assert!(
        size.trim().trim_end_matches('M').parse::<u32>().expect("a size") > 3500,
        "the disk grew: {size}"
    );
    world.vmctl(&["plan", "--checks", "fail", "--detailed-exitcode"]).expect(0).says("No changes");
    leaks::leakcheck(&world);

    // Edits: more memory is a restart, the disk keeps what is on it; another forward is made while `web` runs.
    let other = free_port();
    let text = fs::read_to_string(world.project().join("VMFile.kdl")).expect("the VMFile");
    let edited = text.replace("memory 512", "memory 640").replace(&port.to_string(), &other.to_string());
    world.exec("db", "echo canary > canary; sync");
    let pid = world.pid("web");
    world.write("VMFile.kdl", &edited);
    let decisions = world.decisions();
    assert_eq!((&*decisions["vm.db"], &*decisions["vm.web"]), ("restart", "update"));
    assert_eq!(decisions["vm.prices"], "no-op");
    world.vmctl(&["apply", "--yes"]).expect(0);
    assert_eq!(world.exec("db", "cat canary"), "canary\n");
    assert_eq!(world.exec("prices", "timeout 30 wget -q -O - http://db:8000/apples"), "3\n");
    assert_eq!(world.pid("web"), pid);
    assert!(page(other).contains("Fresh from the tree"));

    // A new Debian: its disk is lost, the volume is not.
    world.exec("db", "echo 7 | sudo tee /srv/stock/apples; sync");
    world.vmctl(&["apply", "--yes", "--replace", "db"]).expect(0);
    world.vmctl(&["exec", "db", "--", "test", "-e", "canary"]).expect(1);
    assert_eq!(world.exec("prices", "timeout 30 wget -q -O - http://db:8000/apples"), "7\n");
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
    leaks::leakcheck(&world);

    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--volumes", "--yes"]).expect(0);
    leaks::check(&world, &held);
}
