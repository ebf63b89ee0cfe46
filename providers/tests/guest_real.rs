//! Seed, keys, ssh and provisioning against a real guest under QEMU.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panic")]

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vmctl_providers::keys::{self, KeyPair};
use vmctl_providers::provision::OutputStream;
use vmctl_providers::ssh::{ExitStatus, Session, SshTarget};
use vmctl_providers::{CloudInitConfig, InstanceId, seed};

/// Far more than a guest needs on a busy host; no test waits for it to pass.
const LONG: Duration = Duration::from_secs(120);

/// A tiny guest with our seed; ends with the value.
struct Guest {
    qemu: Child,
    folder: TempDir,
    target: SshTarget,
}

impl Guest {
    fn boot() -> Self {
        let images = images();
        let folder = tempfile::tempdir().unwrap();
        let (user, host) = (keys::generate("vm@guest"), keys::generate("guest"));
        let config = CloudInitConfig {
            hostname: "seeded-name".to_owned(),
            user: "vm".to_owned(),
            authorized_keys: vec![keys::generate("second key").public],
            user_data: None,
        };
        let id = InstanceId(uuid::Uuid::from_u128(7));
        let seed = seed::volume(id, &config, &user, &host).unwrap();
        let target = target(folder.path(), &user, &host);
        std::fs::write(folder.path().join("seed.img"), seed).unwrap();
        let qemu = spawn(&images, folder.path());
        let mut guest = Self { qemu, folder, target };
        guest.target.address.set_port(guest.forwarded_port());
        guest
    }

    /// Asks the monitor which port the kernel chose.
    fn forwarded_port(&self) -> u16 {
        let monitor = UnixStream::connect(self.folder.path().join("monitor")).unwrap();
        monitor.set_read_timeout(Some(LONG)).unwrap();
        (&monitor).write_all(b"info usernet\n").unwrap();
        for line in BufReader::new(&monitor).lines() {
            let line = line.unwrap();
            if let Some(rest) = line.trim().strip_prefix("TCP[HOST_FORWARD]") {
                return rest.split_whitespace().nth(2).unwrap().parse().unwrap();
            }
        }
        panic!("QEMU has no forward");
    }

    async fn login(&self) -> Session {
        Session::wait_for(&self.target, LONG).await.unwrap()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.qemu.kill().unwrap();
        self.qemu.wait().unwrap();
    }
}

fn images() -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "a test is told by its caller where the guests are")]
    let images = std::env::var_os("VMCTL_TEST_IMAGES");
    PathBuf::from(images.expect("VMCTL_TEST_IMAGES names no folder with guest images: run `make test`"))
}

/// Starts QEMU and waits until its monitor can be asked.
fn spawn(images: &Path, folder: &Path) -> Child {
    let file = |name: &str| images.join(name).to_str().unwrap().to_owned();
    let drive = |path: String, more: &str| format!("file={path},if=virtio,{more}");
    let cmdline = std::fs::read_to_string(file("tiny.cmdline")).unwrap();
    let seed = folder.join("seed.img").to_str().unwrap().to_owned();
    let monitor = format!("unix:{},server=on,wait=off", folder.join("monitor").to_str().unwrap());
    let arguments = [
        "-nodefaults -no-user-config -machine q35,accel=tcg -cpu max,la57=off -smp 1 -m 256 -display none",
        "-nic user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:0-:22 -object rng-random,id=r,filename=/dev/urandom",
        "-device virtio-rng-pci,rng=r",
    ];
    #[expect(clippy::disallowed_methods, reason = "the test brings its own minimal machine")]
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(arguments.join(" ").split(' '))
        .args(["-kernel", &file("tiny-vmlinuz"), "-initrd", &file("tiny-initrd.img")])
        .args(["-append", cmdline.trim()])
        .args(["-drive", &drive(file("tiny.qcow2"), "format=qcow2,snapshot=on")])
        .args(["-drive", &drive(seed, "format=raw,readonly=on")])
        .args(["-serial", &format!("file:{}", folder.join("console.log").to_str().unwrap())])
        .args(["-monitor", &monitor])
        .stdin(Stdio::null());
    let mut qemu = command.spawn().unwrap();
    let started = Instant::now();
    while UnixStream::connect(folder.join("monitor")).is_err() {
        assert!(qemu.try_wait().unwrap().is_none() && started.elapsed() < LONG, "QEMU did not start");
        std::thread::yield_now();
    }
    qemu
}

/// A target whose key and host key lie in `folder`; its port is set later.
fn target(folder: &Path, user: &KeyPair, host: &KeyPair) -> SshTarget {
    let target = SshTarget {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        user: "vm".to_owned(),
        private_key: folder.join("id_ed25519"),
        known_hosts: folder.join("known_hosts"),
        host_alias: "vmctl-test".to_owned(),
    };
    std::fs::write(&target.private_key, user.private.expose()).unwrap();
    let line = SshTarget::known_hosts_line(&target.host_alias, &host.public);
    std::fs::write(&target.known_hosts, line).unwrap();
    target
}

/// Runs `command`; its standard output, standard error and end.
async fn exec(session: &Session, command: &str, input: &[u8]) -> (String, String, ExitStatus) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = session
        .exec(command, input, |stream, bytes| match stream {
            OutputStream::Stdout => out.extend_from_slice(bytes),
            OutputStream::Stderr => err.extend_from_slice(bytes),
        })
        .await
        .unwrap();
    (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap(), status)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seeded_guest_is_reached_and_used() {
    let guest = Guest::boot();
    let session = guest.login().await;
    commands_keep_streams_codes_and_input(&session).await;
}

async fn commands_keep_streams_codes_and_input(session: &Session) {
    let (out, err, status) = exec(session, "hostname; id -un; echo oops >&2; exit 7", b"").await;
    assert_eq!((out.as_str(), err.as_str(), status), ("seeded-name\nvm\n", "oops\n", ExitStatus::Code(7)));
    let (out, _, status) = exec(session, "sudo -n id -u; cat", b"from here").await;
    assert_eq!((out.as_str(), status.is_success()), ("0\nfrom here", true));
    let (_, _, status) = exec(session, "kill -KILL $$", b"").await;
    assert_eq!(status, ExitStatus::Signal("KILL".to_owned()));
    // Ends without reading its input.
    let (_, _, status) = exec(session, "exit 3", &vec![b'x'; 4 << 20]).await;
    assert_eq!(status, ExitStatus::Code(3));
    let big = "head -c 5000000 /dev/zero | tr '\\0' x";
    let one = exec(session, big, b"");
    let two = exec(session, "echo beside; false", b"");
    let (one, two) = tokio::join!(one, two);
    assert_eq!((one.0.len(), two.0.as_str(), two.2), (5_000_000, "beside\n", ExitStatus::Code(1)));
}
