//! What machines were made from, as a pin: a lock file that is lost, or was never committed, makes nothing anew. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;

use vmctl_providers::image::{ImageIdentity, Upstream};
use vmctl_providers::{Digest, Secrets};
use vmctl_state::{Address, Snapshot};

use super::{Pin, PinnedBy};
use crate::desired::{Desired, DesiredImage};
use crate::recorded::{RecordError, spec_of};

/// What a machine was made from.
#[derive(Debug)]
struct Made {
    source: Option<String>,
    sha256: Digest,
    image: ImageIdentity,
}

/// `desired`, where what is not known of an image from the network is taken from the records of machines.
///
/// The same download is the same image, even if another vmctl made other bytes of it: what is recorded of the machine
/// itself goes before what the lock file says.
pub(crate) fn with_recorded_pins<'a>(
    desired: &'a Desired,
    recorded: &Snapshot,
) -> Result<Cow<'a, Desired>, RecordError> {
    let has_remote = desired.vms.values().any(|vm| matches!(vm.image, Some(DesiredImage::Remote { .. })));
    if !has_remote {
        return Ok(Cow::Borrowed(desired));
    }
    let made = made(recorded)?;
    let mut filled = desired.clone();
    for vm in filled.vms.values_mut() {
        if let Some(DesiredImage::Remote { url, pin, .. }) = &mut vm.image {
            let own = made.get(&Address::vm(vm.name.as_str()));
            *pin = pin_of(url, pin.take(), own, &made, &desired.secrets);
        }
    }
    Ok(Cow::Owned(filled))
}

fn made(recorded: &Snapshot) -> Result<BTreeMap<Address, Made>, RecordError> {
    let mut made = BTreeMap::new();
    for record in recorded.records.values() {
        let spec = spec_of(record)?;
        if let (Some(sha256), Some(image)) = (&spec.image_pin, &spec.image) {
            let made_of =
                Made { source: spec.image_source.clone(), sha256: sha256.clone(), image: image.clone() };
            made.insert(record.address.clone(), made_of);
        }
    }
    Ok(made)
}

fn pin_of(
    url: &str,
    pin: Option<Pin>,
    own: Option<&Made>,
    all: &BTreeMap<Address, Made>,
    secrets: &Secrets,
) -> Option<Pin> {
    match pin {
        Some(pin) => {
            let same = own.filter(|made| made.sha256 == pin.sha256);
            let other = || all.values().find(|made| made.sha256 == pin.sha256);
            let image = match (same, &pin.image) {
                (Some(made), _) => Some(made.image.clone()),
                (None, Some(image)) => Some(image.clone()),
                (None, None) => other().map(|made| made.image.clone()),
            };
            Some(Pin { image, ..pin })
        }
        None => {
            let sealed = secrets.seal(url);
            let is_of = |made: &&Made| made.source.as_deref() == Some(&*sealed);
            let found = own.filter(is_of).or_else(|| only(all.values().filter(is_of)))?;
            Some(Pin {
                sha256: found.sha256.clone(),
                image: Some(found.image.clone()),
                upstream: Upstream::default(),
                by: PinnedBy::Record,
            })
        }
    }
}

/// What all of them were made from, if it is the same: otherwise nobody knows which one is meant.
fn only<'m>(mut made: impl Iterator<Item = &'m Made>) -> Option<&'m Made> {
    let first = made.next()?;
    made.all(|other| other.sha256 == first.sha256).then_some(first)
}

#[cfg(test)]
mod tests {
    use vmctl_providers::ImageFormat;

    use super::*;

    const URL: &str = "https://h/a";

    fn image(word: &str) -> ImageIdentity {
        ImageIdentity { digest: Digest::of(word), format: ImageFormat::Raw, virtual_size: 512 }
    }

    fn made(of: &[(&str, &str, &str)]) -> BTreeMap<Address, Made> {
        let made = |(name, sha, out): &(&str, &str, &str)| {
            let made = Made { source: Some(URL.to_owned()), sha256: Digest::of(sha), image: image(out) };
            (Address::vm(name), made)
        };
        of.iter().map(made).collect()
    }

    fn found(
        pin: Option<Pin>,
        own: Option<&str>,
        all: &BTreeMap<Address, Made>,
    ) -> Option<(Digest, Option<ImageIdentity>)> {
        let own = own.and_then(|name| all.get(&Address::vm(name)));
        pin_of(URL, pin, own, all, &Secrets::default()).map(|pin| (pin.sha256, pin.image))
    }

    fn pin(sha: &str, out: Option<&str>) -> Option<Pin> {
        Some(Pin {
            sha256: Digest::of(sha),
            image: out.map(image),
            upstream: Upstream::default(),
            by: PinnedBy::Lock,
        })
    }

    #[test]
    fn machine_without_a_lock_keeps_what_it_was_made_from() {
        let all = made(&[("a", "1", "one"), ("b", "2", "two")]);
        assert_eq!(found(None, Some("b"), &all), Some((Digest::of("2"), Some(image("two")))));
        // A new one beside them: they disagree, so nothing is known.
        assert_eq!(found(None, None, &all), None);
        let all = made(&[("a", "1", "one"), ("b", "1", "one")]);
        assert_eq!(found(None, None, &all), Some((Digest::of("1"), Some(image("one")))));
    }

    #[test]
    fn pin_is_stronger_than_a_record_of_another_download() {
        let all = made(&[("a", "1", "one")]);
        assert_eq!(
            found(pin("2", Some("two")), Some("a"), &all),
            Some((Digest::of("2"), Some(image("two"))))
        );
        assert_eq!(found(pin("2", None), Some("a"), &all), Some((Digest::of("2"), None)));
    }

    #[test]
    fn same_download_is_the_same_image_whatever_came_out_of_it() {
        let all = made(&[("a", "1", "one")]);
        assert_eq!(
            found(pin("1", Some("uno")), Some("a"), &all),
            Some((Digest::of("1"), Some(image("one"))))
        );
        assert_eq!(found(pin("1", None), None, &all), Some((Digest::of("1"), Some(image("one")))));
    }
}
