//! Templates of machines, as `image` lists and removes them: without the image below its disk, one is of no use.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;
use vmctl_providers::template::Found;
use vmctl_providers::{Digest, WarmLevel};

use super::SHORT;
use crate::context::Context;
use crate::error::CliError;
use crate::ui::{self, Table};

/// A template as it is listed.
#[derive(Serialize)]
pub(super) struct Listed {
    path: String,
    allocated: u64,
    /// Of one that is of no use nothing else is known.
    key: Option<Digest>,
    created: Option<Timestamp>,
    level: Option<WarmLevel>,
    of: Option<String>,
    image: Option<Digest>,
    problem: Option<String>,
}

impl Listed {
    pub(super) fn allocated(&self) -> u64 {
        self.allocated
    }

    /// A line about one that is removed.
    pub(super) fn line(&self) -> String {
        let what = match (&self.of, &self.problem) {
            (Some(of), _) => format!("template of {of}"),
            (None, problem) => format!("template: {}", problem.as_deref().unwrap_or_default()),
        };
        format!("{} {} ({what})\n", self.short(), ui::bytes(self.allocated))
    }

    fn short(&self) -> String {
        self.key.as_ref().map_or_else(|| "-".to_owned(), |key| key.hex()[..SHORT].to_owned())
    }
}

impl From<&Found> for Listed {
    fn from(found: &Found) -> Self {
        let template = found.content.as_ref().ok();
        Self {
            path: found.path.display().to_string(),
            allocated: found.bytes,
            key: template.map(|template| template.key.clone()),
            created: template.map(|template| template.created),
            level: template.map(|template| template.level()),
            of: template.map(|template| format!("{}/{}", template.project, template.name)),
            image: template.map(|template| template.image.clone()),
            problem: found.content.as_ref().err().cloned(),
        }
    }
}

/// All of them.
pub(super) fn list(ctx: &Context) -> Result<Vec<Listed>, CliError> {
    Ok(ctx.templates()?.list()?.iter().map(Listed::from).collect())
}

/// Removes those that `is_needed` says nothing for, by the digest of their image, and all that are of no use; with
/// `dry_run`, only tells which.
pub(super) fn remove(
    ctx: &Context,
    is_needed: impl Fn(&Digest) -> bool,
    dry_run: bool,
) -> Result<Vec<Listed>, CliError> {
    let templates = ctx.templates()?;
    let mut removed = Vec::new();
    for found in templates.list()? {
        if !found.content.as_ref().is_ok_and(|template| is_needed(&template.image)) {
            if !dry_run {
                templates.remove(&found)?;
            }
            removed.push(Listed::from(&found));
        }
    }
    Ok(removed)
}

/// The images that are removed, by which templates that lie on them go as well.
pub(super) fn not_among(removed: &BTreeSet<Digest>) -> impl Fn(&Digest) -> bool {
    move |image| !removed.contains(image)
}

/// Their table; empty if there are none.
pub(super) fn table(templates: &[Listed]) -> String {
    if templates.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["TEMPLATE", "OF", "KEEPS", "ON DISK", "KEPT"]);
    for template in templates {
        table.row([
            template.short(),
            template.of.clone().or_else(|| template.problem.clone()).unwrap_or_default(),
            template.level.map_or("-", WarmLevel::as_str).to_owned(),
            ui::bytes(template.allocated),
            template
                .created
                .map_or_else(|| "-".to_owned(), |created| created.strftime("%Y-%m-%d %H:%M").to_string()),
        ]);
    }
    format!("\n{}", table.render())
}
