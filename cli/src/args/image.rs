//! Options of `image` and its commands.

use clap::{Args, Subcommand};

/// Options of `image`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl image pull https://example.org/debian.qcow2.xz
  vmctl image list
  vmctl image prune --dry-run

Images lie in the data folder, named by their digests, and are never written to again.")]
pub(crate) struct ImageArgs {
    /// What to do
    #[command(subcommand)]
    pub(crate) command: ImageCommand,
}

/// What to do with the image cache.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Fetch images from servers
    Pull(ImagePullArgs),
    /// List the images in the cache
    List(ImageListArgs),
    /// Show everything known about one image
    Inspect(ImageInspectArgs),
    /// Remove images that no machine needs
    Rm(ImageRmArgs),
    /// Remove all images that no machine needs, their templates, and downloads that were broken off
    Prune(ImagePruneArgs),
    /// Pin images of the VMFile to what their servers have now
    Update(ImageUpdateArgs),
}

/// Options of `image pull`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl image pull https://example.org/debian.qcow2
  vmctl image pull https://example.org/debian.qcow2 --sha256 \"$SHA256\"
  vmctl image pull oci://ghcr.io/team/debian:12

A download that was broken off goes on where it ended. Compressed images (zstd, gzip, xz, bzip2) are \
unpacked; vmdk, vdi, vhdx and vhd become qcow2. Plain http needs --sha256, unless the server is on \
the loopback. Proxies: HTTPS_PROXY, http_proxy, ALL_PROXY, NO_PROXY; certificates: VMCTL_CA_FILE; \
logins: Docker's config.json and its credential helpers, GITHUB_TOKEN for ghcr.io.")]
pub(crate) struct ImagePullArgs {
    /// Images, as https://…, http://… or oci://host/name:tag
    #[arg(required = true, value_name = "URL")]
    pub(crate) urls: Vec<String>,
    /// Digest of the file as it lies on the server; for one URL
    #[arg(long, value_name = "DIGEST", value_parser = digest)]
    pub(crate) sha256: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `image list`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl image list
  vmctl image list --json | jq -r '.images[].digest'")]
pub(crate) struct ImageListArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `image inspect`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl image inspect 3fa9
  vmctl image inspect ./debian.qcow2
  vmctl image inspect sha256:3fa9… --json")]
pub(crate) struct ImageInspectArgs {
    /// Digest of an image in the cache, or its first digits; or an image file of this host
    #[arg(value_name = "DIGEST|PATH")]
    pub(crate) image: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `image rm`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl image rm 3fa9

An image that a machine of any project needs is kept, and that is an error.")]
pub(crate) struct ImageRmArgs {
    /// Digests of images, or their first digits
    #[arg(required = true, value_name = "DIGEST")]
    pub(crate) images: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `image prune`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl image prune --dry-run
  vmctl image prune
  vmctl image prune --templates

An image is needed by the machines of all projects in the data folder that were made from it. \
Templates go with the image below their disks; machines that were made from them go on. Nothing is \
removed while another vmctl works on one of them.")]
pub(crate) struct ImagePruneArgs {
    /// Remove all templates as well
    #[arg(long)]
    pub(crate) templates: bool,
    /// Remove nothing, and say what would go
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Takes 64 hexadecimal digits, with or without `sha256:` in front.
pub(super) fn digest(text: &str) -> Result<String, String> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
    if digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(digits);
    }
    Err("a SHA-256 digest has 64 hexadecimal digits; `sha256sum FILE` prints it".to_owned())
}

/// Options of `image update`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl image update
  vmctl image update debian
  vmctl image update https://example.org/debian.qcow2

Downloads what moved and writes VMFile.lock; no machine is touched, and the next plan shows what is \
replaced.")]
pub(crate) struct ImageUpdateArgs {
    /// Images, by the name that the VMFile gives them, by a machine of theirs, or by URL [default: all]
    #[arg(value_name = "NAME|URL")]
    pub(crate) images: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
