//! What is private, what is somebody else's, and what does not answer.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;
use vmctl_providers::process::Program;
use vmctl_providers::qemu::QemuConfig;
use vmctl_providers::{Error, Hypervisor, Inspect, InstanceId, QemuBackend, VmHandle, VmState};

use crate::world::{NO_PATIENCE, World, ended, hold, pid, raw_pid};

#[tokio::test]
async fn everything_of_a_running_machine_is_private() {
    let world = World::new();
    let vm = world.started().await;
    let run = world.backend.runtime_dir(vm.id);
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&vm.work_dir), mode(run.path())), (0o700, 0o700));
    let mut sockets = 0;
    for folder in [&vm.work_dir, run.path()] {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(mode(&path) & 0o077, 0, "{}", path.display());
            sockets += usize::from(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
        }
    }
    assert_eq!(sockets, 5);

    // A session of its own: field 6 of stat (proc_pid_stat(5)), behind the name in parentheses.
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid(&vm))).unwrap();
    let session = stat.rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap();
    assert_eq!(session, pid(&vm).to_string());
}

#[tokio::test]
async fn process_with_a_reused_pid_survives_everything() {
    let world = World::new();
    let log = tempfile::tempfile().unwrap();
    let mut vm = world.backend.prepare(&world.spec().await).await.unwrap();
    let run = world.backend.runtime_dir(vm.id);
    run.create().unwrap();

    // The victim even carries our UUID on its command line; what it lacks is the lock.
    let script = "echo $$; exec sleep 600".into();
    let sh = Program { name: "sh", package: "dash" };
    let args = ["-c".into(), script, "-uuid".into(), vm.id.to_string().into()];
    let mut victim = vmctl_providers::process::machine(&sh, &args, log, Vec::new()).unwrap();
    let victim_pid: u32 = victim.first_line(100).await.unwrap().unwrap().parse().unwrap();

    fs::write(run.pidfile(), format!("{victim_pid}\n")).unwrap();
    vm.state = VmState::Running;
    vm.runtime = Some(vmctl_providers::Runtime {
        pid: victim_pid,
        accel: "tcg".to_owned(),
        vnc: None,
        forwards: Vec::new(),
        address: None,
        boot: None,
        host: None,
    });
    assert_eq!(world.backend.state(&vm).await.unwrap(), VmState::Prepared);
    world.backend.stop(&vm, NO_PATIENCE).await.unwrap();
    fs::create_dir_all(run.path()).unwrap();
    fs::set_permissions(run.path(), PermissionsExt::from_mode(0o700)).unwrap();
    fs::write(run.pidfile(), format!("{victim_pid}\n")).unwrap();
    world.backend.destroy(vm.clone()).await.unwrap();
    world.assert_nothing_left(&vm);

    assert!(Path::new(&format!("/proc/{victim_pid}/exe")).exists(), "the victim lives");
    victim.kill().await.unwrap();
}

#[tokio::test]
async fn long_folder_names_with_commas_and_quotes_work() {
    let name = format!("a,b=c,,readonly=on \"q\" 'ü' {}", "x".repeat(170));
    let world = World::with_data_dir(&name);
    let vm = world.started().await;
    assert!(vm.work_dir.as_os_str().len() > 200);
    let seen = world.backend.inspect(&vm).await.unwrap();
    assert_eq!((seen.state, seen.damage), (VmState::Running, vec![]));
    assert!(vm.work_dir.join("console.log").exists());
    world.backend.destroy(vm.clone()).await.unwrap();
    world.assert_nothing_left(&vm);
}

#[tokio::test]
async fn held_monitor_is_told_and_does_not_hinder_a_stop() {
    let world = World::new();
    let vm = world.started().await;
    let held = hold(&world.backend.runtime_dir(vm.id).monitor()).await;
    let error = world.backend.state(&vm).await.unwrap_err();
    assert!(matches!(error, Error::MonitorBusy { .. }), "{error}");
    let stopped = world.backend.stop(&vm, NO_PATIENCE).await.unwrap();
    assert_eq!(stopped.forced_stop.as_deref(), Some("quit"));
    drop(held);
}

#[tokio::test]
async fn machine_that_does_not_answer_is_a_timeout_and_not_stopped() {
    let world = World::new();
    let vm = world.started().await;
    kill_process(raw_pid(&vm), Signal::STOP).unwrap();
    let error = world.backend.state(&vm).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    kill_process(raw_pid(&vm), Signal::CONT).unwrap();
    assert_eq!(world.backend.state(&vm).await.unwrap(), VmState::Running);
}

/// F26, S7: the power button is given up as soon as no monitor answers; the patience below outlasts any test.
#[tokio::test]
async fn machine_that_hangs_is_killed_without_waiting_for_its_guest() {
    let world = World::new();
    let vm = world.started().await;
    kill_process(raw_pid(&vm), Signal::STOP).unwrap();
    let stopped = world.backend.stop(&vm, Duration::from_secs(24 * 3600)).await.unwrap();
    assert_eq!(stopped.forced_stop.as_deref(), Some("SIGKILL"));
    assert_eq!(world.backend.state(&stopped).await.unwrap(), VmState::Stopped);
    world.backend.destroy(stopped.clone()).await.unwrap();
    world.assert_nothing_left(&vm);
}

/// F38: what was recorded on another host is not believed to be off, unless somebody says so.
#[tokio::test]
async fn machine_recorded_on_another_host_is_neither_started_nor_removed() {
    let world = World::new();
    let mut vm = world.started().await;
    let process = world.live(vm.id).unwrap();
    process.kill().unwrap();
    ended(process).await;
    let Some(runtime) = vm.runtime.as_mut().filter(|runtime| runtime.host.is_some()) else {
        eprintln!("skipped: this host has no machine id");
        return;
    };
    runtime.host = Some("0123456789abcdef".to_owned());
    for result in [
        world.backend.inspect(&vm).await.map(drop),
        world.backend.start(&vm).await.map(drop),
        world.backend.stop(&vm, NO_PATIENCE).await.map(drop),
        world.backend.destroy(vm.clone()).await,
    ] {
        assert!(matches!(result, Err(Error::Elsewhere { .. })), "{result:?}");
    }
    assert!(vm.work_dir.exists());
    let config = QemuConfig { take_over: true, ..world.backend.config().clone() };
    let started = QemuBackend::new(config).start(&vm).await.unwrap();
    assert_ne!(started.runtime.unwrap().host, vm.runtime.unwrap().host);
}

#[tokio::test]
async fn monitor_cannot_run_programs_on_the_host() {
    let world = World::new();
    let vm = world.started().await;
    let process = world.live(vm.id).unwrap();
    let touched = world.run.join("touched");
    let mut monitor = hold(&world.backend.runtime_dir(vm.id).monitor()).await;
    let uri = format!("exec:touch {}", touched.display());
    let commands = [
        serde_json::json!({"execute": "qmp_capabilities"}),
        serde_json::json!({"execute": "migrate", "arguments": {"uri": uri}}),
    ];
    for command in commands {
        monitor.write_all(format!("{command}\n").as_bytes()).await.unwrap();
    }
    ended(process).await;
    assert!(!touched.exists(), "the sandbox ends QEMU before it runs anything");
    let mut rest = Vec::new();
    // The connection of a killed process may end with an error.
    let _ = monitor.read_to_end(&mut rest).await;
    assert_eq!(world.backend.state(&vm).await.unwrap(), VmState::Stopped);
}

#[tokio::test]
async fn folder_of_another_machine_is_left_alone() {
    let world = World::new();
    let spec = world.spec().await;
    let first = world.backend.prepare(&spec).await.unwrap();

    let impostor = VmHandle { id: InstanceId(Uuid::new_v4()), ..first.clone() };
    assert!(matches!(world.backend.start(&impostor).await, Err(Error::Foreign { .. })));
    assert!(matches!(world.backend.destroy(impostor.clone()).await, Err(Error::Foreign { .. })));
    assert_eq!(world.backend.state(&impostor).await.unwrap(), VmState::Destroyed);
    assert!(first.work_dir.join("overlay.qcow2").exists());

    let precious = world.data.join("precious");
    fs::rename(&first.work_dir, &precious).unwrap();
    std::os::unix::fs::symlink(&precious, &first.work_dir).unwrap();
    assert!(matches!(world.backend.destroy(first.clone()).await, Err(Error::Unusable { .. })));
    assert!(precious.join("overlay.qcow2").exists());
    fs::remove_file(&first.work_dir).unwrap();
    fs::create_dir(&first.work_dir).unwrap();
    fs::write(first.work_dir.join("thesis.txt"), "").unwrap();
    assert!(matches!(world.backend.destroy(first.clone()).await, Err(Error::Foreign { .. })));
    assert!(matches!(world.backend.prepare(&spec).await, Err(Error::Foreign { .. })));
    assert!(first.work_dir.join("thesis.txt").exists());
}
