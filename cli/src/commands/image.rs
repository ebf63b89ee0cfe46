//! `image`: the cache of disk images, and what fills it.

mod pinned;
mod templates;
mod update;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;

use jiff::Timestamp;
use serde::Serialize;
use vmctl_planner::apply::Control;
use vmctl_providers::Digest;
use vmctl_providers::image::{
    CachedImage, FetchOptions, Fetched, ImageCache, ImageError, RemoteImage, Upstream,
};

use self::pinned::Pinned;
use super::JSON_FORMAT;
use crate::args::{
    ImageArgs, ImageCommand, ImageInspectArgs, ImageListArgs, ImagePruneArgs, ImagePullArgs, ImageRmArgs,
};
use crate::context::{Context, large_runtime};
use crate::error::{CliError, Exit};
use crate::fetching::Fetching;
use crate::interrupts;
use crate::ui::{self, Table};

/// Digits of a digest that are shown where it is only to be told from others.
const SHORT: usize = 12;

/// Runs the command.
pub(crate) fn run(ctx: &Context, args: &ImageArgs) -> Result<Exit, CliError> {
    match &args.command {
        ImageCommand::Pull(args) => pull(ctx, args),
        ImageCommand::List(args) => list(ctx, args),
        ImageCommand::Inspect(args) => inspect(ctx, args),
        ImageCommand::Rm(args) => rm(ctx, args),
        ImageCommand::Prune(args) => prune(ctx, args),
        ImageCommand::Update(args) => update::update(ctx, args),
    }
}

#[derive(Serialize)]
struct Pulled<'a> {
    url: &'a str,
    sha256: &'a Digest,
    from_cache: bool,
    upstream: &'a Upstream,
    digest: &'a Digest,
    image_format: &'static str,
    path: String,
    virtual_size: u64,
}

fn pull(ctx: &Context, args: &ImagePullArgs) -> Result<Exit, CliError> {
    if args.sha256.is_some() && args.urls.len() > 1 {
        return Err(CliError::new("--sha256 is the digest of one image, and there are several URLs")
            .help("pull them one by one".to_owned())
            .exit(Exit::Usage));
    }
    let images = ctx.images()?;
    let options = ctx.settings.fetch_options();
    let control = Control::default();
    let _listening = interrupts::listen(&control)?;
    let runtime = large_runtime()?;
    let mut done: Vec<(String, Fetched)> = Vec::new();
    for url in &args.urls {
        let sha256 = args.sha256.as_deref().map(Digest::from_hex);
        let remote = RemoteImage { url: url.clone(), sha256 };
        let shown = Fetching::new(url, ctx.options.quiet || args.json);
        let fetched = runtime.block_on(fetch_shown(&images, &remote, &options, shown, &control));
        if control.drain.is_cancelled() && fetched.is_err() {
            let kept = "Stopped. What came so far is kept: the next pull goes on behind it.";
            ctx.note(kept);
            return Err(CliError::silent(Exit::Interrupted));
        }
        done.push((vmctl_providers::image::shown_url(url), fetched?));
    }
    if args.json {
        #[derive(Serialize)]
        struct Document<'a> {
            format: u32,
            images: Vec<Pulled<'a>>,
        }
        let images = done.iter().map(|(url, fetched)| pulled(url, fetched)).collect();
        ui::print_json(&Document { format: JSON_FORMAT, images })?;
    } else {
        for (url, fetched) in &done {
            let how = if fetched.from_cache { "was in the cache" } else { "fetched" };
            ctx.note(&format!("{url}: {how}, sha256 {}", fetched.sha256.hex()));
            ui::print(&format!("{}\n", fetched.image.path.display()))?;
        }
    }
    Ok(Exit::Fine)
}

/// Fetches, showing how far it is. The first Ctrl-C ends it.
async fn fetch_shown(
    images: &ImageCache,
    remote: &RemoteImage,
    options: &FetchOptions,
    shown: Fetching,
    control: &Control,
) -> Result<Fetched, ImageError> {
    let tell = Mutex::new(shown);
    let progress = |state| {
        if let Ok(mut shown) = tell.lock() {
            shown.show(state);
        }
    };
    images.fetch(remote, options, &progress, &control.drain).await
}

fn pulled<'a>(url: &'a str, fetched: &'a Fetched) -> Pulled<'a> {
    Pulled {
        url,
        sha256: &fetched.sha256,
        from_cache: fetched.from_cache,
        upstream: &fetched.upstream,
        digest: &fetched.identity.digest,
        image_format: fetched.identity.format.as_str(),
        path: fetched.image.path.display().to_string(),
        virtual_size: fetched.identity.virtual_size,
    }
}

/// Bytes in what stat(2) calls a block.
const BLOCK: u64 = 512;

/// An image as it is listed.
#[derive(Serialize)]
struct Listed {
    digest: Digest,
    image_format: &'static str,
    path: String,
    size: u64,
    allocated: u64,
    virtual_size: u64,
    origins: Vec<Origin>,
    used_by: Vec<String>,
    pinned_by: Vec<String>,
}

#[derive(Serialize)]
struct Origin {
    url: String,
    sha256: Digest,
    at: Timestamp,
}

/// A machine of any project, and the image that it was made from.
struct User {
    machine: String,
    digest: Digest,
}

/// Who needs which image.
struct Needs {
    users: Vec<User>,
    pinned: Vec<Pinned>,
}

impl Needs {
    fn of(ctx: &Context) -> Result<Self, CliError> {
        Ok(Self { users: users(ctx)?, pinned: pinned::pinned(ctx)? })
    }

    /// The machines that need `image`.
    fn machines(&self, image: &CachedImage) -> BTreeSet<&str> {
        let users = self.users.iter().filter(|user| user.digest == image.image.digest);
        users.map(|user| user.machine.as_str()).collect()
    }

    /// The digests of all that machines need or lock files pin, of what is in the cache.
    fn kept(&self, images: &ImageCache) -> Result<BTreeSet<Digest>, CliError> {
        let pinned = images.list()?.into_iter().filter(|image| !pinned::by(&self.pinned, image).is_empty());
        let pinned = pinned.map(|image| image.image.digest);
        Ok(self.users.iter().map(|user| user.digest.clone()).chain(pinned).collect())
    }
}

fn unclear(machine: &str, error: &serde_json::Error) -> CliError {
    CliError::new(format!("cannot tell which image `{machine}` needs")).because(error)
}

/// The machines of all projects with their images, as records and machines' folders name them.
fn users(ctx: &Context) -> Result<Vec<User>, CliError> {
    let mut users = Vec::new();
    for project in ctx.projects()? {
        let dir = ctx.project_dir(&project)?;
        // One that cannot be read must not lose its images.
        let snapshot = vmctl_state::read(&dir)?;
        for record in snapshot.iter().flat_map(|snapshot| snapshot.records.values()) {
            let machine = format!("{project}/{}", record.address.name());
            for told in std::iter::once(&record.spec).chain(&record.handle) {
                let value = told.value().map_err(|error| unclear(&machine, &error))?;
                users.extend(
                    digests(&value).into_iter().map(|digest| User { machine: machine.clone(), digest }),
                );
            }
        }
        for folder in fs::read_dir(dir.vms()).into_iter().flatten().flatten() {
            let machine = format!("{project}/{}", folder.file_name().to_string_lossy());
            for file in ["manifest.json", "machine.json"] {
                let Ok(text) = fs::read(folder.path().join(file)) else { continue };
                let value: serde_json::Value =
                    serde_json::from_slice(&text).map_err(|error| unclear(&machine, &error))?;
                users.extend(
                    digests(&value).into_iter().map(|digest| User { machine: machine.clone(), digest }),
                );
            }
        }
    }
    Ok(users)
}

/// Every digest in a document, wherever it stands: one too many keeps an image, one too few would lose one.
fn digests(value: &impl Serialize) -> Vec<Digest> {
    fn collect(value: &serde_json::Value, found: &mut Vec<Digest>) {
        match value {
            serde_json::Value::String(text) => {
                found
                    .extend(text.strip_prefix("sha256:").filter(|hex| hex.len() == 64).map(Digest::from_hex));
            }
            serde_json::Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
            serde_json::Value::Object(values) => values.values().for_each(|value| collect(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    // A value that came from JSON goes back into it.
    collect(&serde_json::to_value(value).unwrap_or_default(), &mut found);
    found.sort();
    found.dedup();
    found
}

fn listed(image: CachedImage, needs: &Needs) -> Listed {
    Listed {
        used_by: needs.machines(&image).into_iter().map(str::to_owned).collect(),
        pinned_by: pinned::by(&needs.pinned, &image),
        digest: image.image.digest,
        image_format: image.image.format.as_str(),
        path: image.image.path.display().to_string(),
        size: image.length,
        allocated: image.allocated,
        virtual_size: image.image.virtual_size,
        origins: image
            .origins
            .into_iter()
            .map(|origin| Origin { url: origin.url, sha256: origin.sha256, at: origin.at })
            .collect(),
    }
}

fn list(ctx: &Context, args: &ImageListArgs) -> Result<Exit, CliError> {
    let needs = Needs::of(ctx)?;
    let images: Vec<_> = ctx.images()?.list()?.into_iter().map(|image| listed(image, &needs)).collect();
    let templates = templates::list(ctx)?;
    if args.json {
        #[derive(Serialize)]
        struct Document {
            format: u32,
            images: Vec<Listed>,
            templates: Vec<templates::Listed>,
        }
        ui::print_json(&Document { format: JSON_FORMAT, images, templates })?;
    } else if images.is_empty() && templates.is_empty() {
        ctx.note(
            "No images in the cache. `vmctl image pull URL` fetches one; `vmctl apply` those of the VMFile.",
        );
    } else {
        let mut table = Table::new(&["DIGEST", "FORMAT", "ON DISK", "VIRTUAL", "USED BY", "FROM"]);
        for image in &images {
            let users = match (&image.used_by[..], &image.pinned_by[..]) {
                ([], []) => "-".to_owned(),
                ([], _) => "(pinned)".to_owned(),
                (users, _) => users.join(" "),
            };
            table.row([
                image.digest.hex()[..SHORT].to_owned(),
                image.image_format.to_owned(),
                ui::bytes(image.allocated),
                ui::bytes(image.virtual_size),
                users,
                image.origins.first().map_or_else(|| "-".to_owned(), |origin| origin.url.clone()),
            ]);
        }
        ui::print(&table.render())?;
        ui::print(&ui::visible(&templates::table(&templates)))?;
    }
    Ok(Exit::Fine)
}

/// The one image that `text` names.
fn find(images: &ImageCache, text: &str) -> Result<CachedImage, CliError> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
    let all = images.list()?;
    let is_meant = |image: &CachedImage| {
        image.image.digest.hex().starts_with(&digits)
            || image.origins.iter().any(|origin| origin.sha256.hex().starts_with(&digits))
    };
    let mut found: Vec<_> = all.into_iter().filter(|image| !digits.is_empty() && is_meant(image)).collect();
    match (found.pop(), found.len()) {
        (Some(image), 0) => Ok(image),
        (None, _) => Err(CliError::new(format!("no image in the cache begins with `{text}`"))
            .help("`vmctl image list` shows them".to_owned())),
        (Some(_), more) => Err(CliError::new(format!("`{text}` is the beginning of {} images", more + 1))
            .help("write more digits; `vmctl image list` shows them".to_owned())),
    }
}

/// What a file of this host is, in the cache or not.
fn of_file(images: &ImageCache, path: &Path, needs: &Needs) -> Result<Listed, CliError> {
    let identity = images.identify(path)?;
    let cached = images.list()?.into_iter().find(|image| image.image.digest == identity.digest);
    let cached = cached.map(|image| listed(image, needs));
    let file = fs::metadata(path)
        .map_err(|error| CliError::new(format!("cannot look at `{}`", path.display())).because(&error))?;
    Ok(Listed {
        digest: identity.digest,
        image_format: identity.format.as_str(),
        path: path.display().to_string(),
        size: file.len(),
        allocated: file.blocks() * BLOCK,
        virtual_size: identity.virtual_size,
        used_by: cached.as_ref().map(|image| image.used_by.clone()).unwrap_or_default(),
        pinned_by: cached.as_ref().map(|image| image.pinned_by.clone()).unwrap_or_default(),
        origins: cached.map(|image| image.origins).unwrap_or_default(),
    })
}

fn inspect(ctx: &Context, args: &ImageInspectArgs) -> Result<Exit, CliError> {
    let images = ctx.images()?;
    let needs = Needs::of(ctx)?;
    let path = ctx.settings.cwd.join(&args.image);
    let is_digits = args.image.bytes().all(|byte| byte.is_ascii_hexdigit());
    let image = if !is_digits && path.is_file() {
        of_file(&images, &path, &needs)?
    } else {
        listed(find(&images, &args.image)?, &needs)
    };
    if args.json {
        #[derive(Serialize)]
        struct Document {
            format: u32,
            image: Listed,
        }
        ui::print_json(&Document { format: JSON_FORMAT, image })?;
        return Ok(Exit::Fine);
    }
    let mut lines = vec![
        format!("digest        {}", image.digest),
        format!("format        {}", image.image_format),
        format!("path          {}", image.path),
        format!("size          {} ({} on disk)", ui::bytes(image.size), ui::bytes(image.allocated)),
        format!("virtual size  {}", ui::bytes(image.virtual_size)),
    ];
    for origin in &image.origins {
        lines.push(format!("from          {}", origin.url));
        lines.push(format!("              sha256 {}, {}", origin.sha256.hex(), origin.at));
    }
    let users = if image.used_by.is_empty() { "no machine".to_owned() } else { image.used_by.join(" ") };
    lines.push(format!("used by       {users}"));
    lines.extend(image.pinned_by.iter().map(|path| format!("pinned by     {path}")));
    ui::print(&format!("{}\n", ui::visible(&lines.join("\n"))))?;
    Ok(Exit::Fine)
}

/// Keeps others from making machines of images while some are removed. Dropping it lets them go on.
fn keep_others_out(ctx: &Context) -> Result<Vec<File>, CliError> {
    let mut held = Vec::new();
    for project in ctx.projects()? {
        let path = ctx.project_dir(&project)?.path().join("lock");
        // A project that nobody ever wrote to has none.
        let Ok(lock) = File::open(&path) else { continue };
        if lock.try_lock_shared().is_err() {
            return Err(CliError::new(format!("another vmctl works on project `{project}`"))
                .help(
                    "it may need an image that no machine has yet: remove images when it is done".to_owned(),
                )
                .exit(Exit::Locked));
        }
        held.push(lock);
    }
    Ok(held)
}

/// What was removed, or would be.
#[derive(Serialize)]
struct Removed {
    format: u32,
    dry_run: bool,
    removed: Vec<Listed>,
    templates: Vec<templates::Listed>,
    /// Files of downloads that were broken off.
    downloads: usize,
    freed_bytes: u64,
}

impl Removed {
    fn tell(&self, json: bool) -> Result<Exit, CliError> {
        if json {
            ui::print_json(self)?;
            return Ok(Exit::Fine);
        }
        let mut text = String::new();
        for image in &self.removed {
            let from = image.origins.first().map(|origin| format!(" ({})", origin.url)).unwrap_or_default();
            text.push_str(&format!(
                "{} {}{from}\n",
                &image.digest.hex()[..SHORT],
                ui::bytes(image.allocated)
            ));
        }
        self.templates.iter().for_each(|template| text.push_str(&template.line()));
        let word = if self.dry_run { "would be freed" } else { "freed" };
        text.push_str(&format!("{} {word}\n", ui::bytes(self.freed_bytes)));
        ui::print(&ui::visible(&text))?;
        Ok(Exit::Fine)
    }
}

fn rm(ctx: &Context, args: &ImageRmArgs) -> Result<Exit, CliError> {
    let images = ctx.images()?;
    let _held = keep_others_out(ctx)?;
    let needs = Needs::of(ctx)?;
    let mut chosen: Vec<CachedImage> = Vec::new();
    for text in &args.images {
        let image = find(&images, text)?;
        let used = needs.machines(&image);
        if !used.is_empty() {
            let used: Vec<&str> = used.into_iter().collect();
            return Err(CliError::new(format!(
                "the image {} is needed by {}",
                &image.image.digest.hex()[..SHORT],
                used.join(", ")
            ))
            .help("destroy or replace the machines first".to_owned()));
        }
        if !chosen.contains(&image) {
            chosen.push(image);
        }
    }
    for image in &chosen {
        images.remove(image)?;
    }
    let digests = chosen.iter().map(|image| image.image.digest.clone()).collect();
    let templates = templates::remove(ctx, templates::not_among(&digests), false)?;
    let freed_bytes = chosen.iter().map(|image| image.allocated).sum::<u64>() + room(&templates);
    let removed = chosen.into_iter().map(|image| listed(image, &needs)).collect();
    Removed { format: JSON_FORMAT, dry_run: false, removed, templates, downloads: 0, freed_bytes }
        .tell(args.json)
}

fn room(templates: &[templates::Listed]) -> u64 {
    templates.iter().map(templates::Listed::allocated).sum()
}

fn prune(ctx: &Context, args: &ImagePruneArgs) -> Result<Exit, CliError> {
    let images = ctx.images()?;
    let _held = keep_others_out(ctx)?;
    let needs = Needs::of(ctx)?;
    let used = needs.kept(&images)?;
    let unused = if args.dry_run { images.unused(&used)? } else { images.prune(&used)? };
    let is_needed = |image: &Digest| !args.templates && used.contains(image);
    let templates = templates::remove(ctx, is_needed, args.dry_run)?;
    let freed_bytes = unused.bytes() + room(&templates);
    let downloads = unused.downloads.len();
    let removed = unused.images.into_iter().map(|image| listed(image, &needs)).collect();
    Removed { format: JSON_FORMAT, dry_run: args.dry_run, removed, templates, downloads, freed_bytes }
        .tell(args.json)
}
