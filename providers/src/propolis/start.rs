//! From a prepared machine to a running one: a server, its VM, `Run`.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::api::{Request, State};
use super::backend::{PropolisBackend, version};
use super::client::{Client, Ensured, PropolisError};
use super::decide::{Fall, Next, fall, is_up, next};
use super::host::vnics;
use super::instance::{MOST_BLOB, Seed, ensure_request};
use super::prepare::{bootrom, is_gone, program};
use super::server::{self, Note, Places, Start};
use crate::console_log;
use crate::error::{Error, Result};
use crate::failpoints::failpoint;
use crate::process::Process;
use crate::qemu::ending;
use crate::qemu::manifest::{Manifest, Owner};
use crate::qemu::places::ensure_private_file;
use crate::spec::{Runtime, VmHandle, VmState};
use crate::workdir::WorkDir;

/// How long a VM may take from an answering server to `Running`. Memory of many gigabytes takes a while to reserve.
const UP: Duration = Duration::from_secs(300);

/// How long the VM before may take to go, on a server that somebody else runs.
const LEAVING: Duration = Duration::from_secs(60);

/// Pause before the same question to a server that is still at its beginning.
const AGAIN: Duration = Duration::from_millis(200);

/// A server with its VM.
pub(super) struct Live {
    pub(super) client: Client,
    pub(super) server: Server,
    pub(super) note: Note,
}

/// Whose a server is, and how it is known.
pub(super) enum Server {
    /// The machine's own, by its process.
    Process(Process),
    /// The machine's own, by its zone, in which nothing else runs.
    Zone,
    /// Somebody else's.
    Given,
}

impl PropolisBackend {
    /// See [`crate::Hypervisor::start`].
    pub(super) async fn bring_up(&self, vm: &VmHandle) -> Result<VmHandle> {
        let work = WorkDir::new(&vm.work_dir);
        self.make_sure_startable(&work, vm).await?;
        ensure_private_file(&work.console_log())?;
        let options = &vm.machine.hardware.propolis;
        let (live, is_new) = match (options.server, self.zone(vm.id, &vm.machine)) {
            (Some(_), _) => (self.given_server(vm, &work)?, false),
            (None, Some(zone)) => self.zone_server(vm, &work, &zone).await?,
            (None, None) => self.own_server(vm, &work).await?,
        };
        let places = Places::of(&work);
        let up = self.up(vm, &live, &places).await;
        if let Err(error) = up {
            let error = self.with_log(error, vm, &live, &places).await;
            // A server without a running VM is of no use to anybody, and would be taken for one that has one.
            if is_new {
                self.put_away(vm, &live.server, &places).await?;
            }
            return Err(error);
        }
        failpoint!("start.propolis.up", work.path());
        if let Owner::Ours(mut manifest) = Manifest::owner(&work, vm.id)?
            && !manifest.started
        {
            manifest.started = true;
            manifest.store(&work)?;
        }
        failpoint!("start.propolis.remembered", work.path());
        let runtime = Some(runtime(&live.server));
        Ok(VmHandle { state: VmState::Running, runtime, forced_stop: None, ..vm.clone() })
    }

    /// Refuses to start what is not whole; vnics that a restart of the host took are made again.
    async fn make_sure_startable(&self, work: &WorkDir, vm: &VmHandle) -> Result<()> {
        Manifest::of_made(work, vm.id, "start")?;
        if let Some(disk) = self.disk(vm)
            && is_gone(&disk)?
        {
            let reason = "the machine's disk is gone".to_owned();
            return Err(Error::Unusable { path: disk, reason });
        }
        let link = vm.machine.hardware.propolis.vnic_link.as_deref();
        vnics::ensure(&*self.host, &vnics::wanted(&vm.machine), link).await?;
        self.ensure_zone(vm.id, &vm.machine).await
    }

    /// Ends a server that was started in vain.
    async fn put_away(&self, vm: &VmHandle, server: &Server, places: &Places) -> Result<()> {
        match (server, self.zone(vm.id, &vm.machine)) {
            (Server::Process(process), _) => {
                server::end(process, places).await?;
                self.clear_kernel(vm).await?;
            }
            (Server::Zone, Some(zone)) => drop(zone.halt().await?),
            (Server::Zone, None) | (Server::Given, _) => return Ok(()),
        }
        places.forget()
    }

    /// Servers of our own have a log that can be read; that of another is where its owner looks.
    async fn with_log(&self, error: Error, vm: &VmHandle, live: &Live, places: &Places) -> Error {
        let Error::Propolis(error) = error else { return error };
        let tail = match (&live.server, self.zone(vm.id, &vm.machine)) {
            (Server::Process(_), _) => places.log_tail(),
            (Server::Zone, Some(zone)) => zone.log_tail().await,
            (Server::Zone, None) | (Server::Given, _) => return error.into(),
        };
        error.with_log(tail).into()
    }

    /// The server that the machine names. What it printed is noted from now on.
    fn given_server(&self, vm: &VmHandle, work: &WorkDir) -> Result<Live> {
        let options = &vm.machine.hardware.propolis;
        let address = options.server.ok_or(Error::InvalidState { action: "start", state: vm.state })?;
        let places = Places::of(work);
        let note = match places.load()? {
            Some(note) if note.address == address => note,
            Some(_) | None => {
                let note = fresh_note(address, work)?;
                places.store(&note)?;
                note
            }
        };
        Ok(Live { client: self.client(address, options)?, server: Server::Given, note })
    }

    /// The machine's own server: the one that lives, if its VM may still come up; else a fresh one. Tells which.
    async fn own_server(&self, vm: &VmHandle, work: &WorkDir) -> Result<(Live, bool)> {
        let options = &vm.machine.hardware.propolis;
        let places = Places::of(work);
        if let Some((process, note)) = server::find(&places)? {
            let client = self.client(note.address, options)?;
            match next(client.instance().await?, vm.id.0) {
                Next::Foreign(found) => return Err(other(&client, &found).into()),
                Next::AwaitEnd => await_end(&client, LEAVING).await?,
                Next::Over | Next::Broken(_) => {}
                Next::Ensure | Next::Run | Next::AwaitRunning | Next::Adopt => {
                    return Ok((Live { client, server: Server::Process(process), note }, false));
                }
            }
            server::end(&process, &places).await?;
            self.clear_kernel(vm).await?;
            places.forget()?;
        } else {
            self.refuse_copy(vm, &places).await?;
        }
        console_log::renew(&work.console_log())?;
        let start = Start {
            program: &program(options)?,
            bootrom: &bootrom(options)?,
            version: version(options),
            console_start: length(work)?,
        };
        let (process, note) = server::launch(&places, &start).await?;
        let client = self.client(note.address, options)?;
        Ok((Live { client, server: Server::Process(process), note }, true))
    }

    /// Refuses a copy of a data folder whose original has a server of the same instance: a second one would destroy the
    /// first one's VM, and what is on a pool is the original's.
    pub(super) async fn refuse_copy(&self, vm: &VmHandle, places: &Places) -> Result<()> {
        let Some(note) = places.load()? else { return Ok(()) };
        let client = self.client(note.address, &vm.machine.hardware.propolis)?;
        match client.instance().await {
            Ok(Some(found)) if found.id == vm.id.0 => {
                let place =
                    format!("by the propolis-server at {}, which is not of this folder", note.address);
                Err(Error::Elsewhere { place })
            }
            // Nobody is there, or somebody else.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Brings the VM up, unless the server ends before.
    async fn up(&self, vm: &VmHandle, live: &Live, places: &Places) -> Result<()> {
        let rising = async {
            match timeout(UP, self.rise(vm, live, places)).await {
                Ok(up) => up,
                Err(_) => Err(Error::Timeout { what: "the start of the VM".to_owned(), after: UP }),
            }
        };
        match &live.server {
            Server::Given | Server::Zone => rising.await,
            Server::Process(process) => tokio::select! {
                up = rising => up,
                ended = process.exited() => {
                    ended.map_err(Error::io("wait for the server of", &vm.work_dir))?;
                    let tail = places.log_tail();
                    Err(Error::ProcessEnded { detail: (!tail.is_empty()).then(|| format!("its log ends with\n{tail}")) })
                }
            },
        }
    }

    async fn rise(&self, vm: &VmHandle, live: &Live, places: &Places) -> Result<()> {
        let client = &live.client;
        loop {
            let found = match client.instance().await {
                Err(error) if error.is_too_early() => {
                    sleep(AGAIN).await;
                    continue;
                }
                found => found?,
            };
            match next(found, vm.id.0) {
                Next::Ensure | Next::Over => {
                    if matches!(live.server, Server::Given) {
                        // Another VM than the one whose console was noted.
                        places.store(&fresh_note(client.address(), &WorkDir::new(&vm.work_dir))?)?;
                    }
                    match client.ensure(&self.request(vm)?).await? {
                        // Whose it is, is looked at in the next round.
                        Ensured::Made | Ensured::Occupied => {}
                    }
                    failpoint!("start.propolis.ensured", &vm.work_dir);
                }
                Next::Run => match client.request(Request::Run).await {
                    Ok(()) => {
                        failpoint!("start.propolis.asked", &vm.work_dir);
                        return await_up(client).await;
                    }
                    Err(error) if error.is_too_early() => sleep(AGAIN).await,
                    Err(error) => return Err(error.into()),
                },
                Next::AwaitRunning => return await_up(client).await,
                Next::Adopt => return Ok(()),
                Next::AwaitEnd => await_end(client, LEAVING).await?,
                Next::Broken(state) => return Err(not_up(&state).into()),
                Next::Foreign(found) => return Err(other(client, &found).into()),
            }
        }
    }

    /// What the server is told of the machine. The seed goes with it as far as there is room.
    fn request(&self, vm: &VmHandle) -> Result<serde_json::Value> {
        let path = WorkDir::new(&vm.work_dir).seed();
        let seed = match vm.seed {
            false => None,
            true => {
                let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
                let has_zone = vm.machine.hardware.propolis.zone.is_some();
                match bytes.len() {
                    ..=MOST_BLOB => Some(Seed::Inline(bytes)),
                    _ if has_zone => {
                        let reason = format!("a server in a zone takes a seed of at most {MOST_BLOB} bytes");
                        return Err(Error::Unusable { path, reason });
                    }
                    _ => Some(Seed::File(path)),
                }
            }
        };
        Ok(ensure_request(vm, self.disk(vm), seed))
    }
}

/// The facts of a running machine.
pub(super) fn runtime(server: &Server) -> Runtime {
    let pid = match server {
        Server::Process(process) => process.pid(),
        Server::Zone | Server::Given => 0,
    };
    Runtime {
        pid,
        accel: "bhyve".to_owned(),
        vnc: None,
        forwards: Vec::new(),
        address: None,
        boot: ending::boot(),
        host: ending::host(),
    }
}

pub(super) fn fresh_note(address: std::net::SocketAddr, work: &WorkDir) -> Result<Note> {
    console_log::renew(&work.console_log())?;
    let (console_start, boot) = (length(work)?, ending::boot());
    Ok(Note { address, pid: None, boot, console_start, console_taken: 0 })
}

fn length(work: &WorkDir) -> Result<u64> {
    let log = work.console_log();
    log.metadata().map(|found| found.len()).map_err(Error::io("examine", log))
}

pub(super) fn other(client: &Client, found: &super::api::Instance) -> PropolisError {
    PropolisError::Other { address: client.address(), name: found.name.clone(), id: found.id.to_string() }
}

fn not_up(state: &State) -> PropolisError {
    PropolisError::NotUp { state: state.to_string(), log: None }
}

/// Waits until the VM runs or will not.
async fn await_up(client: &Client) -> Result<()> {
    let mut generation = 0;
    loop {
        let Some(change) = client.monitor(generation).await? else { continue };
        match is_up(&change.state) {
            Some(true) => return Ok(()),
            Some(false) => return Err(not_up(&change.state).into()),
            None => generation = change.generation.saturating_add(1),
        }
    }
}

/// Waits until nothing of the VM is held, at most for `patience`.
pub(super) async fn await_end(client: &Client, patience: Duration) -> Result<()> {
    match timeout(patience, await_fall(client, Fall::Gone)).await {
        Ok(ended) => ended,
        Err(_) => Err(Error::Timeout { what: "the end of the VM".to_owned(), after: patience }),
    }
}

/// Waits until the VM is down as far as `wanted`. A server that has no VM any more, or is gone itself, holds none.
pub(super) async fn await_fall(client: &Client, wanted: Fall) -> Result<()> {
    let mut generation = 0;
    loop {
        match client.monitor(generation).await {
            Ok(None) => {}
            Ok(Some(change)) => match (fall(&change.state), wanted) {
                (Fall::Gone, _) | (Fall::Off, Fall::Off) => return Ok(()),
                (Fall::Off | Fall::No, _) => generation = change.generation.saturating_add(1),
            },
            Err(error) if error.is_no_instance() || error.is_nobody() => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
