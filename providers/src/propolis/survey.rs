//! Whether what machines of Propolis use is there, for whoever looks before anything is made. Nothing is changed.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::backend::{unavailable, version};
use super::client::Client;
use super::host::{Runner, ThisHost, commands, zones};
use super::prepare::{check_bootrom, program};
use crate::error::{Error, Result};
use crate::spec::{Machine, PropolisOptions};

/// Where the kernel has its VMs made.
const VMM: &str = "/dev/vmmctl";

/// Where it has their network cards.
const VIONA: &str = "/dev/viona";

/// What machines of Propolis use of a host, all of them together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Uses {
    /// Servers that somebody else runs, and the version that is spoken to each.
    servers: BTreeSet<(SocketAddr, String)>,
    /// Programs that are started as servers; `None` is the one of PATH.
    programs: BTreeSet<Option<PathBuf>>,
    bootroms: BTreeSet<PathBuf>,
    pools: BTreeSet<String>,
    vnics: bool,
    /// A pool or a zone is not named, and may be.
    unnamed: bool,
    templates: BTreeSet<String>,
}

impl Uses {
    /// What somebody uses who has no machine yet: a server of PATH, volumes, vnics and zones.
    pub fn anything() -> Self {
        Self { programs: [None].into(), vnics: true, unnamed: true, ..Self::default() }
    }

    /// Adds what one more machine uses.
    pub fn add(&mut self, options: &PropolisOptions, is_on_a_vnic: bool) {
        self.vnics |= is_on_a_vnic || options.zone.is_some();
        self.pools.extend(options.pool.clone());
        match (options.server, &options.zone) {
            (Some(server), _) => {
                self.servers.insert((server, version(options).to_owned()));
            }
            // Program and firmware are in the zone.
            (None, Some(zone)) => {
                self.templates.insert(zone.template.clone());
            }
            (None, None) => {
                self.programs.insert(options.binary.clone());
                self.bootroms.extend(options.bootrom.clone());
            }
        }
    }

    /// The same of a machine.
    pub fn add_machine(&mut self, machine: &Machine) {
        self.add(&machine.hardware.propolis, machine.is_on_a_vnic());
    }
}

/// One thing that was looked for.
#[derive(Debug)]
pub struct Found {
    /// What it is: `propolis-server`, `bootrom`, `bhyve`, `zfs`, `vnics` or `zones`.
    pub name: &'static str,
    /// What was found, or what is in the way: one of them for each that is used.
    pub seen: Vec<Result<String>>,
}

/// Looks for all that is used on this host, and for nothing else.
pub async fn survey(uses: &Uses) -> Vec<Found> {
    survey_of(uses, &ThisHost, Path::new("/")).await
}

/// The same on another host, whose devices are below `root`.
async fn survey_of(uses: &Uses, host: &dyn Runner, root: &Path) -> Vec<Found> {
    let mut servers: Vec<_> = uses.programs.iter().map(|path| started(path.as_deref())).collect();
    for (address, version) in &uses.servers {
        servers.push(answers(*address, version).await);
    }
    let bootroms = uses.bootroms.iter().map(|path| check_bootrom(path).map(|()| shown(path))).collect();
    let mut bhyve = Vec::new();
    if !(uses.programs.is_empty() && uses.templates.is_empty()) {
        let paths = [VMM, VIONA];
        bhyve.push(devices(root, if uses.vnics { &paths } else { &paths[..1] }));
    }
    let mut pools = Vec::new();
    for pool in &uses.pools {
        pools.push(host.run(&commands::list_volumes(pool)).await.map(|_| pool.clone()));
    }
    let mut cards = Vec::new();
    if uses.vnics {
        for (command, what) in
            [(commands::show_vnics(), "made by `dladm`"), (commands::neighbours(), "guests found by `arp`")]
        {
            cards.push(host.run(&command).await.map(|_| what.to_owned()));
        }
    }
    let mut templates = Vec::new();
    for template in &uses.templates {
        templates.push(zones::check_template(host, template).await.map(|()| template.clone()));
    }
    if uses.unnamed {
        pools.push(host.check(&commands::list_volumes("")).map(|()| "there".to_owned()));
        templates.push(host.check(&commands::list_zones()).map(|()| "there".to_owned()));
    }
    let all = [
        ("propolis-server", servers),
        ("bootrom", bootroms),
        ("bhyve", bhyve),
        ("zfs", pools),
        ("vnics", cards),
        ("zones", templates),
    ];
    let found = all.into_iter().map(|(name, seen)| Found { name, seen });
    found.filter(|found| !found.seen.is_empty()).collect()
}

fn started(path: Option<&Path>) -> Result<String> {
    let options = PropolisOptions { binary: path.map(Path::to_owned), ..PropolisOptions::default() };
    program(&options).map(|path| shown(&path))
}

async fn answers(address: SocketAddr, version: &str) -> Result<String> {
    Client::new(address, version)?.instance().await?;
    Ok(format!("one answers at {address}"))
}

/// The devices of bhyve, all of them.
fn devices(root: &Path, paths: &[&str]) -> Result<String> {
    let mut missing = Vec::new();
    for path in paths {
        let place = root.join(path.trim_start_matches('/'));
        if !place.try_exists().map_err(Error::io("examine", &place))? {
            missing.push(format!("`{path}`"));
        }
    }
    if missing.is_empty() {
        return Ok(paths.join(", "));
    }
    Err(unavailable(format!(
        "there is no {}: VMs are run by bhyve, in the kernel of illumos. Elsewhere, only a `server` that somebody else runs \
         can be used",
        missing.join(" and no ")
    )))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::super::host::fake::FakeHost;
    use super::super::tests::nic;
    use super::*;
    use crate::spec::ZoneOptions;

    /// Each thing by its name, and whether all of it is there.
    async fn seen(uses: &Uses, host: &FakeHost, root: &Path) -> Vec<(&'static str, bool)> {
        let found = survey_of(uses, host, root).await;
        found.into_iter().map(|found| (found.name, found.seen.iter().all(Result::is_ok))).collect()
    }

    fn zone(template: &str) -> ZoneOptions {
        let (template, link, address) = (template.to_owned(), "stub0".to_owned(), [10, 9, 0, 2].into());
        ZoneOptions { template, link, address, prefix: 24, port: ZoneOptions::PORT }
    }

    #[tokio::test]
    async fn only_what_machines_use_is_looked_for() {
        let root = tempfile::tempdir().unwrap();
        let host = FakeHost::default();
        let mut uses = Uses::default();
        assert_eq!(seen(&uses, &host, root.path()).await, []);

        // One that is started here: no program of that name, no firmware, no bhyve.
        let (binary, bootrom) = (Some("/no/propolis-server".into()), Some("/no/rom.fd".into()));
        let started = PropolisOptions { binary, bootrom, ..PropolisOptions::default() };
        let mut machine = super::super::tests::spec().machine;
        machine.hardware.propolis = started;
        uses.add_machine(&machine);
        let told = seen(&uses, &host, root.path()).await;
        assert_eq!(told, [("propolis-server", false), ("bootrom", false), ("bhyve", false)]);
        machine.nics = vec![nic(0)];
        machine.hardware.propolis.pool = Some("rpool/vms".to_owned());
        uses.add_machine(&machine);
        std::fs::create_dir(root.path().join("dev")).unwrap();
        for device in [VMM, VIONA] {
            std::fs::write(root.path().join(device.trim_start_matches('/')), "").unwrap();
        }
        let told = seen(&uses, &host, root.path()).await;
        assert_eq!(told[2..], [("bhyve", true), ("zfs", true), ("vnics", true)]);
        host.fail("zfs list", "cannot open 'rpool/vms': dataset does not exist");
        let found = survey_of(&uses, &host, root.path()).await;
        let error = found[3].seen[0].as_ref().unwrap_err().to_string();
        assert!(error.ends_with("dataset does not exist"), "{error}");
    }

    #[tokio::test]
    async fn zone_is_made_of_a_template_that_is_at_rest() {
        let root = tempfile::tempdir().unwrap();
        let host = FakeHost::default();
        let mut uses = Uses::default();
        uses.add(&PropolisOptions { zone: Some(zone("propolis")), ..PropolisOptions::default() }, false);
        let told = seen(&uses, &host, root.path()).await;
        assert_eq!(told, [("bhyve", false), ("vnics", true), ("zones", false)]);
        host.add_zone("propolis", "installed", "create");
        assert_eq!(seen(&uses, &host, root.path()).await[2], ("zones", true));
        host.add_zone("propolis", "running", "create");
        assert_eq!(seen(&uses, &host, root.path()).await[2], ("zones", false));
    }

    #[tokio::test]
    async fn server_of_somebody_else_is_asked() {
        let root = tempfile::tempdir().unwrap();
        let server = vmctl_tests::propolis::FakePropolis::start(vmctl_tests::propolis::Options::default());
        let mut uses = Uses::default();
        uses.add(&PropolisOptions { server: Some(server.address()), ..PropolisOptions::default() }, false);
        assert_eq!(seen(&uses, &FakeHost::default(), root.path()).await, [("propolis-server", true)]);
        let version = Some("99.0.0".to_owned());
        uses.add(
            &PropolisOptions {
                server: Some(server.address()),
                api_version: version,
                ..PropolisOptions::default()
            },
            false,
        );
        assert_eq!(seen(&uses, &FakeHost::default(), root.path()).await, [("propolis-server", false)]);
    }
}
