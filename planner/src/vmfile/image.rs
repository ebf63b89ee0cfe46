//! Images: what root disks are made from.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use miette::SourceSpan;
use vmctl_providers::image::{ImageIdentity, Upstream};
use vmctl_providers::{Digest, MOST_UNASKED};

use super::ast::{Node, Spanned, Value};
use super::decode::in_text_order;
use super::expand::unused;
use super::fields::{Fields, Parts, at, shorten, whole_path};
use super::files::{FileError, open_regular};
use super::grammar::{IMAGE, IMAGE_PATH, IMAGE_URL, NAMED_IMAGE, SHA256, URL, VM};
use super::report::Fault;
use super::resolve::{Resolver, unknown, with_causes};
use super::shape::REF;
use super::suggest::nearest;
use super::typed::{File, Image, NamedImage, Vm};
use super::words::file_url_path;
use crate::desired::DesiredImage;
use crate::pins::{Lock, LockFile, Locked, Pin, PinnedBy, shown_url};

impl Fields {
    pub(super) fn named_image(&mut self, node: &Node) -> Option<NamedImage> {
        let parts = Parts::of(node);
        let name = self.definition_name(&parts, &NAMED_IMAGE)?;
        self.name("image", name.clone())?;
        let path = parts.child("path").and_then(|node| self.leaf_text(node, &IMAGE_PATH));
        let url = parts.child("url").and_then(|node| self.leaf_text(node, &URL));
        let image = match (parts.child("path"), parts.child("url")) {
            (Some(one), Some(other)) => {
                let (first, second) = in_text_order(one, other);
                self.tell(
                    Fault::error("vmfile::duplicate", format!("the image `{}` is in two places", name.value))
                        .at(second.name.span, "again here")
                        .at(first.name.span, "first here")
                        .help("keep either `path` or `url`"),
                );
                None
            }
            (None, None) if parts.sound => {
                self.tell(
                    Fault::error("vmfile::missing", format!("the image `{}` is nowhere", name.value))
                        .at(name.span, "needs `path` or `url`")
                        .help(format!("write {}", NAMED_IMAGE.usage)),
                );
                None
            }
            _ => match (path, url) {
                (Some(path), _) => Some(Spanned { value: Image::Path(path.value), span: path.span }),
                (_, Some(url)) => self.image_url(url),
                (None, None) => None,
            },
        };
        let sha256 = parts.child("sha256").and_then(|node| {
            let value = self.only_value(&Parts::of(node), &SHA256)?;
            self.sha256(value)
        });
        Some(NamedImage { name, image, sha256 })
    }

    fn sha256(&mut self, value: &Value) -> Option<Spanned<String>> {
        let text = self.text("sha256", value, SHA256.usage)?;
        let digits = text.value.strip_prefix("sha256:").unwrap_or(&text.value).to_ascii_lowercase();
        if digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Some(Spanned { value: digits, span: text.span });
        }
        let message = format!(
            "a SHA-256 digest has 64 hexadecimal digits, this has {} characters",
            digits.chars().count()
        );
        self.tell(
            at(Fault::error("vmfile::bad-value", message), value, "not a digest")
                .help("`sha256sum FILE` prints it"),
        );
        None
    }

    /// Tells a machine that has nothing to boot from.
    pub(super) fn needs_an_image(&mut self, parts: &Parts<'_>) {
        let boots = ["image", "image-url", "kernel"];
        let is_told = parts.block().iter().any(is_misspelt_image) || !parts.sound;
        if is_told || boots.iter().any(|name| parts.child(name).is_some()) {
            return;
        }
        let name = &parts.node.name;
        self.tell(
            Fault::error("vmfile::missing", "a machine has no image")
                .at(name.span, "its block has no `image`")
                .help("write `image \"debian.qcow2\"` in its block, with the path of a disk image"),
        );
    }

    /// The image, and the digest that it must have.
    pub(super) fn image(&mut self, parts: &Parts<'_>) -> (Option<Spanned<Image>>, Option<Spanned<String>>) {
        let (path, url) = (parts.child("image"), parts.child("image-url"));
        let node = match (path, url) {
            (Some(path), Some(url)) => {
                let (first, second) = in_text_order(path, url);
                self.tell(
                    Fault::error("vmfile::duplicate", "a machine has one image")
                        .at(second.name.span, "again here")
                        .at(first.name.span, "first here")
                        .help("keep either `image` or `image-url`"),
                );
                return (None, None);
            }
            (Some(node), None) | (None, Some(node)) => node,
            (None, None) => return (None, None),
        };
        let pin = Parts::of(node).prop("sha256");
        if url.is_some() {
            let text = self.leaf_text(node, &IMAGE_URL);
            let sha256 = pin.and_then(|value| self.sha256(value));
            return (text.and_then(|text| self.image_url(text)), sha256);
        }
        let is_reference = node
            .args
            .first()
            .and_then(|value| value.annotation.as_ref())
            .is_some_and(|word| word.value == REF);
        let text = self.leaf_text(node, &IMAGE);
        let sha256 = match pin {
            Some(pin) if is_reference => {
                self.tell(
                    Fault::error("vmfile::image", "the digest of a named image stands where it is named")
                        .at(pin.span, "not here")
                        .help("write `sha256` in the block of the image at the top level"),
                );
                None
            }
            pin => pin.and_then(|value| self.sha256(value)),
        };
        let image = text.map(|text| {
            let value = if is_reference { Image::Named(text.value) } else { Image::Path(text.value) };
            Spanned { value, span: text.span }
        });
        (image, sha256)
    }

    fn image_url(&mut self, text: Spanned<String>) -> Option<Spanned<Image>> {
        let (scheme, rest) = text.value.split_once("://").unwrap_or(("", &text.value));
        let (message, help) = match scheme.to_ascii_lowercase().as_str() {
            "file" => match file_url_path(rest) {
                Ok(path) => return Some(Spanned { value: Image::FileUrl(path), span: text.span }),
                Err(help) => ("this file URL cannot be used".to_owned(), help),
            },
            "http" | "https" | "oci" if is_remote(rest) => {
                return Some(Spanned { value: Image::Url(text.value), span: text.span });
            }
            known @ ("http" | "https" | "oci") => (
                format!("this {known} URL names no file of a server"),
                "write `https://server/path/debian.qcow2` or `oci://server/name:tag`, without blanks",
            ),
            "" => (
                "a URL has a `://`, this has none".to_owned(),
                "write `image`, or `path` in a named image, for a path",
            ),
            other => (
                format!("`{}` is not a known kind of URL", shorten(other)),
                "write `image-url \"file:///images/debian.qcow2\"`, or `image` with a path",
            ),
        };
        self.tell(Fault::error("vmfile::bad-value", message).at(text.span, "this URL").help(help));
        None
    }
}

impl Resolver<'_> {
    /// The named images, each with whether it is used.
    pub(super) fn named_images<'f>(&mut self, file: &'f File) -> NamedImages<'f> {
        let images: NamedImages<'f> =
            file.images.iter().map(|image| (image.name.value.as_str(), image)).collect();
        let named = |vm: &'f Vm| match &vm.image {
            Some(Spanned { value: Image::Named(name), .. }) => Some(name.as_str()),
            _ => None,
        };
        let used: HashSet<&str> = file.vms.iter().filter_map(named).collect();
        for image in file.images.iter().filter(|image| !used.contains(image.name.value.as_str())) {
            let name = Spanned { value: image.name.value.as_str(), span: image.name.span };
            self.tell(unused("image", &name, &format!("`image (ref)\"{}\"`", name.value)));
        }
        images
    }

    pub(super) fn image(
        &mut self,
        image: &Spanned<Image>,
        sha256: Option<&Spanned<String>>,
        named: &NamedImages<'_>,
    ) -> Option<DesiredImage> {
        let (written, path) = match &image.value {
            Image::Path(written) => {
                (written, self.path(&Spanned { value: written.clone(), span: image.span }))
            }
            Image::FileUrl(path) => (path, Ok(PathBuf::from(path))),
            Image::Url(url) => return self.remote(url, image.span, sha256),
            Image::Named(name) => {
                let Some(definition) = named.get(name.as_str()) else {
                    let known = named.keys().copied();
                    self.tell(unknown(
                        "image",
                        name,
                        image.span,
                        known,
                        "`image \"debian\" { path \"debian.qcow2\" }`",
                    ));
                    return None;
                };
                // Without one, its definition has a fault of its own.
                let image = definition.image.as_ref()?;
                let mut desired = self.image(image, definition.sha256.as_ref(), &NamedImages::new())?;
                if let DesiredImage::Remote { name: named, .. } = &mut desired {
                    *named = Some(name.clone());
                }
                return Some(desired);
            }
        };
        let source = match path {
            Ok(path) => path,
            Err(error) => {
                let message = format!("cannot find the image `{}`: {error}", shorten(written));
                self.tell(
                    Fault::error("vmfile::image", message).at(image.span, "this path").help(error.help()),
                );
                return None;
            }
        };
        let reference = named.contains_key(written.as_str()).then_some(written.as_str());
        let (identity, file) = self.identity(written, &source, image.span, reference)?;
        // Of what is packed or of another program, `sha256sum` prints one and `vmctl image list` the other.
        let is_it = |pin: &str| pin == file.hex() || pin == identity.digest.hex();
        if let Some(pin) = sha256.filter(|pin| !is_it(&pin.value)) {
            let message = format!("`{}` is not the image that is asked for", whole_path(&source));
            let becomes = match file == identity.digest {
                true => String::new(),
                false => format!(", what it becomes {}", identity.digest.hex()),
            };
            self.tell(
                Fault::error("vmfile::image", message)
                    .at(pin.span, format!("the file has {}{becomes}", file.hex()))
                    .at(image.span, "this file")
                    .help("get the right file, or write the digest of this one if you trust it"),
            );
            return None;
        }
        Some(DesiredImage::Local { source, identity })
    }

    /// An image from the network, with what is known of it; told where the lock file says something else than the VMFile.
    fn remote(
        &mut self,
        url: &str,
        span: SourceSpan,
        asked: Option<&Spanned<String>>,
    ) -> Option<DesiredImage> {
        let sha256 = asked.map(|digits| Digest::from_hex(&digits.value));
        let locked = self.locked(url, span).ok()?;
        if let (Some(locked), Some(asked)) = (&locked, asked)
            && locked.sha256.hex() != asked.value
        {
            let lock = self.lock_file.as_ref().map_or(Path::new(""), LockFile::path);
            let message = format!("`{}` pins another image than the one that is asked for", whole_path(lock));
            self.tell(
                Fault::error("vmfile::image", message)
                    .at(asked.span, format!("the lock file has {}", locked.sha256.hex()))
                    .at(span, "for this URL")
                    .help("`vmctl image update` moves the pin to the digest of the VMFile; or take that one back"),
            );
            return None;
        }
        let pin = match (locked, &sha256) {
            (Some(Locked { sha256, upstream, image }), _) => {
                Some(Pin { sha256, image: Some(image), upstream, by: PinnedBy::Lock })
            }
            (None, Some(sha256)) => Some(Pin {
                sha256: sha256.clone(),
                image: self.images.known(sha256),
                upstream: Upstream::default(),
                by: PinnedBy::Vmfile,
            }),
            (None, None) => None,
        };
        Some(DesiredImage::Remote { url: url.to_owned(), name: None, sha256, pin })
    }

    /// What the lock file says of `url`; told where it cannot be used. It is read when the first URL asks for it.
    fn locked(&mut self, url: &str, span: SourceSpan) -> Result<Option<Locked>, ()> {
        let Some(file) = &self.lock_file else { return Ok(None) };
        if self.locked.is_none() {
            let read = match file.read() {
                Ok(Some((lock, text))) => {
                    self.files.note(file.path(), Digest::of(text));
                    Ok(lock)
                }
                Ok(None) => Ok(Lock::default()),
                Err(error) => {
                    let fault = Fault::error("vmfile::lock", with_causes(&error));
                    self.faults
                        .push(fault.at(span, "what this URL is pinned to stands there").help(error.help()));
                    Err(self.faults.len() - 1)
                }
            };
            self.locked = Some(read);
        }
        match &self.locked {
            Some(Ok(lock)) => Ok(lock.images.get(&shown_url(url, self.secrets)).cloned()),
            Some(Err(_)) => Err(()),
            None => Ok(None),
        }
    }

    /// What the image at `source` is, and the digest of the file; told where it cannot be used. `reference` is a named
    /// image that may be meant.
    fn identity(
        &mut self,
        written: &str,
        source: &Path,
        span: SourceSpan,
        reference: Option<&str>,
    ) -> Option<(ImageIdentity, Digest)> {
        match self.identified.get(source) {
            Some(Ok(identity)) => return Some(identity.clone()),
            Some(Err(fault)) => {
                self.faults[*fault].add_label(span, "and here");
                return None;
            }
            None => {}
        }
        let found = match image_fault(written, source, span, reference) {
            Some(fault) => Err(fault),
            None => self.images.identify_file(source).map_err(|error| {
                let help = "an image is a disk in QCOW2 or raw format that you may read";
                Fault::error("vmfile::image", with_causes(&error))
                    .at(span, "this image")
                    .help(error.help().unwrap_or_else(|| help.to_owned()))
            }),
        };
        let found = found.map_err(|fault| {
            self.faults.push(fault);
            self.faults.len() - 1
        });
        let identity = found.as_ref().ok().cloned();
        self.identified.insert(source.to_owned(), found);
        identity
    }

    pub(super) fn disk(&mut self, vm: &Vm, image: Option<&DesiredImage>) -> Option<u64> {
        let size = image.and_then(DesiredImage::identity).map(|identity| identity.virtual_size);
        let Some(disk) = vm.disk_mib.as_ref() else {
            let unasked = vm.image.as_ref().zip(size.filter(|size| *size > MOST_UNASKED));
            if let Some((image, size)) = unasked {
                let message =
                    format!("the image makes a disk of {}, which nobody asked for", gigabytes(size));
                let help = format!(
                    "an image alone makes at most {}; write `disk {}` if it is to be so large",
                    gigabytes(MOST_UNASKED),
                    size.div_ceil(1 << 30)
                );
                self.tell(Fault::error("vmfile::disk", message).at(image.span, "this image").help(help));
            }
            return None;
        };
        let bytes = disk.value << 20;
        if let Some(size) = size.filter(|size| *size > bytes) {
            let message =
                format!("the disk ({}) is smaller than its image ({})", gigabytes(bytes), gigabytes(size));
            let needed = size.div_ceil(1 << 30);
            self.tell(Fault::error("vmfile::disk", message).at(disk.span, "too small").help(format!(
                "write `disk {needed}` or more, or remove it: the disk then has the image's size"
            )));
        }
        Some(bytes)
    }
}

/// A node that was already told to be a misspelling of `image`.
fn is_misspelt_image(node: &Node) -> bool {
    let name = &*node.name.value;
    !VM.names().contains(&name) && nearest(name, VM.names()).is_some_and(|near| near.starts_with("image"))
}

/// Whether what follows `://` names a server and something on it.
fn is_remote(rest: &str) -> bool {
    let (server, path) = rest.split_once('/').unwrap_or((rest, ""));
    let is_clean = !rest.chars().any(|c| c.is_whitespace() || c.is_control());
    is_clean && !server.is_empty() && !path.is_empty()
}

/// Named images by name.
pub(super) type NamedImages<'f> = BTreeMap<&'f str, &'f NamedImage>;

/// What is wrong with an image's path before anybody reads the file.
fn image_fault(written: &str, source: &Path, span: SourceSpan, reference: Option<&str>) -> Option<Fault> {
    let error = open_regular(source).err()?;
    let scheme = written.split_once(':').map(|(scheme, _)| scheme).filter(|scheme| !scheme.contains('/'));
    let help = match (&error, scheme) {
        (FileError::Missing, Some("http" | "https" | "oci" | "docker")) => {
            "`image` takes a path; write `image-url` for a URL".to_owned()
        }
        (FileError::Missing, Some("file")) => {
            "`image` takes a path; write `image-url` for a URL, or leave `file://` out".to_owned()
        }
        (FileError::Missing, Some(scheme)) => format!(
            "`{}:` has no special meaning here: this is the path `{}`",
            shorten(scheme),
            whole_path(source)
        ),
        (FileError::Missing, None) if reference.is_some() => {
            format!("write `image (ref)\"{}\"` for the image of this name", reference.unwrap_or_default())
        }
        _ => error.help().to_owned(),
    };
    let message = match error {
        FileError::Missing => format!("image file not found: `{}`", whole_path(source)),
        error => format!("cannot read the image `{}`: {error}", whole_path(source)),
    };
    Some(Fault::error("vmfile::image", message).at(span, "this path").help(help))
}

/// A size for people: in GB with one digit, never rounded down to what would not suffice.
fn gigabytes(bytes: u64) -> String {
    let tenths = (u128::from(bytes) * 10).div_ceil(1 << 30);
    format!("{}.{} GB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_never_rounded_down() {
        assert_eq!(gigabytes(3 << 30), "3.0 GB");
        assert_eq!(gigabytes((3 << 30) + 1), "3.1 GB");
        assert_eq!(gigabytes(u64::MAX), "17179869184.0 GB");
    }
}
