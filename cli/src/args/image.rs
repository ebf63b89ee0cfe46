//! Options of the commands about images from the network.

use clap::{Args, Subcommand};

/// Options of `image`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  vmctl image update\n  vmctl image update debian")]
pub(crate) struct ImageArgs {
    #[command(subcommand)]
    pub(crate) command: ImageCommand,
}

/// What is done with images.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Pin images of the VMFile to what their servers have now
    Update(ImageUpdateArgs),
}

/// Options of `image update`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  vmctl image update\n  vmctl image update debian\n  vmctl image update https://example.org/debian.qcow2\n\nDownloads what moved and writes VMFile.lock; no machine is touched, and the next plan shows what is replaced."
)]
pub(crate) struct ImageUpdateArgs {
    /// Images, by the name that the VMFile gives them, by a machine of theirs, or by URL [default: all]
    #[arg(value_name = "NAME|URL")]
    pub(crate) images: Vec<String>,
}
