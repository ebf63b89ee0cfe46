//! Just enough HTTP to be asked, and to answer.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

/// The longest body that is read at all.
const MOST: usize = 8 << 20;

/// What was asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// GET, PUT …
    pub method: String,
    /// The path without its query.
    pub path: String,
    /// The query's values, by name.
    pub query: BTreeMap<String, String>,
    /// Headers, names in small letters.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

impl Asked {
    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// Reads one request; `None` at the end of the connection.
pub(super) fn read_request(reader: &mut impl BufRead) -> io::Result<Option<Asked>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let mut asked = Asked { method: words.next().unwrap_or_default().to_owned(), ..Asked::default() };
    let target = words.next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    asked.path = path.to_owned();
    asked.query = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
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
    let length = asked.headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    asked.body = vec![0; length.min(MOST)];
    reader.read_exact(&mut asked.body)?;
    Ok(Some(asked))
}

/// What is answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn status(status: u16) -> Self {
        Self { status, body: Vec::new() }
    }

    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self { status, body: body.to_string().into_bytes() }
    }

    pub(super) fn error(status: u16, code: Option<&str>, message: &str) -> Self {
        let mut body = json!({"request_id": "00000000-0000-0000-0000-000000000000", "message": message});
        if let Some(code) = code {
            body["error_code"] = json!(code);
        }
        Self::json(status, &body)
    }

    pub(super) fn write(&self, socket: &TcpStream) -> io::Result<()> {
        let length = match self.status {
            204 => String::new(),
            _ => format!("Content-Type: application/json\r\nContent-Length: {}\r\n", self.body.len()),
        };
        let head = format!("HTTP/1.1 {} Answer\r\n{length}\r\n", self.status);
        write_raw(socket, &[head.as_bytes(), &self.body].concat())
    }
}

pub(super) fn write_raw(mut socket: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    socket.write_all(bytes)?;
    socket.flush()
}

/// Says nothing until the client goes.
pub(super) fn await_end(reader: &mut impl Read) -> io::Result<()> {
    io::copy(reader, &mut io::sink()).map(drop)
}
