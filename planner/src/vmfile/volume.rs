//! Volumes of the file and of its machines, and what machines see of the host: folders, and files as disks.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use miette::SourceSpan;
use vmctl_providers::media::check;
use vmctl_providers::{Error, Name, ShareDriver};

use super::ast::{Node, Spanned};
use super::expand::unused;
use super::fields::{Fields, Parts, shorten};
use super::grammar::{PREVENT_DESTROY, SHARE, SHARE_DRIVERS, VOLUME};
use super::report::Fault;
use super::resolve::{Resolver, unknown};
use super::typed::{File, Share, Vm, Volume};
use super::words::is_guest_path;
use crate::desired;

impl Fields {
    pub(super) fn volume(&mut self, node: &Node) -> Option<Volume> {
        let parts = Parts::of(node);
        let name = self.definition_name(&parts, &VOLUME)?;
        let size_mib = match (parts.prop("size"), VOLUME.prop("size")) {
            (Some(value), Some(prop)) => {
                self.size("size", value, prop.kind, "`size=\"10G\"`").map(|size| size.value)
            }
            _ => {
                if parts.sound {
                    self.tell(
                        Fault::error(
                            "vmfile::missing",
                            format!("the volume `{}` has no size", shorten(&name.value)),
                        )
                        .at(name.span, "needs `size`")
                        .help(format!("write {}", VOLUME.usage)),
                    );
                }
                None
            }
        };
        let prevent_destroy =
            parts.child(PREVENT_DESTROY.name).is_some_and(|node| self.flag(node, &PREVENT_DESTROY));
        Some(Volume { name: self.name("volume", name)?, size_mib, prevent_destroy })
    }

    pub(super) fn share(&mut self, node: &Node) -> Option<Share> {
        let parts = Parts::of(node);
        if parts.args.len() < SHARE.args.least() {
            if parts.sound {
                let missing = if parts.args.is_empty() {
                    "a folder and a path must follow"
                } else {
                    "the path in the guest must follow"
                };
                self.tell(
                    Fault::error(
                        "vmfile::missing",
                        "`share` names a folder of the host and a path in the guest",
                    )
                    .at(node.name.span, missing)
                    .help(format!("write {}", SHARE.usage)),
                );
            }
            return None;
        }
        let source = self.text("share", parts.args.first()?, SHARE.usage);
        let target = self.text("share", parts.args.get(1)?, SHARE.usage).filter(|target| {
            let is_path = is_guest_path(&target.value);
            if !is_path {
                let message = format!("`{}` is no path in the guest", shorten(&target.value));
                self.tell(
                    Fault::error("vmfile::bad-value", message)
                        .at(target.span, "not absolute")
                        .help("write an absolute path without `..`, such as `/mnt/src`"),
                );
            }
            is_path
        });
        let readonly = match parts.args.get(2) {
            None => Some(false),
            Some(value) => self
                .text("share", value, SHARE.usage)
                .and_then(|text| self.choice("option of `share`", &text, &[("readonly", true)]))
                .map(|readonly| readonly.value),
        };
        let driver = match parts.prop("driver") {
            None => Some(ShareDriver::default()),
            Some(value) => self
                .text("driver", value, "`driver=\"virtiofs\"`")
                .and_then(|text| self.choice("driver of `share`", &text, &SHARE_DRIVERS))
                .map(|driver| driver.value),
        };
        Some(Share { source: source?, target: target?, readonly: readonly?, driver: driver? })
    }
}

impl Resolver<'_> {
    /// The volumes, and everything that is wrong with them and with whom they belong to.
    pub(super) fn volumes(&mut self, file: &File) -> BTreeMap<Name, desired::Volume> {
        let known: HashSet<&str> = file.volumes.iter().map(|volume| volume.name.value.as_str()).collect();
        let mut owners: HashMap<&str, (&Name, SourceSpan)> = HashMap::new();
        for (vm, volume) in file.vms.iter().flat_map(|vm| vm.volumes.iter().map(move |volume| (vm, volume))) {
            let name = volume.value.as_str();
            if !known.contains(name) {
                let known = known.iter().copied();
                self.tell(unknown("volume", name, volume.span, known, "`volume \"data\" size=\"10G\"`"));
            } else if let Some(first) = owners.get(name) {
                self.tell(shared(volume, &vm.name.value, *first));
            } else {
                owners.insert(name, (&vm.name.value, volume.span));
            }
        }
        for volume in file.volumes.iter().filter(|volume| !owners.contains_key(volume.name.value.as_str())) {
            let name = Spanned { value: volume.name.value.as_str(), span: volume.name.span };
            self.tell(unused("volume", &name, &format!("`volume \"{}\"` in a `vm`", name.value)));
        }
        let volume = |volume: &Volume| {
            let size_bytes = volume.size_mib.unwrap_or_default() << 20;
            (
                volume.name.value.clone(),
                desired::Volume { size_bytes, prevent_destroy: volume.prevent_destroy },
            )
        };
        file.volumes.iter().map(volume).collect()
    }

    /// The folders that `vm` shares, as far as they can be used.
    pub(super) fn shares(&mut self, vm: &Vm) -> Vec<Option<desired::Share>> {
        let mut first: HashMap<&str, SourceSpan> = HashMap::new();
        let shares = vm.shares.iter().map(|share| {
            if let Some(earlier) = first.insert(&share.target.value, share.target.span) {
                let message = format!("two folders are shared at `{}`", shorten(&share.target.value));
                self.tell(
                    Fault::error("vmfile::duplicate", message)
                        .at(share.target.span, "again here")
                        .at(earlier, "first here")
                        .help("give each folder a path of its own in the guest"),
                );
            }
            self.share(share)
        });
        shares.collect()
    }

    /// The files that `vm` sees as disks, as far as they can be used.
    pub(super) fn media(&mut self, vm: &Vm) -> Vec<Option<PathBuf>> {
        vm.media.iter().map(|media| self.medium(media)).collect()
    }

    fn medium(&mut self, media: &Spanned<String>) -> Option<PathBuf> {
        let wrong = match self.path(media) {
            Ok(path) => match check(&path) {
                Ok(()) => return Some(path),
                Err(Error::Unusable { reason, .. }) => (
                    reason,
                    "name a file that holds a disk; what a machine is to be told through cloud-init stands in `cloud-init`",
                ),
                Err(Error::Io { source, .. }) => {
                    (source.to_string(), "check the path; it is relative to the VMFile's folder")
                }
                Err(error) => (error.to_string(), "check the path; it is relative to the VMFile's folder"),
            },
            Err(error) => (error.to_string(), error.help()),
        };
        let message = format!("cannot attach `{}`: {}", shorten(&media.value), wrong.0);
        self.tell(Fault::error("vmfile::file", message).at(media.span, "this path").help(wrong.1));
        None
    }

    fn share(&mut self, share: &Share) -> Option<desired::Share> {
        let found = self.path(&share.source);
        let wrong = match &found {
            Ok(path) if path.is_dir() => None,
            Ok(path) if path.exists() => {
                Some(("it is no folder".to_owned(), "name the folder that it is in"))
            }
            Ok(_) => Some((
                "no such folder".to_owned(),
                "make it, or check the path; it is relative to the VMFile's folder",
            )),
            Err(error) => Some((error.to_string(), error.help())),
        };
        if let Some((why, help)) = wrong {
            let message = format!("cannot share `{}`: {why}", shorten(&share.source.value));
            self.tell(Fault::error("vmfile::file", message).at(share.source.span, "this path").help(help));
            return None;
        }
        Some(desired::Share {
            source: found.ok()?,
            target: share.target.value.clone(),
            readonly: share.readonly,
            driver: share.driver,
        })
    }
}

/// The volumes of `vm`, with what the file says of them; an unknown one was told.
pub(super) fn vm_volumes(vm: &Vm, all: &BTreeMap<Name, desired::Volume>) -> Vec<desired::VmVolume> {
    let known = vm.volumes.iter().filter_map(|volume| {
        let (name, desired::Volume { size_bytes, prevent_destroy }) =
            all.get_key_value(&volume.value.parse::<Name>().ok()?)?;
        let (size_bytes, prevent_destroy) = (*size_bytes, *prevent_destroy);
        Some(desired::VmVolume { name: name.clone(), size_bytes, prevent_destroy })
    });
    known.collect()
}

/// A volume that belongs to `second`, and to somebody before.
fn shared(volume: &Spanned<String>, second: &Name, (first, earlier): (&Name, SourceSpan)) -> Fault {
    let name = &volume.value;
    let (message, help) = if first == second {
        (format!("`{second}` has the volume `{name}` twice"), "keep one of them")
    } else if earlier == volume.span {
        (
            format!("the volume `{name}` belongs to `{first}` and to `{second}`"),
            "a volume belongs to one machine; where several are made of this node, write `volume (template)\"data-{{ index }}\"`",
        )
    } else {
        (
            format!("the volume `{name}` belongs to `{first}` and to `{second}`"),
            "a volume belongs to one machine: give each a volume of its own",
        )
    };
    Fault::error("vmfile::volume", message).at(volume.span, "again here").at(earlier, "first here").help(help)
}
