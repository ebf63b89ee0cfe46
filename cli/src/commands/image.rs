//! `image`: what images from the network are pinned to.

use std::collections::{BTreeMap, BTreeSet};

use tokio_util::sync::CancellationToken;
use vmctl_planner::pins::{Lock, LockFile, Locked, RemoteUse, named_urls, remote_images, shown_url};
use vmctl_planner::vmfile::Pins;
use vmctl_providers::image::RemoteImage;

use crate::args::{ImageArgs, ImageCommand, ImageUpdateArgs};
use crate::context::{Context, large_runtime};
use crate::error::{CliError, Exit, in_words};
use crate::{machines, ui};

/// Digits of a digest that tell one from another.
const DIGITS: usize = 12;

/// Runs the command.
pub(crate) fn run(ctx: &Context, args: &ImageArgs) -> Result<Exit, CliError> {
    match &args.command {
        ImageCommand::Update(args) => update(ctx, args),
    }
}

/// Moves pins to what servers have now. Those that cannot be had keep theirs, and the others move all the same.
fn update(ctx: &Context, args: &ImageUpdateArgs) -> Result<Exit, CliError> {
    let desired = ctx.load_with(Pins::Ignored)?.desired;
    let vmfile = desired.inputs.first().map(|input| input.path.clone());
    let file = LockFile::of(&vmfile.ok_or_else(|| CliError::new("the VMFile has no place"))?);
    let before = file.read().map_err(|error| CliError::of(&error).help(error.help().to_owned()))?;
    let before = before.map_or_else(Lock::default, |(lock, _)| lock);
    let all = remote_images(&desired);
    let chosen = choose(&all, &args.images)?;
    if chosen.is_empty() {
        ctx.note("The VMFile names no image from the network, so there is nothing to pin.");
    }
    let (images, options) = (ctx.images()?, ctx.fetch_options());
    let (runtime, cancel) = (large_runtime()?, CancellationToken::new());
    let (mut pins, mut failed) = (BTreeMap::new(), false);
    for image in chosen {
        let url = shown_url(image.url, &desired.secrets);
        let remote = RemoteImage { url: image.url.to_owned(), sha256: image.sha256.cloned() };
        ctx.note(&format!("{url} …"));
        match runtime.block_on(images.fetch(&remote, &options, &|_| {}, &cancel)) {
            Ok(fetched) => {
                let now =
                    Locked { sha256: fetched.sha256, upstream: fetched.upstream, image: fetched.identity };
                ui::print(&format!("{}\n", ui::visible(&told(&url, before.images.get(&url), &now))))?;
                pins.insert(url, now);
            }
            Err(error) => {
                failed = true;
                let help = error.help().map(|help| format!("; {help}")).unwrap_or_default();
                let reason = desired.secrets.hide(&in_words(&error));
                ui::warn(&format!("{url} keeps its pin: {reason}{help}"));
            }
        }
    }
    let moved: BTreeSet<_> = pins.keys().cloned().collect();
    file.write(&pins, &moved, &named_urls(&desired))
        .map_err(|error| CliError::of(&error).help(error.help().to_owned()))?;
    Ok(if failed { Exit::Error } else { Exit::Fine })
}

/// The images that are meant; all of them if none is named.
fn choose<'a>(all: &[RemoteUse<'a>], names: &[String]) -> Result<Vec<RemoteUse<'a>>, CliError> {
    if names.is_empty() {
        return Ok(all.to_vec());
    }
    let mut chosen: Vec<RemoteUse<'a>> = Vec::new();
    for name in names {
        let is_meant = |image: &&RemoteUse<'a>| {
            image.url == name
                || image.name == Some(name)
                || image.machines.iter().any(|machine| machine.as_str() == name)
        };
        let mut meant = all.iter().filter(is_meant).cloned().peekable();
        if meant.peek().is_none() {
            let machines = all.iter().flat_map(|image| &image.machines).map(|machine| machine.as_str());
            let known: Vec<_> = all.iter().filter_map(|image| image.name).chain(machines).collect();
            return Err(CliError::new(format!(
                "`{name}` is no image from the network that the VMFile names"
            ))
            .help(machines::suggestion(name, &known)));
        }
        chosen.extend(meant.filter(|image| !chosen.contains(image)).collect::<Vec<_>>());
    }
    Ok(chosen)
}

/// From what a pin moves to what.
fn told(url: &str, before: Option<&Locked>, now: &Locked) -> String {
    let short = |locked: &Locked| locked.sha256.hex().get(..DIGITS).unwrap_or(locked.sha256.hex()).to_owned();
    match before {
        None => format!("{url}: pinned to {}", short(now)),
        Some(before) if before.sha256 == now.sha256 => format!("{url}: unchanged, {}", short(now)),
        Some(before) => format!("{url}: {} => {}", short(before), short(now)),
    }
}
