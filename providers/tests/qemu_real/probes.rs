//! Questions to guests.

use std::time::Duration;

use vmctl_providers::{
    Error, ErrorKind, GuestAccess, Hypervisor, Probe, Readiness, Verdict, VmHandle, VmState,
};

use crate::world::{NO_PATIENCE, SOON, World, login, spec, step, with_login};

/// Long enough for an answer of an emulated guest that is up.
const ANSWER: Duration = Duration::from_secs(30);

/// Too short for what never comes.
const SHORT: Duration = Duration::from_secs(2);

async fn ask(world: &World, vm: &VmHandle, probe: Probe) -> Verdict {
    world.backend.probe(vm, &probe, ANSWER).await.unwrap()
}

async fn wait(world: &World, vm: &VmHandle, probes: Vec<Probe>, timeout: Duration) -> Result<(), Error> {
    world.backend.wait_ready(vm, &Readiness { probes, timeout }).await
}

/// What was not ready: the probe, what it said last, and the console's tail.
fn unready(error: &Error) -> (&Probe, &str, Option<&str>) {
    let Error::NotReady { probe, said, console, .. } = error else { panic!("{error}") };
    (probe, said, console.as_deref())
}

fn fails(verdict: &Verdict) -> &str {
    let Verdict::Fails(said) = verdict else { panic!("{verdict:?}") };
    said
}

async fn run(world: &World, vm: &VmHandle, script: &str) {
    let (lines, _seen) = tokio::sync::mpsc::channel(100);
    world.backend.provision(vm, &step(script), &lines).await.unwrap();
}

/// Leaves a listener running in the guest, which a provisioning step could not.
async fn listen(world: &World, vm: &VmHandle, address: &str) {
    let command = format!("httpd -p {address} -h /run");
    assert_eq!(ask(world, vm, Probe::Exec(command)).await, Verdict::Holds);
}

#[tokio::test(flavor = "multi_thread")]
async fn guest_answers_every_kind_of_question() {
    let world = World::new();
    let vm = world.backend.prepare(&with_login(spec(world.tiny_image().await))).await.unwrap();
    let vm = world.backend.start(&vm).await.unwrap();
    let up = Probe::Log("^TINY-GUEST READY hostname=web".to_owned());
    let all = vec![up.clone(), Probe::Login, Probe::Tcp(22), Probe::Exec("test -e /run".to_owned())];
    wait(&world, &vm, all.clone(), SOON).await.unwrap();
    for probe in all {
        assert_eq!(ask(&world, &vm, probe).await, Verdict::Holds);
    }

    assert_eq!(fails(&ask(&world, &vm, Probe::Tcp(8080)).await), "connection refused");
    listen(&world, &vm, "8080").await;
    wait(&world, &vm, vec![Probe::Tcp(8080)], SOON).await.unwrap();
    // What is listened to on another address of the guest is not open on its loopback.
    listen(&world, &vm, "10.0.2.15:8081").await;
    assert_eq!(fails(&ask(&world, &vm, Probe::Tcp(8081)).await), "connection refused");

    let exec = |command: &str| Probe::Exec(command.to_owned());
    let said = ask(&world, &vm, exec("echo 'a \"b\"' >&2; echo out; exit 7")).await;
    assert_eq!(fails(&said), "exit code 7: a \"b\"");
    assert_eq!(fails(&ask(&world, &vm, exec("kill -9 $$")).await), "signal KILL");
    let hung = world.backend.probe(&vm, &exec("sleep 600"), SHORT).await.unwrap();
    assert_eq!(fails(&hung), "the command has not ended");
    let flood = exec("head -c 3000000 /dev/zero | tr '\\0' x >&2; exit 1");
    assert!(fails(&ask(&world, &vm, flood).await).len() < 300);

    let absent = ask(&world, &vm, Probe::Log("NEVER".to_owned())).await;
    assert_eq!(fails(&absent), "no line of the console since the machine's last start matches");
    run(&world, &vm, "printf '\\nsaid \\377 NEVER\\n' | sudo tee /dev/console >/dev/null").await;
    wait(&world, &vm, vec![Probe::Log("^said .* NEVER$".to_owned())], SHORT).await.unwrap_err();
    wait(&world, &vm, vec![Probe::Log(r"^said (?-u:.) NEVER$".to_owned())], SOON).await.unwrap();

    for (probe, last) in [
        (Probe::Tcp(8082), "connection refused"),
        (exec("echo no >&2; exit 3"), "exit code 3: no"),
        (exec("sleep 600"), "the command has not ended"),
        (Probe::Log("nowhere".to_owned()), "no line of the console since the machine's last start matches"),
    ] {
        let error = wait(&world, &vm, vec![Probe::Login, probe.clone()], SHORT).await.unwrap_err();
        let (named, said, console) = unready(&error);
        assert_eq!((named, said), (&probe, last));
        assert!(console.unwrap().contains("TINY-GUEST READY"), "{error}");
        assert_eq!(error.kind(), ErrorKind::Timeout);
        let head = format!("probe `{probe}` does not hold within 2s: {last}; its console ends with\n");
        assert!(error.to_string().starts_with(&head), "{error}");
    }
    let error = wait(&world, &vm, vec![Probe::Log("(".to_owned())], SOON).await.unwrap_err();
    assert!(matches!(error, Error::Pattern(_)), "{error}");

    // A new connection, as in another run of vmctl, and then a guest that no longer answers.
    let other = world.another_backend();
    assert_eq!(other.probe(&vm, &Probe::Login, ANSWER).await.unwrap(), Verdict::Holds);
    assert_eq!(other.probe(&vm, &Probe::Login, ANSWER).await.unwrap(), Verdict::Holds);
    world.backend.suspend(&vm).await.unwrap();
    for backend in [&world.backend, &other] {
        let verdict = backend.probe(&vm, &Probe::Login, SHORT).await.unwrap();
        assert!(fails(&verdict).contains("sshd"), "{verdict:?}");
        let error = backend.probe(&vm, &Probe::Tcp(22), SHORT).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
    }
    world.backend.resume(&vm).await.unwrap();
    assert_eq!(ask(&world, &vm, Probe::Login).await, Verdict::Holds);

    // The log is kept over starts, and counts from the last one only.
    let stopped = world.backend.stop(&vm, NO_PATIENCE).await.unwrap();
    let error = world.backend.probe(&stopped, &up, ANSWER).await.unwrap_err();
    assert!(matches!(error, Error::InvalidState { state: VmState::Stopped, .. }), "{error}");
    let vm = world.backend.start(&stopped).await.unwrap();
    world.backend.suspend(&vm).await.unwrap();
    let once = ask(&world, &vm, Probe::Log("said".to_owned())).await;
    assert!(matches!(once, Verdict::Fails(_)), "it was said before");
    world.backend.resume(&vm).await.unwrap();
    wait(&world, &vm, vec![up], SOON).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn guest_that_forbids_forwarding_says_so() {
    let world = World::new();
    let vm = world.backend.prepare(&with_login(spec(world.tiny_image().await))).await.unwrap();
    let vm = world.backend.start(&vm).await.unwrap();
    world.backend.wait_ready(&vm, &login()).await.unwrap();
    run(
        &world,
        &vm,
        "cd ~/.ssh; sed 's/^/no-port-forwarding /' authorized_keys >new; cat new >authorized_keys",
    )
    .await;
    let other = world.another_backend();
    for port in [22, 1] {
        let error = other.probe(&vm, &Probe::Tcp(port), ANSWER).await.unwrap_err();
        assert_eq!(error.to_string(), "the guest's sshd forbids this login to forward connections");
    }
    let tcp = Readiness { probes: vec![Probe::Tcp(22)], timeout: SOON };
    let error = other.wait_ready(&vm, &tcp).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Guest);
    assert!(error.help().unwrap().contains("exec probe"));
}

#[tokio::test]
async fn guest_that_is_never_reached_is_told_with_its_console() {
    let world = World::new();
    let vm = world.backend.prepare(&with_login(world.spec().await)).await.unwrap();
    let vm = world.backend.start(&vm).await.unwrap();
    // An empty disk has no console of its own.
    std::fs::write(vm.work_dir.join("console.log"), "no bootable device\n").unwrap();
    for probe in [Probe::Login, Probe::Tcp(80), Probe::Exec("true".to_owned())] {
        let error = wait(&world, &vm, vec![probe.clone()], SHORT).await.unwrap_err();
        let (named, said, console) = unready(&error);
        assert_eq!((named, console), (&probe, Some("no bootable device")));
        assert!(said.starts_with("no sshd answered on 127.0.0.1:"), "{said}");
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.help().unwrap().contains("vmctl log"));
        assert!(error.to_string().ends_with("; its console ends with\nno bootable device"), "{error}");
    }
}

/// F28: the panic ends the wait, which would otherwise last for longer than any test.
#[tokio::test]
async fn kernel_panic_ends_the_wait_and_an_old_one_does_not() {
    let world = World::new();
    let vm = world.backend.prepare(&with_login(world.spec().await)).await.unwrap();
    let vm = world.backend.start(&vm).await.unwrap();
    let console = vm.work_dir.join("console.log");
    let panic = "[    1.234567] Kernel panic - not syncing: VFS: Unable to mount root fs\r\n---[ end Kernel panic\r\n";
    let long = Duration::from_secs(24 * 3600);
    let writing = async {
        tokio::fs::write(&console, "booting\r\n").await.unwrap();
        tokio::fs::write(&console, format!("booting\r\n{panic}")).await.unwrap();
    };
    let (error, ()) = tokio::join!(wait(&world, &vm, vec![Probe::Login, Probe::Tcp(80)], long), writing);
    let error = error.unwrap_err();
    let (named, said, tail) = unready(&error);
    assert_eq!((named, said), (&Probe::Login, "the guest's kernel panicked"));
    assert!(tail.unwrap().contains("Unable to mount root fs"));
    assert_eq!(world.backend.state(&vm).await.unwrap(), VmState::Running, "it is left as it is");

    let since = "a line of a later boot\r\n".repeat(500);
    std::fs::write(&console, format!("{panic}{since}")).unwrap();
    let error = wait(&world, &vm, vec![Probe::Login], SHORT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
}

#[tokio::test]
async fn machine_without_a_login_still_has_a_console() {
    let world = World::new();
    let vm = world.started().await;
    for probe in [Probe::Login, Probe::Tcp(80)] {
        let error = world.backend.probe(&vm, &probe, SHORT).await.unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    }
    // A command would be run by the guest agent, which is not there.
    for probe in [Probe::Exec("true".to_owned()), Probe::Log("x".to_owned())] {
        let verdict = ask(&world, &vm, probe).await;
        assert!(matches!(verdict, Verdict::Fails(_)), "{verdict:?}");
    }
    let process = world.live(vm.id).unwrap();
    let probes = Readiness { probes: vec![Probe::Log("x".to_owned())], timeout: SOON };
    let (result, ()) =
        tokio::join!(world.backend.wait_ready(&vm, &probes), async { process.kill().unwrap() });
    assert!(matches!(result, Err(Error::ProcessEnded { .. })), "{result:?}");
}
