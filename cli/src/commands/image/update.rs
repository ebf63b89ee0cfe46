//! `image update`: what images from the network are pinned to.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use vmctl_planner::apply::Control;
use vmctl_planner::pins::{Lock, LockFile, Locked, RemoteUse, named_urls, remote_images, shown_url};
use vmctl_planner::vmfile::Pins;
use vmctl_providers::Digest;
use vmctl_providers::image::RemoteImage;

use super::fetch_shown;
use crate::args::ImageUpdateArgs;
use crate::commands::JSON_FORMAT;
use crate::context::{Context, large_runtime};
use crate::error::{CliError, Exit, in_words};
use crate::fetching::Fetching;
use crate::{interrupts, machines, ui};

/// Digits of a digest that tell one from another.
const DIGITS: usize = 12;

/// What became of one pin.
#[derive(Serialize)]
struct Updated {
    url: String,
    outcome: Outcome,
    before: Option<Digest>,
    sha256: Option<Digest>,
    digest: Option<Digest>,
    error: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    /// It had none.
    Pinned,
    Unchanged,
    Moved,
    /// The image could not be had, and the pin is what it was.
    Failed,
}

/// Moves pins to what servers have now. Those that cannot be had keep theirs, and the others move all the same; who is
/// asked to stop keeps what moved so far.
pub(super) fn update(ctx: &Context, args: &ImageUpdateArgs) -> Result<Exit, CliError> {
    let desired = ctx.load_with(Pins::Ignored)?.desired;
    let vmfile = desired.inputs.first().map(|input| input.path.clone());
    let vmfile = vmfile.ok_or_else(|| CliError::new("the VMFile has no place"))?;
    let file = LockFile::of(&vmfile);
    let before = file.read().map_err(|error| CliError::of(&error).help(error.help().to_owned()))?;
    let before = before.map_or_else(Lock::default, |(lock, _)| lock);
    let all = remote_images(&desired);
    let chosen = choose(&all, &args.images)?;
    if chosen.is_empty() {
        ctx.note("The VMFile names no image from the network, so there is nothing to pin.");
    }
    let (images, options) = (ctx.images()?, ctx.settings.fetch_options());
    let control = Control::default();
    let _listening = interrupts::listen(&control)?;
    let runtime = large_runtime()?;
    let (mut pins, mut updated) = (BTreeMap::new(), Vec::new());
    for image in chosen.iter().take_while(|_| !control.drain.is_cancelled()) {
        let url = shown_url(image.url, &desired.secrets);
        let remote = RemoteImage { url: image.url.to_owned(), sha256: image.sha256.cloned() };
        let shown = Fetching::new(&url, ctx.options.quiet || args.json);
        let fetched = runtime.block_on(fetch_shown(&images, &remote, &options, shown, &control));
        let known = before.images.get(&url);
        let one = match fetched {
            Ok(fetched) => {
                let now =
                    Locked { sha256: fetched.sha256, upstream: fetched.upstream, image: fetched.identity };
                let one = Updated::to(&url, known, &now);
                pins.insert(url, now);
                one
            }
            Err(_) if control.drain.is_cancelled() => break,
            Err(error) => {
                let help = error.help().map(|help| format!("; {help}")).unwrap_or_default();
                let reason = desired.secrets.hide(&in_words(&error));
                Updated::failed(&url, known, format!("{reason}{help}"))
            }
        };
        if !args.json {
            one.tell()?;
        }
        updated.push(one);
    }
    let moved: BTreeSet<_> = pins.keys().cloned().collect();
    file.write(&pins, &moved, &named_urls(&desired))
        .map_err(|error| CliError::of(&error).help(error.help().to_owned()))?;
    if !pins.is_empty() {
        ctx.remember_pins(&vmfile);
    }
    let has_failed = updated.iter().any(|one| one.outcome == Outcome::Failed);
    if args.json {
        #[derive(Serialize)]
        struct Document {
            format: u32,
            pins: Vec<Updated>,
        }
        ui::print_json(&Document { format: JSON_FORMAT, pins: updated })?;
    }
    Ok(match () {
        () if control.drain.is_cancelled() => {
            ctx.note("Stopped. What moved before is pinned; what came of the rest is kept.");
            Exit::Interrupted
        }
        () if has_failed => Exit::Error,
        () => Exit::Fine,
    })
}

impl Updated {
    fn to(url: &str, before: Option<&Locked>, now: &Locked) -> Self {
        let outcome = match before {
            None => Outcome::Pinned,
            Some(before) if before.sha256 == now.sha256 => Outcome::Unchanged,
            Some(_) => Outcome::Moved,
        };
        Self {
            url: url.to_owned(),
            outcome,
            before: before.map(|before| before.sha256.clone()),
            sha256: Some(now.sha256.clone()),
            digest: Some(now.image.digest.clone()),
            error: None,
        }
    }

    fn failed(url: &str, before: Option<&Locked>, error: String) -> Self {
        Self {
            url: url.to_owned(),
            outcome: Outcome::Failed,
            before: before.map(|before| before.sha256.clone()),
            sha256: before.map(|before| before.sha256.clone()),
            digest: before.map(|before| before.image.digest.clone()),
            error: Some(error),
        }
    }

    /// In words: from what the pin moved to what.
    fn tell(&self) -> Result<(), CliError> {
        let short = |digest: &Option<Digest>| {
            let hex = digest.as_ref().map_or("", Digest::hex);
            hex.get(..DIGITS).unwrap_or(hex).to_owned()
        };
        let (url, now) = (&self.url, short(&self.sha256));
        let text = match self.outcome {
            Outcome::Pinned => format!("{url}: pinned to {now}"),
            Outcome::Unchanged => format!("{url}: unchanged, {now}"),
            Outcome::Moved => format!("{url}: {} => {now}", short(&self.before)),
            Outcome::Failed => {
                let error = self.error.as_deref().unwrap_or_default();
                ui::warn(&format!("{url} keeps its pin: {error}"));
                return Ok(());
            }
        };
        ui::print(&format!("{}\n", ui::visible(&text)))
    }
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
