//! `log`: what machines wrote to their consoles, and what provisioning printed.

mod lines;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use vmctl_providers::console_log;
use vmctl_providers::workdir::WorkDir;
use vmctl_state::Address;

use self::lines::Tail;

use crate::args::LogArgs;
use crate::context::{Context, small_runtime};
use crate::error::{CliError, Exit, stdout_failed};
use crate::{machines, ui};

/// Longest piece of a line that is held in memory; a guest may write without ever ending a line.
const PIECE: u64 = 64 * 1024;

/// Block in which a file is searched backwards.
const BLOCK: u64 = 64 * 1024;

/// Runs the command. A log that does not exist yet is no error.
pub(crate) fn run(ctx: &Context, args: &LogArgs) -> Result<Exit, CliError> {
    let names = if args.names.is_empty() { machines::all_names(ctx)? } else { args.names.clone() };
    let found = names.iter().map(|name| machines::work_dir(ctx, name)).collect::<Result<Vec<_>, _>>()?;
    let fetched = names.iter().filter_map(|name| machines::to_fetch(ctx, name).transpose());
    let fetched = fetched.collect::<Result<Vec<_>, _>>()?;
    if !fetched.is_empty() && args.console >= args.provision {
        small_runtime()?.block_on(async {
            for machine in &fetched {
                // What was fetched before can be shown all the same.
                if let Err(error) = machine.fetch().await {
                    ui::warn(&format!("the console's log may not be up to date: {error}"));
                }
            }
            Ok::<_, CliError>(())
        })?;
    }
    match found.as_slice() {
        [(address, work_dir)] if !args.follow => one(ctx, args, address, work_dir),
        _ if args.raw => Err(CliError::new("--raw prints the bytes of one machine's logs, as they are now")
            .help("name one machine, and leave --follow out".to_owned())
            .exit(Exit::Usage)),
        _ => lines::show(&mut tails(args, &found), args.tail, args.follow.then_some(&fetched)),
    }
}

/// The logs that were asked for, each with the name that stands before its lines.
fn tails(args: &LogArgs, found: &[(Address, PathBuf)]) -> Vec<Tail> {
    let both = args.console == args.provision;
    let mut tails = Vec::new();
    for (number, (address, work_dir)) in found.iter().enumerate() {
        let files = WorkDir::new(work_dir);
        let name = if found.len() > 1 { address.name() } else { "" };
        let label = |kind: &str| match (name, both) {
            (name, false) => name.to_owned(),
            ("", true) => kind.to_owned(),
            (name, true) => format!("{name} {kind}"),
        };
        if args.console || both {
            tails.push(Tail::new(label("console"), number, files.console_log(), true));
        }
        if args.provision || both {
            tails.push(Tail::new(label("provision"), number, files.provision_log(), false));
        }
    }
    tails
}

/// Shows the logs of one machine, one after the other.
fn one(ctx: &Context, args: &LogArgs, address: &Address, work_dir: &Path) -> Result<Exit, CliError> {
    let files = WorkDir::new(work_dir);
    let both = args.console == args.provision;
    let logs = [
        (args.console || both, "console", files.console_log()),
        (args.provision || both, "provisioning", files.provision_log()),
    ];
    let mut at_line_start = true;
    for (_, kind, path) in logs.iter().filter(|(wanted, ..)| *wanted) {
        if *path == files.console_log() {
            console_log::trim(path).map_err(|error| CliError::of(&error))?;
        }
        match File::open(path) {
            Ok(file) => {
                let dropped = console_log::kept_from(&file).map_err(|error| unreadable(path, &error))?;
                let break_line = if at_line_start { "" } else { "\n" };
                let title = if both { format!("{break_line}==> {kind} log <==\n") } else { String::new() };
                at_line_start = show(file, dropped, path, &title, args)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                ctx.note(&format!("`{address}` has no {kind} log yet."));
            }
            Err(error) => return Err(unreadable(path, &error)),
        }
    }
    Ok(Exit::Fine)
}

/// Writes one log to stdout; tells whether it ended with a whole line.
fn show(mut file: File, dropped: u64, path: &Path, title: &str, args: &LogArgs) -> Result<bool, CliError> {
    let start = if args.tail == 0 {
        dropped
    } else {
        start_of_tail(&mut file, dropped, args.tail).map_err(|e| unreadable(path, &e))?
    };
    file.seek(SeekFrom::Start(start)).map_err(|error| unreadable(path, &error))?;
    let mut log = BufReader::new(file);
    let mut out = io::stdout().lock();
    out.write_all(title.as_bytes()).map_err(|error| stdout_failed(&error))?;
    if dropped > 0 && start == dropped && !args.raw {
        out.write_all(console_log::note(dropped).as_bytes()).map_err(|error| stdout_failed(&error))?;
    }
    let mut piece = Vec::new();
    let mut whole = true;
    loop {
        piece.clear();
        let read =
            (&mut log).take(PIECE).read_until(b'\n', &mut piece).map_err(|error| unreadable(path, &error))?;
        if read == 0 {
            out.flush().map_err(|error| stdout_failed(&error))?;
            return Ok(whole);
        }
        whole = piece.ends_with(b"\n");
        let written = if args.raw {
            out.write_all(&piece)
        } else {
            out.write_all(ui::visible_bytes(&piece).as_bytes())
        };
        written.map_err(|error| stdout_failed(&error))?;
    }
}

/// Offset at which the last `lines` lines behind `first` begin; a last line without an end counts.
fn start_of_tail(file: &mut (impl Read + Seek), first: u64, lines: usize) -> io::Result<u64> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut wanted = lines;
    let mut end = length;
    let mut block = Vec::new();
    while end > first {
        let start = end.saturating_sub(BLOCK).max(first);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        file.take(end - start).read_to_end(&mut block)?;
        for (index, byte) in block.iter().enumerate().rev() {
            let next = start + index as u64 + 1;
            // The end of the last line separates nothing.
            if *byte == b'\n' && next < length {
                wanted -= 1;
                if wanted == 0 {
                    return Ok(next);
                }
            }
        }
        end = start;
    }
    Ok(first)
}

fn unreadable(path: &Path, error: &io::Error) -> CliError {
    CliError::new(format!("cannot read `{}`", path.display())).because(error)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn tail_counts_lines_from_the_end() {
        let cases: [(&str, usize, &str); 6] = [
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nlogin: ", 2, "b\nlogin: "),
            ("a\nb\n", 2, "a\nb\n"),
            ("a\n", 5, "a\n"),
            ("\n\n\n", 1, "\n"),
            ("", 1, ""),
        ];
        for (text, lines, tail) in cases {
            let start = start_of_tail(&mut Cursor::new(text), 0, lines).unwrap();
            assert_eq!(&text[start as usize..], tail, "{text:?}");
        }
    }

    #[test]
    fn tail_is_found_across_blocks() {
        let long = "x".repeat(usize::try_from(BLOCK).unwrap() * 2);
        let text = format!("first\n{long}\nlast\n");
        let start = start_of_tail(&mut Cursor::new(&text), 0, 2).unwrap();
        assert_eq!(start, 6);
    }
}
