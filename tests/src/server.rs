//! A web server on the loopback that answers as a test tells it, and remembers what it was asked.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What was asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// GET, HEAD …
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Headers, names in small letters.
    pub headers: BTreeMap<String, String>,
    /// How many requests for this path came before.
    pub before: usize,
}

impl Asked {
    /// Where a `Range: bytes=N-` begins.
    pub fn from(&self) -> Option<usize> {
        self.headers.get("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// What is answered.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// The code.
    pub status: u16,
    /// Headers; `Content-Length` is added unless it is one of them.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// After so many bytes of the body the connection is closed.
    pub cut: Option<usize>,
    /// After so many bytes of the body nothing comes any more, until the client goes.
    pub stall: Option<usize>,
}

impl Answer {
    /// A body, whole.
    pub fn whole(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, body: body.into(), ..Self::default() }
    }

    /// A code without a body.
    pub fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// A file as a good server gives it: marked with `etag`, and from where it is asked for.
    pub fn file(asked: &Asked, body: &[u8], etag: &str) -> Self {
        let length = body.len();
        let is_same = asked.headers.get("if-range").is_none_or(|mark| mark == etag);
        if asked.headers.get("if-none-match").is_some_and(|mark| mark == etag) {
            return Self::status(304).header("ETag", etag);
        }
        match asked.from().filter(|_| is_same) {
            Some(from) if from < length => {
                Self { status: 206, body: body[from..].to_vec(), ..Self::default() }
                    .header("Content-Range", &format!("bytes {from}-{}/{length}", length - 1))
            }
            Some(_) => Self::status(416).header("Content-Range", &format!("bytes */{length}")),
            None => Self::whole(body),
        }
        .header("ETag", etag)
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A server; it goes on until the process ends.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// Starts a server that answers with what `answer` returns.
    pub fn start(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST, answer)
    }

    /// The same at another address of the loopback.
    pub fn start_at(at: Ipv4Addr, answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((at, 0)).expect("a port of the kernel's choice");
        let address = listener.local_addr().expect("a bound socket has an address");
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let (log, answer) = (Arc::clone(&asked), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                // A client that goes away in the middle is what some tests are about.
                thread::spawn(move || drop(serve(&stream, &log, &*answer)));
            }
        });
        Self { address, asked }
    }

    /// `http://ADDRESS:PORT` and `path`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Host and port.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Everything that it was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no test panics while it holds this").clone()
    }

    /// How often all of something was asked for: not a rest of it, and not only if it is another one.
    pub fn whole(&self) -> usize {
        let is_part =
            |asked: &Asked| ["range", "if-none-match"].iter().any(|it| asked.headers.contains_key(*it));
        self.asked().iter().filter(|asked| asked.method == "GET" && !is_part(asked)).count()
    }

    /// How often a path was asked for by `method`.
    pub fn count(&self, method: &str, path: &str) -> usize {
        self.asked().iter().filter(|asked| asked.method == method && asked.path == path).count()
    }
}

fn serve(
    stream: &TcpStream,
    log: &Mutex<Vec<Asked>>,
    answer: &dyn Fn(&Asked) -> Answer,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_whitespace().map(str::to_owned);
        let mut asked = Asked {
            method: words.next().unwrap_or_default(),
            path: words.next().unwrap_or_default(),
            ..Asked::default()
        };
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            match line.trim_end().split_once(':') {
                Some((name, value)) => {
                    asked.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
                }
                None => break,
            }
        }
        {
            let mut log = log.lock().expect("no test panics while it holds this");
            asked.before = log.iter().filter(|before| before.path == asked.path).count();
            log.push(asked.clone());
        }
        let answer = answer(&asked);
        let mut out = stream;
        let mut head = format!("HTTP/1.1 {} Answer\r\n", answer.status);
        for (name, value) in &answer.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !answer.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
            head.push_str(&format!("Content-Length: {}\r\n", answer.body.len()));
        }
        out.write_all(format!("{head}\r\n").as_bytes())?;
        if asked.method == "HEAD" || answer.status == 304 {
            continue;
        }
        let end = answer.cut.or(answer.stall).unwrap_or(answer.body.len()).min(answer.body.len());
        out.write_all(&answer.body[..end])?;
        if answer.cut.is_some() {
            return stream.shutdown(std::net::Shutdown::Both);
        }
        if answer.stall.is_some() {
            // The client's next byte is the end of its patience.
            let mut line = String::new();
            reader.read_line(&mut line)?;
            return Ok(());
        }
    }
}
