//! Outputs lead to what runs.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::json;
use vmctl_tests::{World, leaks, process};

const VMFILE: &str = r#"
variable "password" { sensitive; default "hunter2!" }
vm "web" {
    image "TINY"
    memory 192
    ssh { user "vm" }
    forward guest=80
    provision { inline "sudo mkdir -p /srv/www; echo found | sudo tee /srv/www/index.html; sudo busybox httpd -p 80 -h /srv/www" }
}
vm "spare" { image "TINY"; memory 64; ssh; state "stopped" }
output "url" (template)"http://{{ vm.web.host }}:{{ vm.web.port.80 }}/" { description "the page" }
output "login" (template)"{{ vm.web.user }}@{{ vm.web.host }}:{{ vm.web.ssh-port }}"
output "secret" (template)"{{ vm.web.user }}:{{ var.password }}"
output "spare" (template)"{{ vm.spare.ssh-port }}"
output "plain" "says {{ nothing }}"
"#;

/// What a server answers at `url`, head and body.
fn get(url: &str) -> String {
    let address = url.strip_prefix("http://").unwrap().trim_end_matches('/');
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET / HTTP/1.0\r\nHost: {address}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn printed_url_leads_to_the_guest_and_is_not_known_without_it() {
    let world = World::new(1);
    world.vmfile(VMFILE);
    let listed = "login  = (known after apply)\nplain  = says {{ nothing }}\nsecret = (sensitive)\n\
                  spare  = (known after apply)\nurl    = (known after apply)\n";
    assert_eq!(world.vmctl(&["output"]).expect(0).stdout, listed);
    world.vmctl(&["output", "url"]).expect(1).says("`vm.web` is not made yet").says("`vmctl apply` makes it");
    assert!(!world.vmctl(&["plan"]).expect(0).stdout.contains("Outputs"));

    let applied = world.vmctl(&["apply", "--yes"]).expect(0).stdout;
    let url = world.vmctl(&["output", "url"]).expect(0).stdout;
    let url = url.trim_end();
    assert!(get(url).ends_with("found\n"), "{url}");
    let (_, told) = applied.split_once("\nOutputs:\n").expect("apply prints them");
    assert_eq!(told, world.vmctl(&["output"]).expect(0).stdout);
    assert!(told.contains(&format!("url    = {url}\n")) && !told.contains("hunter2"), "{told}");
    let port = world.vm("web")["ssh"]["port"].to_string();
    assert_eq!(world.vmctl(&["output", "login"]).expect(0).stdout, format!("vm@127.0.0.1:{port}\n"));
    assert_eq!(world.vmctl(&["output", "secret"]).expect(0).stdout, "vm:hunter2!\n");
    world
        .vmctl(&["output", "spare"])
        .expect(1)
        .says("`vm.spare` is not running")
        .says("write `state \"running\"`");
    world.vmctl(&["output", "ulr"]).expect(1).says("did you mean `url`?");

    let all = world.vmctl(&["output", "--json"]).expect(0).json();
    let expected = json!({ "value": url, "description": "the page", "sensitive": false, "reason": null });
    assert_eq!(all["outputs"]["url"], expected);

    // A machine that died has no ports, and may have others when it is up again.
    process::kill(world.pid("web"));
    world.vmctl(&["output", "url"]).expect(1).says("`vm.web` is not running");
    world.vmctl(&["apply", "--yes"]).expect(0);
    let vm = world.vm("web");
    let forward =
        vm["forwards"].as_array().unwrap().iter().find(|forward| forward["guest_port"] == 80).unwrap();
    let url = format!("http://127.0.0.1:{}/\n", forward["host_port"]);
    assert_eq!(world.vmctl(&["output", "url"]).expect(0).stdout, url);

    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    world.vmctl(&["output", "url"]).expect(1).says("`vm.web` is not made yet");
    leaks::check(&world, &held);
}
