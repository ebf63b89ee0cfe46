//! UEFI: which files of the host a machine boots with, and its own variables.
//!
//! Hosts tell of their firmware in small JSON files ([QEMU's firmware descriptors][spec]). Those of a folder hide the
//! ones of the same name in later folders, and an empty one hides without taking their place. Of all that fit, the
//! first by name is taken: that is the order in which distributions mean them to be preferred.
//!
//! What needs Secure Boot is passed over: it boots signed systems only, and keeps its variables from the guest by means
//! that slow every machine down.
//!
//! [spec]: https://gitlab.com/qemu-project/qemu/-/blob/master/docs/interop/firmware.json

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::manifest::Manifest;
use super::places::{remove_file, write_private};
use crate::error::{Error, Result};
use crate::failpoints::failpoint;
use crate::spec::{Arch, Firmware, Hardware, ImageFormat, Machine, Uefi};
use crate::workdir::WorkDir;

/// Where the host's own descriptors are, in the order in which they hide each other.
pub const SYSTEM_FOLDERS: [&str; 2] = ["/etc/qemu/firmware", "/usr/share/qemu/firmware"];

/// Ends the names of descriptors; other files in their folders mean nothing.
const DESCRIPTOR: &str = "json";

/// Features of firmware that a plain machine does not have or want.
const UNWANTED: [&str; 3] = ["secure-boot", "enrolled-keys", "requires-smm"];

/// Largest template of variables that is believed in. The largest that there are, for ARM, have 64 MiB.
const MAX_VARIABLES: u64 = 256 << 20;

/// What `machine` boots with, and a file of variables of its own, if it boots by UEFI.
///
/// Variables that are there stay, and with them the firmware that they belong to (`known`). Idempotent: the file
/// appears whole.
pub(super) async fn ensure_variables(
    work: &WorkDir,
    machine: &Machine,
    known: Option<&Uefi>,
    folders: &[PathBuf],
) -> Result<Option<Uefi>> {
    if machine.hardware.firmware != Firmware::Uefi {
        return Ok(None);
    }
    if let Some(uefi) = known
        && work.variables().exists()
        && uefi.code.exists()
    {
        return Ok(known.cloned());
    }
    let found = find(&machine.hardware, folders)?;
    // Of another firmware they would mean nothing, and flash of another size is another machine.
    if known.is_some_and(|known| *known != found.uefi()) {
        remove_file(&work.variables())?;
    }
    if !work.variables().exists() {
        let (from, to) = (found.template.filename.clone(), work.variables());
        let copied = tokio::task::spawn_blocking(move || copy(&from, &to)).await;
        copied.map_err(|error| Error::io("write", work.variables())(io::Error::other(error)))??;
        failpoint!("prepare.qemu.variables-written", work.variables());
    }
    Ok(Some(found.uefi()))
}

/// What a machine boots with and is not there any more.
pub(super) fn gone(work: &WorkDir, manifest: &Manifest) -> Option<PathBuf> {
    let uefi = manifest.uefi.as_ref().filter(|_| manifest.machine.hardware.firmware == Firmware::Uefi)?;
    [uefi.code.clone(), work.variables()].into_iter().find(|path| !path.exists())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let size = fs::metadata(from).map_err(Error::io("examine", from))?.len();
    if size > MAX_VARIABLES {
        let reason = format!("a template of UEFI variables has no {size} bytes");
        return Err(Error::Unusable { path: from.to_owned(), reason });
    }
    write_private(to, &fs::read(from).map_err(Error::io("read", from))?)
}

/// Fails unless the host has firmware for `hardware`, where that boots by UEFI.
pub(super) fn check(hardware: &Hardware, folders: &[PathBuf]) -> Result<()> {
    match hardware.firmware {
        Firmware::Bios => Ok(()),
        Firmware::Uefi => find(hardware, folders).map(drop),
    }
}

/// Where the firmware for a plain UEFI machine of `arch` is on this host, for whoever wants to know beforehand.
pub fn locate(arch: Arch, folders: &[PathBuf]) -> Result<PathBuf> {
    let hardware = Hardware { arch: Some(arch), firmware: Firmware::Uefi, ..Hardware::default() };
    find(&hardware, folders).map(|found| found.code.filename)
}

/// Firmware that fits a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    code: FlashFile,
    template: FlashFile,
}

impl Found {
    fn uefi(&self) -> Uefi {
        Uefi {
            code: self.code.filename.clone(),
            code_format: self.code.format,
            variables_format: self.template.format,
        }
    }
}

fn find(hardware: &Hardware, folders: &[PathBuf]) -> Result<Found> {
    let (arch, machine) = (hardware.guest_arch(), hardware.machine_type());
    for path in descriptors(folders)?.into_values() {
        let text = fs::read(&path).map_err(Error::io("read", &path))?;
        if text.is_empty() {
            continue;
        }
        let descriptor = match serde_json::from_slice::<Descriptor>(&text) {
            Ok(descriptor) => descriptor,
            // Of a kind of firmware that came later; there may be others.
            Err(error) => {
                tracing::debug!(%error, path = %path.display(), "no descriptor of firmware that is known here");
                continue;
            }
        };
        match descriptor.fitting(arch, machine) {
            Some(found) if found.code.filename.exists() && found.template.filename.exists() => {
                return Ok(found);
            }
            Some(found) => {
                tracing::debug!(path = %path.display(), code = %found.code.filename.display(), "its files are gone");
            }
            None => {}
        }
    }
    Err(Error::FirmwareMissing { arch, machine: machine.to_owned() })
}

/// All descriptors, by name; those of earlier folders hide those of later ones.
fn descriptors(folders: &[PathBuf]) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    for folder in folders {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io("list folder", folder)(error)),
        };
        for entry in entries {
            let path = entry.map_err(Error::io("list folder", folder))?.path();
            if path.extension().is_some_and(|end| end == DESCRIPTOR)
                && let Some(name) = path.file_name().and_then(|name| name.to_str())
            {
                found.entry(name.to_owned()).or_insert(path);
            }
        }
    }
    Ok(found)
}

/// A descriptor, as far as it says whether and how to use it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Descriptor {
    interface_types: Vec<String>,
    mapping: Mapping,
    targets: Vec<Target>,
    features: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Mapping {
    device: String,
    /// Absent means that code and variables are two files.
    mode: Option<String>,
    executable: Option<FlashFile>,
    nvram_template: Option<FlashFile>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct FlashFile {
    filename: PathBuf,
    format: ImageFormat,
}

#[derive(Debug, Deserialize)]
struct Target {
    architecture: String,
    machines: Vec<String>,
}

impl Descriptor {
    /// Its files, if it is plain UEFI in flash for this machine.
    fn fitting(self, arch: Arch, machine: &str) -> Option<Found> {
        let machine = full_name(machine);
        let is_for = |target: &Target| {
            target.architecture == arch.as_str()
                && target.machines.iter().any(|pattern| matches(pattern, &machine))
        };
        let fits = self.interface_types.iter().any(|kind| kind == "uefi")
            && self.mapping.device == "flash"
            && self.mapping.mode.as_deref().is_none_or(|mode| mode == "split")
            && self.targets.iter().any(is_for)
            && !self.features.iter().any(|feature| UNWANTED.contains(&feature.as_str()));
        let (code, template) = (self.mapping.executable?, self.mapping.nvram_template?);
        fits.then_some(Found { code, template })
    }
}

/// Descriptors name machine types with their versions, of which the short names are aliases.
fn full_name(machine: &str) -> String {
    match machine {
        "q35" => "pc-q35-0".to_owned(),
        "pc" => "pc-i440fx-0".to_owned(),
        "virt" => "virt-0".to_owned(),
        other => other.to_owned(),
    }
}

/// Whether `pattern`, in which `*` stands for any text, means `name`.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, rest)) => name.strip_prefix(head).is_some_and(|name| {
            // All places where the rest may begin, the end of the name included.
            let mut places = name.char_indices().map(|(at, _)| at).chain([name.len()]);
            places.any(|at| matches(rest, &name[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packages;

    /// Debian's descriptors in short.
    fn describe(folder: &Path, name: &str, arch: &str, machines: &str, features: &str) {
        for file in ["code", "vars"] {
            fs::write(folder.join(format!("{name}.{file}")), file).unwrap();
        }
        let path = folder.display();
        let text = format!(
            r#"{{
                "description": "x", "interface-types": ["uefi"], "tags": [],
                "mapping": {{
                    "device": "flash",
                    "executable": {{"filename": "{path}/{name}.code", "format": "raw"}},
                    "nvram-template": {{"filename": "{path}/{name}.vars", "format": "raw"}}
                }},
                "targets": [{{"architecture": "{arch}", "machines": [{machines}]}}],
                "features": [{features}]
            }}"#
        );
        fs::write(folder.join(format!("{name}.json")), text).unwrap();
    }

    fn hardware(machine: Option<&str>, arch: Arch) -> Hardware {
        Hardware {
            arch: Some(arch),
            firmware: Firmware::Uefi,
            machine: machine.map(str::to_owned),
            ..Hardware::default()
        }
    }

    fn chosen(hardware: &Hardware, folders: &[PathBuf]) -> Result<String, String> {
        let found = find(hardware, folders).map_err(|error| error.to_string())?;
        Ok(found.code.filename.file_stem().unwrap().to_string_lossy().into_owned())
    }

    #[test]
    fn first_plain_firmware_that_fits_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let (system, own) = (folder.path().join("system"), folder.path().join("own"));
        fs::create_dir(&system).unwrap();
        fs::create_dir(&own).unwrap();
        describe(&system, "40-enrolled", "x86_64", "\"pc-q35-*\"", "\"secure-boot\", \"requires-smm\"");
        describe(&system, "50-arm", "aarch64", "\"virt-*\"", "\"verbose-static\"");
        describe(&system, "60-plain", "x86_64", "\"pc-i440fx-*\", \"pc-q35-*\"", "\"acpi-s3\"");
        describe(&system, "70-later", "x86_64", "\"pc-q35-*\"", "");
        fs::write(system.join("10-broken.json"), "{").unwrap();
        fs::write(system.join("20-memory.json"), r#"{"interface-types": ["uefi"], "mapping": {"device": "memory", "filename": "/x"}, "targets": [{"architecture": "x86_64", "machines": ["*"]}], "features": []}"#).unwrap();
        let folders = [own.clone(), system.clone(), folder.path().join("missing")];
        for (machine, arch, expected) in [
            (None, Arch::X86_64, "60-plain"),
            (Some("pc"), Arch::X86_64, "60-plain"),
            (Some("pc-q35-7.2"), Arch::X86_64, "60-plain"),
            (None, Arch::Aarch64, "50-arm"),
        ] {
            assert_eq!(
                chosen(&hardware(machine, arch), &folders).as_deref(),
                Ok(expected),
                "{machine:?} {arch}"
            );
        }
        let error = chosen(&hardware(Some("microvm"), Arch::X86_64), &folders).unwrap_err();
        assert!(error.starts_with("no UEFI firmware for x86_64 machines of type `microvm`"), "{error}");

        // A folder hides what later ones say under the same name.
        fs::write(own.join("60-plain.json"), "").unwrap();
        assert_eq!(chosen(&hardware(None, Arch::X86_64), &folders).as_deref(), Ok("70-later"));
        describe(&own, "60-plain", "x86_64", "\"pc-q35-*\"", "");
        assert_eq!(locate(Arch::X86_64, &folders).unwrap(), own.join("60-plain.code"));
        // Without its files it is none.
        fs::remove_file(own.join("60-plain.vars")).unwrap();
        assert_eq!(chosen(&hardware(None, Arch::X86_64), &folders).as_deref(), Ok("70-later"));
    }

    #[test]
    fn missing_firmware_names_its_package() {
        let folder = tempfile::tempdir().unwrap();
        let folders = [folder.path().to_owned()];
        for (arch, package) in [(Arch::X86_64, "ovmf"), (Arch::Aarch64, "qemu-efi-aarch64")] {
            let error = find(&hardware(None, arch), &folders).unwrap_err();
            assert!(error.help().unwrap().contains(&packages::advice(package)), "{error:?}");
        }
    }

    #[test]
    fn stars_stand_for_any_text() {
        for (pattern, name, expected) in [
            ("pc-q35-*", "pc-q35-7.2", true),
            ("pc-q35-*", "pc-i440fx-7.2", false),
            ("*", "", true),
            ("virt-*", "virt", false),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abcdef", false),
            ("microvm", "microvm", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[tokio::test]
    async fn variables_are_the_machines_own_and_stay() {
        let folder = tempfile::tempdir().unwrap();
        let (host, vm) = (folder.path().join("host"), folder.path().join("vm"));
        fs::create_dir(&host).unwrap();
        fs::create_dir(&vm).unwrap();
        describe(&host, "60", "x86_64", "\"pc-q35-*\"", "");
        let (work, folders) = (WorkDir::new(&vm), [host.clone()]);
        let mut machine = super::super::manifest::tests::spec(Path::new("/image")).machine;
        machine.hardware = hardware(None, Arch::X86_64);
        let made = ensure_variables(&work, &machine, None, &folders).await.unwrap().unwrap();
        assert_eq!(made.code, host.join("60.code"));

        // The guest wrote to them, and the host got other firmware: both stay as they are.
        fs::write(work.variables(), "of the guest").unwrap();
        describe(&host, "50", "x86_64", "\"pc-q35-*\"", "");
        assert_eq!(
            ensure_variables(&work, &machine, Some(&made), &folders).await.unwrap().as_ref(),
            Some(&made)
        );
        assert_eq!(fs::read_to_string(work.variables()).unwrap(), "of the guest");

        // Without its firmware the machine gets another, with new variables.
        fs::remove_file(host.join("60.code")).unwrap();
        let other = ensure_variables(&work, &machine, Some(&made), &folders).await.unwrap().unwrap();
        assert_eq!(other.code, host.join("50.code"));
        assert_eq!(fs::read_to_string(work.variables()).unwrap(), "vars");

        machine.hardware.firmware = Firmware::Bios;
        assert_eq!(ensure_variables(&work, &machine, Some(&other), &folders).await.unwrap(), None);
        assert!(work.variables().exists(), "another try finds them as they were");
    }
}
