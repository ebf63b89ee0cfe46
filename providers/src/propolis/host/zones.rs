//! Zones: one for each machine that wants one, in which nothing runs but its server.
//!
//! A zone is a clone of an installed one, the template, which the user made: its brand, and the programs in it, are the
//! user's affair. Ours bears the instance as an attribute, set by the very command that configures it; nothing without
//! that mark is halted or removed. What is in a zone is not worth keeping, so that one of another configuration is simply made anew.
//!
//! ```text
//!            zonecfg            zoneadm clone           boot, zlogin
//!   nothing ────────▶ configured ───────────▶ installed ───────────▶ running
//!           ◀────────            ◀───────────           ◀───────────
//!            delete              uninstall                  halt
//! ```
//!
//! Who halts a zone ends everything in it: no server is left, whoever started it.

use std::fmt::Write as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::commands::{ZONE_CONFIG, ZONE_MARK};
use super::vnics::{self, Wanted};
use super::{Runner, commands};
use crate::error::{Error, Result};
use crate::failpoints::failpoint;
use crate::spec::{InstanceId, MacAddr, ZoneOptions};

/// More turns than the longest way between two states has. Each is one command.
const MOST_TURNS: usize = 8;

/// The devices that a server needs besides its disk.
const DEVICES: [&str; 3] = ["/dev/vmmctl", "/dev/vmm/*", "/dev/viona"];

/// Why a zone cannot be made.
const NO_TEMPLATE: &str = "there is no such zone, and a `zone` is cloned from one that you made";

/// A zone that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    name: String,
    state: State,
    path: String,
}

/// How far a zone is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It is described, and has no files.
    Configured,
    /// Its files are half made, or half removed.
    Incomplete,
    /// It is halted.
    Installed,
    /// Something of it is in the kernel: it runs, or is on its way.
    Live,
}

/// The zone of a machine.
#[derive(Debug, Clone)]
pub(in crate::propolis) struct Zone<'a> {
    /// What runs commands.
    pub(in crate::propolis) host: &'a dyn Runner,
    /// Whose it is.
    pub(in crate::propolis) id: InstanceId,
    /// What is said of it.
    pub(in crate::propolis) options: &'a ZoneOptions,
}

impl Zone<'_> {
    /// What it is called.
    pub(in crate::propolis) fn name(&self) -> String {
        format!("vmctl-{}", self.id.short())
    }

    /// What its control card is called.
    fn control(&self) -> String {
        format!("vmctl{}c0", self.id.short())
    }

    /// The hardware address of its control card: made up, and always the same.
    fn control_mac(&self) -> MacAddr {
        let hash = Sha256::new().chain_update(self.id.0.as_bytes()).chain_update("control").finalize();
        // Unicast, and given by nobody who gives addresses.
        MacAddr([2, hash[0], hash[1], hash[2], hash[3], hash[4]])
    }

    /// Fails where the zone could not be made: its template is neither there nor at rest.
    pub(in crate::propolis) async fn check(&self) -> Result<()> {
        let rows = rows(self.host).await?;
        if rows.iter().any(|row| row.name == self.name()) {
            return Ok(());
        }
        judge_template(&rows, &self.options.template)
    }

    /// Makes the zone and its control card, for these cards and this disk of a guest. Idempotent; one of another
    /// configuration is made anew, one that runs as it should goes on.
    pub(in crate::propolis) async fn ensure(&self, cards: &[&str], disk: Option<&Path>) -> Result<()> {
        let name = self.name();
        let wanted = self.resources(cards, disk);
        let digest = digest(&wanted);
        for _ in 0..MOST_TURNS {
            let rows = rows(self.host).await?;
            let command = match rows.iter().find(|row| row.name == name) {
                None => {
                    self.ensure_control().await?;
                    commands::configure_zone(&name, &self.script(&self.path(&rows)?, &wanted, &digest))
                }
                Some(row) => match (row.state, self.own().await? == digest) {
                    (State::Installed, true) => return self.ensure_control().await,
                    (State::Live, true) => return Ok(()),
                    (State::Configured, true) => commands::clone_zone(&name, &self.options.template),
                    (state, _) => descent(&name, state),
                },
            };
            self.host.run(&command).await?;
            failpoint!("prepare.propolis.zone-changed", &name);
        }
        Err(self.restless())
    }

    /// Halts it, if anything of it runs. Says whether it did.
    pub(in crate::propolis) async fn halt(&self) -> Result<bool> {
        if !self.is_live().await? {
            return Ok(false);
        }
        self.own().await?;
        self.host.run(&commands::halt_zone(&self.name())).await?;
        Ok(true)
    }

    /// Removes it and its control card. Missing is fine; a zone of that name without its mark is an error.
    pub(in crate::propolis) async fn remove(&self) -> Result<()> {
        for _ in 0..MOST_TURNS {
            let Some(row) = self.row().await? else { return self.remove_control().await };
            self.own().await?;
            self.host.run(&descent(&row.name, row.state)).await?;
            failpoint!("destroy.propolis.zone-changed", &row.name);
        }
        Err(self.restless())
    }

    /// Whether anything of it runs.
    pub(in crate::propolis) async fn is_live(&self) -> Result<bool> {
        Ok(self.row().await?.is_some_and(|row| row.state == State::Live))
    }

    /// Boots it. It must be there, be its, and be halted.
    pub(in crate::propolis) async fn boot(&self) -> Result<()> {
        self.own().await?;
        self.host.run(&commands::boot_zone(&self.name())).await.map(drop)
    }

    /// Starts the server in it, once.
    pub(in crate::propolis) async fn serve(&self, binary: &Path, bootrom: &Path) -> Result<()> {
        let command = commands::serve_in_zone(&self.name(), binary, bootrom, self.options.port);
        self.host.run(&command).await.map(drop)
    }

    /// The end of what its server said; empty where that cannot be told.
    pub(in crate::propolis) async fn log_tail(&self) -> String {
        self.host.run(&commands::zone_log(&self.name())).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "a server's log cannot be told");
            String::new()
        })
    }

    async fn ensure_control(&self) -> Result<()> {
        let (name, mac) = (self.control(), self.control_mac());
        vnics::ensure_own(self.host, Wanted { name: &name, mac }, &self.options.link).await
    }

    async fn remove_control(&self) -> Result<()> {
        let (name, mac) = (self.control(), self.control_mac());
        vnics::remove_own(self.host, Wanted { name: &name, mac }).await
    }

    /// Refuses a zone that does not bear the mark. Returns the digest of its configuration.
    async fn own(&self) -> Result<String> {
        let name = self.name();
        let text = self.host.run(&commands::zone_attributes(&name)).await?;
        let marked = attribute(&text, ZONE_MARK);
        if marked.as_deref() == Some(&*self.id.to_string()) {
            return Ok(attribute(&text, ZONE_CONFIG).unwrap_or_default());
        }
        let found = marked.unwrap_or_else(|| "somebody who did not mark it".to_owned());
        Err(Error::Foreign { path: name.into(), found })
    }

    /// What is in the zone, as zonecfg is told. A disk of another path is another zone.
    fn resources(&self, cards: &[&str], disk: Option<&Path>) -> String {
        let ZoneOptions { template, address, prefix, .. } = self.options;
        let mut script = format!("create -t {template}; ");
        let control = self.control();
        let _ = write!(
            script,
            "add net; set physical={control}; set allowed-address=\"{address}/{prefix}\"; end; "
        );
        for card in cards {
            let _ = write!(script, "add net; set physical={card}; end; ");
        }
        let disk = disk.map(|path| path.display().to_string());
        for device in DEVICES.into_iter().map(str::to_owned).chain(disk) {
            let _ = write!(script, "add device; set match=\"{device}\"; end; ");
        }
        script
    }

    /// All of what zonecfg is told.
    fn script(&self, path: &str, resources: &str, digest: &str) -> String {
        let attribute = |name: &str, value: &str| {
            format!("add attr; set name={name}; set type=string; set value=\"{value}\"; end; ")
        };
        let marks = attribute(ZONE_MARK, &self.id.to_string()) + &attribute(ZONE_CONFIG, digest);
        format!(
            "{resources}{marks}set zonepath=\"{path}\"; set autoboot=false; set ip-type=exclusive; verify; commit"
        )
    }

    /// Where the zone's files are to be: beside those of its template.
    fn path(&self, rows: &[Row]) -> Result<String> {
        let template = &self.options.template;
        let unusable = |reason: &str| Error::Unusable { path: template.into(), reason: reason.to_owned() };
        let row = rows.iter().find(|row| row.name == *template);
        let row = row.ok_or_else(|| unusable(NO_TEMPLATE))?;
        let beside = Path::new(&row.path).parent().filter(|folder| folder.is_absolute());
        let beside =
            beside.ok_or_else(|| unusable("its files have no folder beside which others could be"))?;
        Ok(beside.join(self.name()).display().to_string())
    }

    async fn row(&self) -> Result<Option<Row>> {
        let name = self.name();
        Ok(rows(self.host).await?.into_iter().find(|row| row.name == name))
    }

    fn restless(&self) -> Error {
        let reason = "it does not come to the state that it is brought to".to_owned();
        Error::Unusable { path: self.name().into(), reason }
    }
}

/// Fails where no zone can be cloned of `template`.
pub(in crate::propolis) async fn check_template(host: &dyn Runner, template: &str) -> Result<()> {
    judge_template(&rows(host).await?, template)
}

fn judge_template(rows: &[Row], template: &str) -> Result<()> {
    let reason = match rows.iter().find(|row| row.name == template).map(|row| row.state) {
        Some(State::Installed) => return Ok(()),
        Some(State::Live) => "it runs, and only a zone that is halted can be cloned",
        Some(State::Configured | State::Incomplete) => "it is not installed, and cannot be cloned",
        None => NO_TEMPLATE,
    };
    Err(Error::Unusable { path: template.into(), reason: reason.to_owned() })
}

async fn rows(host: &dyn Runner) -> Result<Vec<Row>> {
    Ok(parse(&host.run(&commands::list_zones()).await?))
}

/// The next command on the way to nothing.
fn descent(name: &str, state: State) -> super::Command {
    match state {
        State::Live => commands::halt_zone(name),
        State::Installed | State::Incomplete => commands::uninstall_zone(name),
        State::Configured => commands::delete_zone(name),
    }
}

fn digest(text: &str) -> String {
    let hash = Sha256::digest(text);
    hash[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads what `zoneadm list -cp` prints.
fn parse(text: &str) -> Vec<Row> {
    let row = |line: &str| {
        let mut columns = vnics::fields(line).into_iter().skip(1);
        let (name, state, path) = (columns.next()?, columns.next()?, columns.next()?);
        let state = match state.as_str() {
            "configured" => State::Configured,
            "incomplete" => State::Incomplete,
            "installed" => State::Installed,
            // running, ready, mounted, shutting_down, down: in each it may be halted.
            _ => State::Live,
        };
        Some(Row { name, state, path })
    };
    text.lines().filter_map(row).collect()
}

/// The value of an attribute in what `zonecfg info attr` prints.
fn attribute(text: &str, name: &str) -> Option<String> {
    let mut lines = text.lines().map(str::trim);
    lines.find(|line| line.strip_prefix("name:").is_some_and(|found| found.trim() == name))?;
    let value =
        lines.take_while(|line| !line.starts_with("name:")).find_map(|line| line.strip_prefix("value:"))?;
    Some(value.trim().trim_matches('"').to_owned())
}
