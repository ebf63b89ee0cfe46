//! A propolis-server without VMs, that keeps the rules of the real one.
//!
//! It is written from what is known of the real one: 424 before there is a VM, 409 for a second one, 403 for what is not
//! allowed now, a version header that must be there, `Stopped` before `Destroyed`, long polls by generation, the history of
//! the console and its WebSocket. What it is told is looked at by [`rules`], by its own tables and, where
//! `VMCTL_PROPOLIS_OPENAPI` names a folder with the official documents, by these ([`openapi`]): a request that does not
//! fit is refused, and an answer of its own that does not fit ends it.
//!
//! [`Fault`]s make it what a server of another kind may be: failing, silent, broken.

mod http;
pub mod openapi;
pub mod rules;
mod vm;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::protocol::{Role, WebSocket};
use tungstenite::{Bytes, Error as WsError, Message};

pub use self::http::Asked;
use self::http::{Answer, read_request};
use self::vm::{Console, Vm};

/// The header without which nothing is answered.
const VERSION_HEADER: &str = "api-version";

/// The newest version that is spoken.
const NEWEST: [u64; 3] = [6, 0, 0];

/// How often a WebSocket looks for what its guest printed.
const LOOK: Duration = Duration::from_millis(10);

/// What is done to a request in place of answering it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// This status, with this body.
    Answer(u16, String),
    /// The connection is closed.
    Close,
    /// Nothing comes, until the client goes.
    Hang,
    /// Bytes that are no HTTP.
    Garbage,
}

/// What a server has and does.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The vnics of its host; any name is one if absent.
    pub vnics: Option<Vec<String>>,
    /// What every guest prints when it boots.
    pub greeting: Vec<u8>,
    /// Guests stay in this state after `Run`, in place of `Running`.
    pub stuck: Option<String>,
    /// The limit of each half of the history, in bytes, in place of 1 MiB.
    pub history: Option<usize>,
}

#[derive(Debug, Default)]
struct Shared {
    options: Options,
    vm: Vm,
    console: Console,
    faults: Mutex<BTreeMap<String, Vec<Fault>>>,
    asked: Mutex<Vec<Asked>>,
}

/// A server; it goes on until the process ends.
#[derive(Debug, Clone)]
pub struct FakePropolis {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl FakePropolis {
    /// Starts one on a port of the loopback.
    pub fn start(options: Options) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), options)
    }

    /// Starts one at an address.
    pub fn start_at(address: SocketAddr, options: Options) -> Self {
        let listener = TcpListener::bind(address).expect("a port of the loopback");
        let address = listener.local_addr().expect("a bound socket has an address");
        let console = Console::new(options.history);
        let shared = Arc::new(Shared { options, console, ..Shared::default() });
        let of_all = Arc::clone(&shared);
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let shared = Arc::clone(&of_all);
                // A client that goes away in the middle is none of its business.
                thread::spawn(move || drop(serve(&socket, &shared)));
            }
        });
        Self { address, shared }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Does `fault` to the next request for `what`, a method and a path without its query. Faults queue up.
    pub fn fault(&self, what: &str, fault: Fault) {
        let mut faults = self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.entry(what.to_owned()).or_default().push(fault);
    }

    /// Everything that it was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The state of its VM, if it has one.
    pub fn state(&self) -> Option<String> {
        self.shared.vm.look(|vm| vm.as_ref().map(|vm| vm.state().to_owned()))
    }

    /// The body of the request that made its VM.
    pub fn told(&self) -> Option<Value> {
        self.shared.vm.look(|vm| vm.as_ref().map(|vm| vm.told.clone()))
    }

    /// Lets the guest print something.
    pub fn print(&self, bytes: &[u8]) {
        self.shared.console.print(bytes);
    }

    /// What was typed so far.
    pub fn typed(&self) -> Vec<u8> {
        self.shared.console.typed()
    }

    /// Lets the guest power itself off.
    pub fn power_off(&self) {
        for state in ["Stopping", "Stopped", "Destroyed"] {
            self.shared.vm.advance(state);
        }
    }

    /// Brings the VM to a state, whatever the rules say.
    pub fn set_state(&self, state: &str) {
        self.shared.vm.advance(state);
    }

    /// Makes a VM that somebody else asked for.
    pub fn occupy(&self, id: &str) {
        let told = json!({"properties": {"id": id, "name": "other", "description": "", "metadata": metadata()},
            "init": {"value": {"spec": {"board": {}, "components": {}}}}});
        self.shared.vm.make(told);
        self.shared.vm.advance("Running");
    }

    /// Forgets its VM, as a server that was started anew.
    pub fn reset(&self) {
        self.shared.vm.clear();
    }
}

fn metadata() -> Value {
    const NIL: &str = "00000000-0000-0000-0000-000000000000";
    json!({"silo_id": NIL, "project_id": NIL, "sled_id": NIL, "sled_serial": "", "sled_revision": 0, "sled_model": ""})
}

fn serve(socket: &TcpStream, shared: &Arc<Shared>) -> std::io::Result<()> {
    let mut reader = std::io::BufReader::new(socket);
    while let Some(asked) = read_request(&mut reader)? {
        shared.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked.clone());
        let what = format!("{} {}", asked.method, asked.path);
        let fault = {
            let mut faults = shared.faults.lock().unwrap_or_else(PoisonError::into_inner);
            faults.get_mut(&what).filter(|faults| !faults.is_empty()).map(|faults| faults.remove(0))
        };
        match fault {
            Some(Fault::Close) => return socket.shutdown(std::net::Shutdown::Both),
            Some(Fault::Hang) => return http::await_end(&mut reader),
            Some(Fault::Garbage) => return http::write_raw(socket, b"\x00\x01 no http at all\r\n\r\n"),
            Some(Fault::Answer(status, body)) => {
                Answer { status, body: body.into_bytes() }.write(socket)?;
                continue;
            }
            None => {}
        }
        if what == "GET /instance/serial" {
            return serial(socket, shared, &asked);
        }
        let answer = answer(shared, &asked, &what);
        // What it is told to answer against the rules is no fault of its own.
        if shared.options.stuck.is_none() {
            openapi::check_answer(&asked, answer.status, &answer.body);
        }
        answer.write(socket)?;
    }
    Ok(())
}

fn answer(shared: &Arc<Shared>, asked: &Asked, what: &str) -> Answer {
    if let Err(message) = version(asked) {
        return Answer::error(400, None, &message);
    }
    if let Err(message) = openapi::check_request(asked) {
        return Answer::error(400, None, &message);
    }
    match what {
        "GET /instance" => shared.vm.look(|vm| match vm {
            Some(vm) => {
                Answer::json(200, &json!({"instance": {"properties": vm.properties(), "state": vm.state()}}))
            }
            None => no_instance(),
        }),
        "GET /instance/spec" => shared.vm.look(|vm| match vm {
            Some(vm) => Answer::json(200, &vm.spec(is_first(asked))),
            None => no_instance(),
        }),
        "PUT /instance" => ensure(shared, asked),
        "PUT /instance/state" => change(shared, asked),
        "GET /instance/state-monitor" => match asked.json().get("gen").and_then(Value::as_u64) {
            Some(generation) => shared.vm.monitor(generation),
            None => Answer::error(400, None, "unable to parse JSON body: no `gen`"),
        },
        "GET /instance/serial/history" => match shared.vm.look(|vm| vm.is_some()) {
            true => shared.console.history(&asked.query),
            false => no_instance(),
        },
        _ => Answer::error(404, None, "Not Found"),
    }
}

fn no_instance() -> Answer {
    Answer::error(424, Some("NoInstance"), "server has no instance")
}

fn version(asked: &Asked) -> Result<(), String> {
    let Some(text) = asked.headers.get(VERSION_HEADER) else {
        return Err(format!("missing expected header \"{VERSION_HEADER}\""));
    };
    let parts: Option<Vec<u64>> = text.split('.').map(|part| part.parse().ok()).collect();
    let known = parts.and_then(|parts| <[u64; 3]>::try_from(parts).ok());
    match known {
        Some(version) if version[0] >= 1 && version <= NEWEST => Ok(()),
        Some(_) => Err(format!("server does not support this API version: {VERSION_HEADER} {text}")),
        None => Err(format!("bad value for header \"{VERSION_HEADER}\": {text}")),
    }
}

fn is_first(asked: &Asked) -> bool {
    asked.headers.get(VERSION_HEADER).is_some_and(|version| version == "1.0.0")
}

fn ensure(shared: &Arc<Shared>, asked: &Asked) -> Answer {
    if asked.body.len() > 1 << 20 {
        return Answer::error(400, None, "request body exceeded maximum size of 1048576 bytes");
    }
    let told = asked.json();
    if let Err(message) = rules::check(&told, shared.options.vnics.as_deref()) {
        return Answer::error(400, None, &message);
    }
    if !shared.vm.make(told) {
        return Answer::error(409, Some("AlreadyInitialized"), "an instance is already initialised");
    }
    shared.console.clear();
    Answer::json(201, &json!({"migrate": null}))
}

fn change(shared: &Arc<Shared>, asked: &Asked) -> Answer {
    let wanted = asked.json();
    let Some(state) = shared.vm.look(|vm| vm.as_ref().map(|vm| vm.state().to_owned())) else {
        return no_instance();
    };
    let no = |message: &str| Answer::error(403, None, message);
    let end = matches!(state.as_str(), "Destroyed");
    let steps: &[&str] = match (wanted.as_str(), state.as_str()) {
        (Some("Run" | "Reboot"), _) if end => {
            return Answer::error(424, Some("NoInstance"), "no active instance");
        }
        (Some("Run"), "Creating") => &["Starting", "Running"],
        (Some("Run"), "Starting" | "Running" | "Rebooting") => &[],
        (Some("Run"), _) => return no("cannot run a VM that is stopping, stopped or failed"),
        (Some("Reboot"), "Running") => &["Rebooting", "Running"],
        (Some("Reboot"), _) => return no("cannot reboot a VM that does not run"),
        (Some("Stop"), "Stopped" | "Stopping" | "Destroyed") => &[],
        (Some("Stop"), _) => &["Stopping", "Stopped", "Destroyed"],
        _ => return Answer::error(400, None, "unable to parse JSON body: unknown variant"),
    };
    let (shared, steps) = (Arc::clone(shared), steps.to_vec());
    // Requests are queued, and carried out behind the answer.
    thread::spawn(move || {
        for step in steps {
            match &shared.options.stuck {
                Some(stuck) if step == "Running" => shared.vm.advance(stuck),
                Some(_) | None => {
                    if step == "Starting" {
                        shared.console.print(&shared.options.greeting);
                    }
                    shared.vm.advance(step);
                }
            }
        }
    });
    Answer::status(204)
}

/// Speaks the WebSocket of the console: what the guest printed, from where it was asked, and what is typed. The fake guest
/// echoes what is typed, as a terminal does.
fn serial(socket: &TcpStream, shared: &Shared, asked: &Asked) -> std::io::Result<()> {
    if let Err(message) = version(asked) {
        return Answer::error(400, None, &message).write(socket);
    }
    if shared.vm.look(|vm| vm.is_none()) {
        return no_instance().write(socket);
    }
    let Some(key) = asked.headers.get("sec-websocket-key") else {
        return Answer::error(400, None, "no upgrade was asked for").write(socket);
    };
    let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    http::write_raw(socket, head.as_bytes())?;
    let mut place = shared.console.place(&asked.query);
    socket.set_read_timeout(Some(LOOK))?;
    let mut socket = WebSocket::from_raw_socket(socket.try_clone()?, Role::Server, None);
    let broken = |error: WsError| std::io::Error::other(error);
    loop {
        let printed = shared.console.since(place);
        if !printed.is_empty() {
            place += printed.len();
            socket.send(Message::Binary(Bytes::from(printed))).map_err(broken)?;
        }
        if shared.vm.look(|vm| vm.as_ref().is_none_or(|vm| vm.state() == "Destroyed")) {
            return socket.close(None).map_err(broken);
        }
        match socket.read() {
            Ok(Message::Binary(bytes)) => {
                shared.console.type_in(&bytes);
                shared.console.print(&bytes);
            }
            Ok(Message::Close(_)) => return Ok(()),
            Ok(_) => {}
            Err(WsError::Io(error))
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(broken(error)),
        }
    }
}
