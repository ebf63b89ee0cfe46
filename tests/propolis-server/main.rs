//! A propolis-server without VMs, as a program: it takes the command line of the real one.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it says what a server says in its log")]

use std::net::SocketAddr;
use std::process::ExitCode;

use vmctl_tests::propolis::{FakePropolis, Options};

const USAGE: &str =
    "usage: propolis-server run [--metric-addr A] [--log-level L] [--bootrom-version V] BOOTROM IP:PORT";

fn main() -> ExitCode {
    match run(std::env::args().skip(1).collect()) {
        Ok(never) => match never {},
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Vec<String>) -> Result<std::convert::Infallible, String> {
    let mut args = args.into_iter();
    if args.next().as_deref() != Some("run") {
        return Err(USAGE.to_owned());
    }
    let mut places = Vec::new();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--metric-addr" | "--log-level" | "--bootrom-version" => drop(args.next().ok_or(USAGE)?),
            option if option.starts_with('-') => {
                return Err(format!("unexpected argument {option}\n{USAGE}"));
            }
            _ => places.push(arg),
        }
    }
    let [bootrom, address] = <[String; 2]>::try_from(places).map_err(|_| USAGE)?;
    let rom = std::fs::read(&bootrom).map_err(|error| format!("cannot read `{bootrom}`: {error}"))?;
    if rom.is_empty() || rom.len() % 4096 != 0 || rom.len() > 2 << 20 {
        return Err(format!("`{bootrom}` is no firmware"));
    }
    let address: SocketAddr = address.parse().map_err(|_| USAGE)?;
    // Where the real one writes what the firmware says.
    std::fs::write("debug.out", "").map_err(|error| format!("cannot write debug.out: {error}"))?;
    let greeting = b"fake firmware\r\nfake kernel\r\nlogin: ".to_vec();
    println!("listening on {address}");
    let _server = FakePropolis::start_at(address, Options { greeting, ..Options::default() });
    loop {
        std::thread::park();
    }
}
