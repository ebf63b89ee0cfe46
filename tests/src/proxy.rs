//! A proxy on the loopback that tunnels to one server, whatever name is asked for.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A proxy; it goes on until the process ends.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Starts one that leads to the server at `host`, an address with a port.
    pub fn to(host: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port of the kernel's choice");
        let address = listener.local_addr().expect("a bound socket has an address");
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let (log, host) = (Arc::clone(&asked), host.to_owned());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (log, host) = (Arc::clone(&log), host.clone());
                thread::spawn(move || drop(tunnel(client, &host, &log)));
            }
        });
        Self { address, asked }
    }

    /// Its host and port.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The heads of all requests so far, each as it came.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no test panics while it holds this").clone()
    }
}

fn tunnel(client: TcpStream, host: &str, log: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut head = String::new();
    // The head ends with an empty line.
    while reader.read_line(&mut head)? > 2 {}
    log.lock().expect("no test panics while it holds this").push(head.clone());
    let mut out = client;
    if !head.starts_with("CONNECT ") {
        return out.write_all(b"HTTP/1.1 405 Answer\r\nContent-Length: 0\r\n\r\n");
    }
    let server = TcpStream::connect(host)?;
    out.write_all(b"HTTP/1.1 200 Answer\r\n\r\n")?;
    let mut to_server = server.try_clone()?;
    thread::spawn(move || copy(&mut reader, &mut to_server));
    copy(&mut &server, &mut out)
}

/// Passes on what comes until there is no more.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    io::copy(from, to).map(drop)
}
