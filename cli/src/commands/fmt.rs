//! `fmt`: rewrites VMFiles in their canonical form.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use vmctl_planner::texts;
use vmctl_planner::vmfile;

use crate::args::FmtArgs;
use crate::context::Context;
use crate::error::{CliError, Exit};
use crate::{files, ui};

/// What people write for standard input.
const STDIN: &str = "-";

/// Runs the command; exit 1 if `--check` finds something to change. A file that cannot be formatted stops no other.
pub(crate) fn run(ctx: &Context, args: &FmtArgs) -> Result<Exit, CliError> {
    if args.files.iter().any(|file| file.as_os_str() == STDIN) {
        return if args.files.len() == 1 { standard_input(args.check) } else { Err(not_alone()) };
    }
    let paths: Vec<PathBuf> = match args.files.as_slice() {
        [] => vec![ctx.vmfile()?],
        files => files.iter().map(|file| ctx.settings.cwd.join(file)).collect(),
    };
    let mut exit = Exit::Fine;
    for path in paths {
        let done = file(&path, args.check).unwrap_or_else(|error| {
            error.print();
            error.exit_code()
        });
        if done != Exit::Fine {
            exit = done;
        }
    }
    Ok(exit)
}

fn not_alone() -> CliError {
    CliError::new("`-` is standard input, and there are files besides")
        .help("format them by another run".to_owned())
        .exit(Exit::Usage)
}

fn file(path: &Path, check: bool) -> Result<Exit, CliError> {
    let name = path.display().to_string();
    let before = vmfile::text(path)?;
    let after = vmfile::format(&name, &before)?;
    if after == before {
        return Ok(Exit::Fine);
    }
    if check {
        return show(&name, &before, &after);
    }
    files::rewrite(path, after.as_bytes())?;
    ui::print(&format!("{}\n", ui::visible(&name)))?;
    Ok(Exit::Fine)
}

fn standard_input(check: bool) -> Result<Exit, CliError> {
    const NAME: &str = "standard input";
    let mut before = String::new();
    // One byte more than the formatter takes, so that it is the one who says that it is too much.
    let limit = vmfile::MAX_BYTES as u64 + 1;
    io::stdin()
        .lock()
        .take(limit)
        .read_to_string(&mut before)
        .map_err(|error| CliError::new(format!("cannot read {NAME}")).because(&error))?;
    let after = vmfile::format(NAME, &before)?;
    if check && after != before {
        return show(NAME, &before, &after);
    }
    if !check {
        ui::print_bytes(after.as_bytes())?;
    }
    Ok(Exit::Fine)
}

/// Prints what would change.
fn show(name: &str, before: &str, after: &str) -> Result<Exit, CliError> {
    let diff = texts::diff(name, before, after).diff;
    let head = [format!("--- {name}"), format!("+++ {name}, formatted")];
    let lines = head.iter().map(String::as_str).chain(diff.lines()).map(|line| ui::diff_line(line) + "\n");
    // Whoever reads no further is told all the same that something would change.
    ui::print(&lines.collect::<String>()).map_err(|error| error.exit(Exit::Error))?;
    Ok(Exit::Error)
}
