//! Templates of machines: keeping one, making a machine from one, and what a machine from a template must have of its
//! own. See [`crate::template`] for what a template is.
//!
//! ```text
//!              first of its kind                            the next one
//!  prepare     an overlay on the image                      a copy of the template's disk
//!  start       boots, its memory can be kept                goes on from the template's memory, and is renewed;
//!              │                                            in doubt it boots, and is renewed once it answers
//!  ready       waited for                                   waited for
//!  provision   all steps                                    none
//!  keep        paused, copied, goes on ──▶ template         nothing
//! ```

mod keep;
mod renew;
mod wake;

use super::backend::QemuBackend;
use super::manifest::Manifest;
use super::places::publish;
use crate::error::{Error, Result};
use crate::failpoints::failpoint;
use crate::spec::{CloneStage, Cloned, Machine, MadeFrom, VmHandle, VmSpec, Warm};
use crate::template::{Template, Templates, clone_disk};
use crate::workdir::WorkDir;

impl QemuBackend {
    pub(super) fn templates(&self) -> Templates {
        Templates::new(&self.config().templates_dir)
    }

    /// The template that a machine is to be made from, if it is.
    pub(super) async fn template_of(&self, spec: &VmSpec) -> Result<Option<Box<Template>>> {
        let Some(warm) = spec.warm.as_ref().filter(|warm| warm.made_from != MadeFrom::Image) else {
            return Ok(None);
        };
        let (templates, key) = (self.templates(), warm.key.clone());
        let found = blocking(move || templates.find(&key)).await;
        match (found, warm.made_from) {
            (Ok(Some(template)), _) => Ok(Some(Box::new(template))),
            (Err(error), MadeFrom::TemplateOrImage) => {
                tracing::warn!(%error, "a template is passed over");
                Ok(None)
            }
            (Ok(None), MadeFrom::TemplateOrImage) => Ok(None),
            (Ok(None), MadeFrom::Image | MadeFrom::Template) => Err(Error::Unusable {
                path: self.templates().dir(&warm.key).path().to_owned(),
                reason: "the template that the machine was to be made from is gone; plan again".to_owned(),
            }),
            (Err(error), MadeFrom::Image | MadeFrom::Template) => Err(error),
        }
    }

    /// Makes the root disk of a machine from a template, where it is missing.
    pub(super) async fn ensure_cloned(&self, work: &WorkDir, template: &Template) -> Result<()> {
        if work.overlay().exists() {
            return Ok(());
        }
        let (dir, overlay) = (self.templates().dir(&template.key), work.overlay());
        blocking(move || {
            clone_disk(&dir, &overlay)?;
            failpoint!("prepare.qemu.cloned", &overlay);
            publish(&overlay)
        })
        .await
    }
}

/// What a machine's manifest says of templates when it is about to be made.
pub(super) fn founded(spec: &VmSpec, template: Option<&Template>) -> Option<Box<Warm>> {
    let warm = spec.warm.as_ref()?;
    let hostname = spec.cloud_init.as_ref().map(|config| config.hostname.clone()).unwrap_or_default();
    let cloned = template.map(|template| Cloned {
        created: template.created,
        source: template.source,
        user_key: template.user_key.clone(),
        hostname,
        stage: CloneStage::Fresh,
        cold: None,
    });
    Some(Box::new(Warm { key: warm.key.clone(), level: warm.level, cloned }))
}

/// The same with the cards' addresses of the template: the guest knows its cards by them.
pub(super) fn with_addresses(spec: &VmSpec, template: Option<&Template>) -> Box<VmSpec> {
    let mut spec = Box::new(spec.clone());
    for (nic, mac) in spec.machine.nics.iter_mut().zip(template.iter().flat_map(|template| &template.macs)) {
        nic.mac = *mac;
    }
    spec
}

/// Leaves the cards of a machine from a template the addresses that its guest knows them by.
pub(super) fn keep_addresses(manifest: &Manifest, machine: &mut Machine) {
    if stage(manifest).is_some() {
        for (nic, known) in machine.nics.iter_mut().zip(&manifest.machine.nics) {
            nic.mac = known.mac;
        }
    }
}

/// How far a machine from a template has come; `None` for others.
pub(super) fn stage(manifest: &Manifest) -> Option<CloneStage> {
    Some(manifest.warm.as_ref()?.cloned.as_ref()?.stage)
}

/// Whether a machine booted from a template's disk, and was not given all that must be its own yet.
pub(super) fn is_to_be_renewed(vm: &VmHandle) -> bool {
    let cloned = vm.warm.as_ref().and_then(|warm| warm.cloned.as_ref());
    cloned.is_some_and(|cloned| cloned.stage == CloneStage::Booting)
}

/// Remembers durably how far a machine from a template has come.
fn advance(manifest: &mut Manifest, work: &WorkDir, stage: CloneStage, cold: Option<String>) -> Result<()> {
    if let Some(cloned) = manifest.warm.as_mut().and_then(|warm| warm.cloned.as_mut()) {
        cloned.stage = stage;
        cloned.cold = cold;
        manifest.store(work)?;
    }
    Ok(())
}

/// Does what may take as long as a disk likes beside other machines' steps.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::io("work on", "a template")(std::io::Error::other(error))),
    }
}
