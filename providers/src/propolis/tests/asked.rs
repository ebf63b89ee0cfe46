//! Guests that are asked to power off by a login, on an ssh server of our own.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use russh::keys::{PublicKey, load_secret_key};
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session, VerifiedPublicKey, run_stream};
use russh::{Channel, ChannelId};
use tokio::net::TcpListener;
use vmctl_tests::propolis::FakePropolis;

use super::{PATIENCE, World};
use crate::hypervisor::Hypervisor;
use crate::spec::{SshConfig, VmHandle, VmState};

/// What a guest does that is told to power off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// It does.
    Obeys,
    /// It goes down before it answers.
    Vanishes,
    /// It may not.
    Refuses,
    /// It says that it does, and goes on.
    Ignores,
    /// It says nothing.
    Hangs,
}

/// The guest's sshd, one connection of it.
#[derive(Clone)]
struct Guest {
    manner: Manner,
    server: FakePropolis,
    key: PublicKey,
    told: Arc<Mutex<Vec<String>>>,
}

impl Handler for Guest {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        let is_expected = user == "vm" && key.public_key.key_data() == self.key.key_data();
        Ok(if is_expected { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        _channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        line: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.told.lock().unwrap().push(String::from_utf8_lossy(line).into_owned());
        session.channel_success(channel)?;
        let status = match self.manner {
            Manner::Obeys => {
                self.server.power_off();
                0
            }
            Manner::Vanishes => {
                self.server.power_off();
                return Err(russh::Error::Disconnect);
            }
            Manner::Refuses => {
                session.extended_data(channel, 1, &b"sudo: a password is required\n"[..])?;
                1
            }
            Manner::Ignores => 0,
            Manner::Hangs => return Ok(()),
        };
        session.exit_status_request(channel, status)?;
        session.eof(channel)?;
        session.close(channel)
    }
}

/// A running machine whose guest has an sshd.
struct Stage {
    world: World,
    vm: VmHandle,
    told: Arc<Mutex<Vec<String>>>,
}

impl Stage {
    async fn new(manner: Manner) -> Self {
        let mut world = World::new();
        let mut spec = world.full_spec();
        spec.ssh = Some(SshConfig { user: "vm".to_owned(), private_key: None });
        let vm = world.backend.prepare(&spec).await.unwrap();
        let key = |name: &str| load_secret_key(vm.work_dir.join(name), None).unwrap();
        let config = Config { keys: vec![key("ssh_host_ed25519_key")], ..Config::default() };
        let told = Arc::default();
        let guest = Guest {
            manner,
            server: world.server.clone(),
            key: key("id_ed25519").public_key().clone(),
            told: Arc::clone(&told),
        };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        world.backend.sshd = listener.local_addr().unwrap().port();
        let config = Arc::new(config);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let session = run_stream(Arc::clone(&config), socket, guest.clone()).await;
                // Who vanishes ends with an error, as it is to be.
                tokio::spawn(async move { drop(session.unwrap().await) });
            }
        });
        world.host.set_neighbours("lo0 127.0.0.1 255.255.255.255 52:54:00:00:00:00\n");
        let vm = world.backend.start(&vm).await.unwrap();
        Self { world, vm, told }
    }

    async fn stop(&self, patience: Duration) -> Option<String> {
        let stopped = self.world.backend.stop(&self.vm, patience).await.unwrap();
        assert_eq!(stopped.state, VmState::Stopped);
        assert_eq!(self.world.server.state().unwrap(), "Destroyed");
        stopped.forced_stop
    }

    /// How often the server was told to cut the power.
    fn cuts(&self) -> usize {
        let asked = self.world.server.asked();
        asked.iter().filter(|asked| asked.path == "/instance/state" && asked.json() == "Stop").count()
    }
}

#[tokio::test]
async fn guest_that_is_asked_powers_itself_off_and_nothing_is_forced() {
    for manner in [Manner::Obeys, Manner::Vanishes] {
        let stage = Stage::new(manner).await;
        assert_eq!((stage.stop(PATIENCE).await, stage.cuts()), (None, 0), "{manner:?}");
        let told = stage.told.lock().unwrap().clone();
        assert_eq!(told, [super::super::stop::POWER_OFF], "{manner:?}");
    }
}

#[tokio::test]
async fn guest_that_may_not_power_off_is_not_waited_for() {
    let stage = Stage::new(Manner::Refuses).await;
    let stop = tokio::time::timeout(PATIENCE, stage.stop(10 * PATIENCE));
    let forced = stop.await.expect("it waits for nothing that cannot come");
    assert_eq!((forced.as_deref(), stage.cuts()), (Some("Stop"), 1));
}

#[tokio::test]
async fn guest_that_does_not_go_down_in_time_is_cut_off() {
    for manner in [Manner::Ignores, Manner::Hangs] {
        let stage = Stage::new(manner).await;
        let forced = stage.stop(Duration::from_secs(1)).await;
        assert_eq!((forced.as_deref(), stage.cuts()), (Some("Stop"), 1), "{manner:?}");
        assert_eq!(stage.told.lock().unwrap().len(), 1, "{manner:?}");
    }
}
