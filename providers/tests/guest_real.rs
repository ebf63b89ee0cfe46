//! Seed, keys, ssh and provisioning against a real guest under QEMU.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panic")]

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::sync::mpsc;
use vmctl_providers::image::ImageCache;
use vmctl_providers::keys::{self, KeyPair};
use vmctl_providers::provision::{self, OutputLine, OutputStream, ProvisionAction, ProvisionStep};
use vmctl_providers::ssh::{ExitStatus, Keyring, Session, SshError, SshTarget, quote};
use vmctl_providers::{CloudInitConfig, Digest, Error, ImageFormat, InstanceId, seed};

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
            more: Default::default(),
        };
        let id = InstanceId(uuid::Uuid::from_u128(7));
        let seed = seed::volume(id, &config, &[], &user, &host).unwrap();
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
        Session::wait_for(&self.target, &Keyring::default(), LONG).await.unwrap()
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
    files_arrive_whole_with_their_mode(&session, guest.folder.path()).await;
    scripts_stop_at_the_first_failure(&session, guest.folder.path()).await;
    step_out_of_time_is_ended_in_the_guest(&session, guest.folder.path()).await;
    guest_loses_nothing_but_the_step(&session).await;
    session.close().await;
    host_key_is_learned_once(&guest).await;
    step_ends_with_its_connection(&guest).await;
    upload_that_breaks_leaves_nothing(&guest).await;
    let (key, host) = tokio::join!(another_key(&guest), another_host_key(&guest));
    assert!(matches!(key, SshError::AuthRefused { .. }), "{key:?}");
    assert!(matches!(host, SshError::HostKeyMismatch { .. }), "{host:?}");
}

#[test]
fn tiny_image_is_identified_and_imported() {
    let folder = tempfile::tempdir().unwrap();
    let source = images().join("tiny.qcow2");
    let cache = ImageCache::new(folder.path());
    let identity = cache.identify(&source).unwrap();
    assert_eq!(identity.format, ImageFormat::Qcow2);
    let image = cache.import(&source, &identity).unwrap();
    assert!(std::fs::read(&image.path).unwrap() == std::fs::read(&source).unwrap());
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

async fn files_arrive_whole_with_their_mode(session: &Session, folder: &Path) {
    let source = folder.join("a name with 'quotes' and $signs");
    let content: Vec<u8> = (0..1_000_003_u32).map(|n| ((n * 31) >> 3) as u8).collect();
    std::fs::write(&source, &content).unwrap();
    let name = source.file_name().unwrap().to_str().unwrap();

    session.upload(&source, "deep/er/file", 0o640, None).await.unwrap();
    let (out, _, _) = exec(session, "stat -c '%a %s' deep/er/file; sha256sum <deep/er/file", b"").await;
    assert_eq!(out, format!("640 1000003\n{}  -\n", Digest::of(&content).hex()));

    // Over an existing file, into a folder, by a path with a slash at its end.
    std::fs::write(&source, "small").unwrap();
    session.upload(&source, "deep/er/file", 0o600, None).await.unwrap();
    session.upload(&source, "deep/er", 0o755, None).await.unwrap();
    session.upload(&source, "~/other/", 0o644, None).await.unwrap();
    let list = "cat deep/er/file \"deep/er/$1\" \"other/$1\"; ls -A deep/er | wc -l";
    let (out, err, _) = exec(session, &format!("sh -c {} sh {}", quote(list), quote(name)), b"").await;
    assert_eq!((out.as_str(), err.as_str()), ("smallsmallsmall2\n", ""));

    // With sudo where the user may not write, and not without.
    session.upload(&source, "/etc/made/by-root", 0o600, None).await.unwrap();
    let (out, _, _) = exec(session, "sudo stat -c '%U %a' /etc/made/by-root", b"").await;
    assert_eq!(out, "root 600\n");
    exec(session, "sudo mv /usr/bin/sudo /usr/bin/sudo.away", b"").await;
    let refused = session.upload(&source, "/etc/made/again", 0o600, None).await.unwrap_err().to_string();
    assert!(refused.contains("vm may not write to /etc/made"), "{refused}");
    let missing = session.upload(&folder.join("missing"), "x", 0o600, None).await;
    assert!(matches!(missing, Err(SshError::Io { .. })), "{missing:?}");
}

/// Runs one step; how it ended, and its lines.
async fn provision(
    session: &Session,
    folder: &Path,
    action: ProvisionAction,
    limit: Duration,
) -> (Result<(), Error>, Vec<String>) {
    let step = ProvisionStep {
        number: 1,
        label: "inline".to_owned(),
        action,
        options: Default::default(),
        digest: Digest::of(b""),
        secrets: Default::default(),
    };
    let (sender, mut receiver) = mpsc::channel(1);
    let log = folder.join("provision.log");
    let run = async {
        let ended = provision::run_within(session, &step, &log, &sender, limit).await;
        drop(sender);
        ended
    };
    let listen = async {
        let mut lines = Vec::new();
        while let Some(OutputLine { text, .. }) = receiver.recv().await {
            lines.push(text);
        }
        lines
    };
    tokio::join!(run, listen)
}

async fn scripts_stop_at_the_first_failure(session: &Session, folder: &Path) {
    let shell = |script: &str| ProvisionAction::Shell { script: script.to_owned() };
    let (ended, lines) = provision(session, folder, shell("echo one\nls /nope\necho three\n"), LONG).await;
    assert_eq!(lines[0], "one");
    assert!(lines.len() == 2 && lines[1].contains("/nope"), "{lines:?}");
    let Err(Error::Provision { step: 1, status, tail, .. }) = ended else { panic!("{ended:?}") };
    assert_eq!((status.as_str(), tail), ("exit code 1", lines));
    let log = folder.join("provision.log");
    assert!(std::fs::read_to_string(&log).unwrap().contains("\none\n"));
    assert_eq!(log.metadata().unwrap().permissions().mode() & 0o777, 0o600);

    let own = "#!/usr/bin/awk -f\nBEGIN { print \"by awk\"; exit 9 }\n";
    let (ended, lines) = provision(session, folder, shell(own), LONG).await;
    assert_eq!(lines, ["by awk"]);
    assert!(matches!(ended, Err(Error::Provision { status, .. }) if status == "exit code 9"));

    let (ended, lines) = provision(session, folder, shell("pwd; cat; umask; kill -9 $$"), LONG).await;
    assert_eq!(lines[..2], ["/home/vm", "0022"]);
    assert!(matches!(ended, Err(Error::Provision { status, .. }) if status == "exit code 137 (signal 9)"));

    let flood = "head -c 3000000 /dev/zero | tr '\\0' x; sleep 1000 & echo end";
    let (ended, lines) = provision(session, folder, shell(flood), LONG).await;
    ended.unwrap();
    assert_eq!(lines.iter().map(String::len).sum::<usize>(), 3_000_003);
    assert!(lines.iter().all(|line| line.len() <= 64 * 1024));

    let missing = ProvisionAction::File { source: folder.join("nothing"), destination: "x".to_owned() };
    let (ended, _) = provision(session, folder, missing, LONG).await;
    assert!(ended.unwrap_err().to_string().contains("/nothing`"));
}

async fn step_out_of_time_is_ended_in_the_guest(session: &Session, folder: &Path) {
    let script = "trap 'echo told' TERM; echo begun; sleep 98765 & wait; sleep 56789";
    let action = ProvisionAction::Shell { script: script.to_owned() };
    let (ended, lines) = provision(session, folder, action, Duration::from_secs(2)).await;
    assert!(matches!(ended, Err(Error::Provision { status, .. }) if status == "a timeout after 2s"));
    assert_eq!(lines[0], "begun");
}

/// What every step before has left behind.
async fn guest_loses_nothing_but_the_step(session: &Session) {
    let (out, _, _) = exec(session, "ls -A /tmp; ps | grep -E '[9]8765|[5]6789'", b"").await;
    assert_eq!(out, "");
}

async fn step_ends_with_its_connection(guest: &Guest) {
    let session = guest.login().await;
    let step = ProvisionStep {
        number: 3,
        label: "inline".to_owned(),
        action: ProvisionAction::Shell { script: "echo begun; sleep 43210".to_owned() },
        options: Default::default(),
        digest: Digest::of(b""),
        secrets: Default::default(),
    };
    let (sender, mut receiver) = mpsc::channel::<OutputLine>(1);
    let log = guest.folder.path().join("provision.log");
    let cut = async {
        assert_eq!(receiver.recv().await.unwrap().text, "begun");
        session.close().await;
    };
    let (ended, ()) = tokio::join!(provision::run(&session, &step, &log, &sender), cut);
    let Err(Error::ProvisionCut { tail, cause, .. }) = ended else { panic!("{ended:?}") };
    assert_eq!(tail, ["begun"]);
    assert!(matches!(*cause, Error::Ssh(_)), "{cause:?}");
    assert!(session.is_closed());

    let other = guest.login().await;
    let gone = "while ps | grep -q '[4]3210' || [ -n \"$(ls -A /tmp)\" ]; do :; done; echo gone";
    let (out, _, _) = tokio::time::timeout(LONG, exec(&other, gone, b"")).await.unwrap();
    assert_eq!(out, "gone\n");
}

async fn upload_that_breaks_leaves_nothing(guest: &Guest) {
    let (session, other) = (guest.login().await, guest.login().await);
    let source = guest.folder.path().join("endless");
    std::fs::File::create(&source).unwrap().set_len(1 << 40).unwrap();
    let cut = async {
        exec(&other, "until [ -s \"$(ls -d broken/.vmctl.*)\" ]; do :; done 2>/dev/null", b"").await;
        session.close().await;
    };
    let (ended, ()) = tokio::join!(session.upload(&source, "broken/file", 0o600, None), cut);
    assert!(matches!(ended, Err(SshError::Lost(_))), "{ended:?}");
    let gone = "while [ -n \"$(ls -A broken)\" ]; do :; done; echo gone";
    let (out, _, _) = tokio::time::timeout(LONG, exec(&other, gone, b"")).await.unwrap();
    assert_eq!(out, "gone\n");
}

async fn host_key_is_learned_once(guest: &Guest) {
    let pinned = std::fs::read_to_string(&guest.target.known_hosts).unwrap();
    let target = SshTarget { known_hosts: guest.folder.path().join("learned"), ..guest.target.clone() };
    Session::wait_for(&target, &Keyring::default(), LONG).await.unwrap().close().await;
    let learned = std::fs::read_to_string(&target.known_hosts).unwrap();
    assert_eq!(learned.trim_end(), pinned.trim_end().rsplit_once(' ').unwrap().0);
    Session::wait_for(&target, &Keyring::default(), LONG).await.unwrap().close().await;
}

async fn another_key(guest: &Guest) -> SshError {
    let folder = tempfile::tempdir().unwrap();
    let private_key = folder.path().join("id");
    std::fs::write(&private_key, keys::generate("other").private.expose()).unwrap();
    Session::wait_for(&SshTarget { private_key, ..guest.target.clone() }, &Keyring::default(), LONG)
        .await
        .unwrap_err()
}

async fn another_host_key(guest: &Guest) -> SshError {
    let folder = tempfile::tempdir().unwrap();
    let other = target(folder.path(), &keys::generate("u"), &keys::generate("h"));
    let target = SshTarget { known_hosts: other.known_hosts, ..guest.target.clone() };
    Session::wait_for(&target, &Keyring::default(), LONG).await.unwrap_err()
}
