//! `vmctl`: plan and apply for virtual machines.
//!
//! This crate parses, prints, asks and exits; it decides nothing about machines.
//!
//! ```text
//! args ─▶ env (surroundings) ─▶ context (project, places, backends) ─▶ commands ─▶ ui (text, JSON)
//!                                                                         └──────▶ error (text, exit code)
//! ```

mod args;
mod aside;
mod commands;
mod complete;
mod context;
mod course;
mod descriptors;
mod download;
mod env;
mod error;
mod facts;
#[cfg(feature = "failpoints")]
mod failpoints;
mod fetching;
mod files;
mod interrupts;
mod logging;
mod machines;
mod output;
mod outputs;
mod own;
mod passphrase;
mod progress;
mod reach;
mod render;
mod report;
mod sarif;
mod saved;
mod stdin;
mod summary;
mod terminal;
mod ui;
mod watch;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use vmctl_planner::Turn;

use crate::args::{Cli, Command};
use crate::context::Context;
use crate::env::Settings;
use crate::error::{CliError, Exit};

fn main() -> ExitCode {
    complete::answer();
    let (cli, wants_json) = match args::parse() {
        Ok(parsed) => parsed,
        Err(error) => return error::usage(&error).into(),
    };
    ui::choose_color(cli.global.color);
    // What the panic was about is on stderr already. Whatever was held is given back on the way here.
    let ended = catch_unwind(AssertUnwindSafe(|| run(cli))).unwrap_or_else(|_| Err(CliError::panicked()));
    let exit = ended.unwrap_or_else(|error| {
        error.print();
        // A program that waits for a document is told why there is none; the text above is for people.
        if wants_json
            && !ui::has_printed()
            && let Err(failure) = error.print_json()
        {
            failure.print();
        }
        error.exit_code()
    });
    terminal::unhush();
    exit.into()
}

/// Carries one command out.
fn run(cli: Cli) -> Result<Exit, CliError> {
    let settings = Settings::read(&cli.global)?;
    logging::start(settings.log_filter.as_deref(), cli.global.verbose);
    #[cfg(feature = "failpoints")]
    failpoints::arm(&settings.environment)?;
    descriptors::raise();
    let ctx = Context::new(settings, cli.global);
    match cli.command {
        Command::Init(args) => commands::init::run(&ctx, &args),
        Command::Plan(args) => commands::plan::run(&ctx, &args),
        Command::Apply(args) => commands::apply::run(&ctx, &args),
        Command::Up(args) => commands::everyday::up(&ctx, args),
        Command::Create(args) => commands::create::run(&ctx, &args),
        Command::Import(args) => commands::import::run(&ctx, &args),
        Command::Down(args) => commands::everyday::down(&ctx, args),
        Command::Reload(args) => commands::everyday::reload(&ctx, args),
        Command::Provision(args) => commands::everyday::provision(&ctx, args),
        Command::Run(args) => commands::run::run(&ctx, &args),
        Command::Start(args) => commands::everyday::turn(&ctx, args, Turn::Start),
        Command::Stop(args) => commands::everyday::stop(&ctx, args),
        Command::Suspend(args) => commands::everyday::turn(&ctx, args, Turn::Suspend),
        Command::Resume(args) => commands::everyday::turn(&ctx, args, Turn::Resume),
        Command::Destroy(args) => commands::everyday::destroy(&ctx, args),
        Command::Events(args) => commands::events::run(&ctx, &args),
        Command::Drift(args) => commands::drift::run(&ctx, &args),
        Command::Show(args) => commands::show::run(&ctx, &args),
        Command::Output(args) => commands::output::run(&ctx, &args),
        Command::Graph(args) => commands::graph::run(&ctx, &args),
        Command::Taint(args) => commands::taint::taint(&ctx, &args),
        Command::Untaint(args) => commands::taint::untaint(&ctx, &args),
        Command::State(args) => commands::state::run(&ctx, &args),
        Command::List(args) => commands::list::run(&ctx, &args),
        Command::Vnc(args) => commands::vnc::run(&ctx, &args),
        Command::Status(args) => commands::status::run(&ctx, &args),
        Command::Ssh(args) => commands::ssh::run(&ctx, &args),
        Command::Exec(args) => commands::exec::run(&ctx, &args),
        Command::Cp(args) => commands::cp::run(&ctx, &args),
        Command::Wait(args) => commands::wait::run(&ctx, &args),
        Command::SshConfig(args) => commands::ssh_config::run(&ctx, &args.some),
        Command::Inventory(args) => commands::inventory::run(&ctx, &args),
        Command::Console(args) => commands::console::run(&ctx, &args),
        Command::Log(args) => commands::log::run(&ctx, &args),
        Command::Validate(args) => commands::validate::run(&ctx, &args),
        Command::Fmt(args) => commands::fmt::run(&ctx, &args),
        Command::Image(args) => commands::image::run(&ctx, &args),
        Command::Completions(args) => commands::manual::completions(&args),
        Command::Man(args) => commands::manual::man(&ctx, &args),
        Command::Doctor(args) => commands::doctor::run(&ctx, &args),
        #[cfg(feature = "failpoints")]
        Command::Failpoints => failpoints::list().map(|()| Exit::Fine),
    }
}
