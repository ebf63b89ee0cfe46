//! A plan as text for people: what is lost first, then drift, then each change. Symbols always; colour where the
//! stream takes it. Whatever came from a file or a guest is made harmless.

mod values;

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use vmctl_planner::admission::size;
use vmctl_planner::pins::{PlannedPin, UpstreamState};
use vmctl_planner::{Accepts, Action, Change, CheckStatus, KeptVolume, Mode, PlanDocument, Refusal};
use vmctl_providers::Stray;

use crate::ui::{self, BAD, DOUBTFUL, GOOD, LABEL};

pub(crate) use values::{Shown, shown, value};

/// Columns in front of what belongs to a change.
const INDENT: usize = 8;

/// Lines of one diff that are shown; the report shows all of them.
const DIFF_LINES: usize = 60;

/// The whole plan, in lines of at most `width` columns where words allow it.
pub(crate) fn plan(plan: &PlanDocument<'_>, width: usize) -> String {
    let mut page = Page { text: String::new(), width };
    page.refused(plan);
    page.shortages(plan);
    page.losses(plan);
    page.drift(plan);
    page.left_alone(plan);
    for change in plan.effective() {
        page.change(change);
        page.gap();
    }
    page.kept(plan);
    page.pins(plan);
    page.checks(plan);
    page.scope(plan);
    page.line(2, &summary(plan));
    page.text
}

/// The last line: how many machines each kind of change concerns.
pub(crate) fn summary(plan: &PlanDocument<'_>) -> String {
    let counts = &plan.summary;
    if plan.options.mode == Mode::RefreshOnly {
        return match counts.drifted + plan.strays.len() {
            0 => format!("{LABEL}No drift.{LABEL:#}{}", unchanged(counts.unchanged)),
            _ => format!(
                "{LABEL}Drift:{LABEL:#} {} moved, {} unknown to the record. `vmctl plan` shows what apply does about \
                 it, `vmctl apply --refresh-only` accepts what can be accepted.",
                machines(counts.drifted),
                machines(plan.strays.len()),
            ),
        };
    }
    if plan.empty && counts.left_alone == 0 {
        return format!("{LABEL}No changes.{LABEL:#}{}", unchanged(counts.unchanged));
    }
    let mut line = format!(
        "{LABEL}Plan:{LABEL:#} {} to create, {} to update, {} to replace, {} to destroy",
        counts.create, counts.update, counts.replace, counts.destroy
    );
    for (count, what) in [(counts.forget, "to forget"), (counts.left_alone, "left alone")] {
        if count > 0 {
            let _ = write!(line, ", {count} {what}");
        }
    }
    format!("{line}.{}", unchanged(counts.unchanged))
}

fn unchanged(count: usize) -> String {
    if count == 0 { String::new() } else { format!(" {count} unchanged.") }
}

fn machines(count: usize) -> String {
    if count == 1 { "1 machine".to_owned() } else { format!("{count} machines") }
}

/// The symbol of an action, and its colour.
fn symbol(action: Action) -> (&'static str, Style) {
    let style = match action {
        Action::NoOp | Action::Forget => Style::new(),
        Action::Create => AnsiColor::Green.on_default(),
        Action::Update
        | Action::Start
        | Action::Stop
        | Action::Suspend
        | Action::Resume
        | Action::Restart
        | Action::Provision => AnsiColor::Yellow.on_default(),
        Action::Replace | Action::Destroy => AnsiColor::Red.on_default(),
    };
    (action.symbol(), style)
}

/// What a stray is, in words.
pub(crate) fn stray(stray: &Stray) -> String {
    let process = stray.pid.map(|pid| format!("process {pid}"));
    let folder = stray.work_dir.as_ref().map(|folder| format!("folder `{}`", folder.display()));
    let places: Vec<_> = process.into_iter().chain(folder).collect();
    format!("`{}` bears vmctl's mark and is not recorded: {}", stray.name, places.join(", "))
}

/// What people should know of a pin: that its server moved on, or could not be asked.
pub(crate) fn pin_note(pin: &PlannedPin) -> Option<String> {
    let seen = pin.seen.as_ref()?;
    let detail = seen.detail.as_deref().unwrap_or_default();
    match seen.state {
        UpstreamState::Same => None,
        UpstreamState::Moved => Some(format!(
            "{} has something else by now ({detail}); `vmctl image update` moves the pin",
            pin.url
        )),
        UpstreamState::Unknown => {
            Some(format!("{} could not be compared with its server: {detail}", pin.url))
        }
    }
}

/// What a volume is that is kept, in words.
pub(crate) fn kept(volume: &KeptVolume) -> String {
    format!("{}: {} in `{}`", volume.address, size(volume.size_bytes), volume.path.display())
}

struct Page {
    text: String,
    width: usize,
}

impl Page {
    fn raw(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn gap(&mut self) {
        self.text.push('\n');
    }

    /// A line of our own and others' words; longer ones go on below, `hang` columns in.
    fn line(&mut self, hang: usize, line: &str) {
        let indent = " ".repeat(hang);
        let options = textwrap::Options::new(self.width.max(hang + 20))
            .subsequent_indent(&indent)
            .break_words(false)
            .word_splitter(textwrap::WordSplitter::NoHyphenation);
        for line in textwrap::wrap(line, options) {
            self.raw(&line);
        }
    }

    fn refused(&mut self, plan: &PlanDocument<'_>) {
        let refused: Vec<_> =
            plan.changes.iter().filter_map(|change| Some((change, change.refused.as_ref()?))).collect();
        if refused.is_empty() {
            return;
        }
        self.raw(&format!("{BAD}Refused:{BAD:#} this plan cannot be applied."));
        for (change, Refusal { text, .. }) in refused {
            self.line(6, &format!("  {}: {}", change.address, ui::visible(text)));
        }
        self.gap();
    }

    fn shortages(&mut self, plan: &PlanDocument<'_>) {
        if plan.shortages.is_empty() {
            return;
        }
        let what = if plan.shortages.iter().all(|shortage| shortage.overcommitted) {
            "apply goes on all the same (--overcommit)."
        } else {
            "apply refuses this plan without --overcommit."
        };
        self.raw(&format!("{DOUBTFUL}Too little room:{DOUBTFUL:#} {what}"));
        for shortage in plan.shortages.iter() {
            self.line(6, &format!("  {}", ui::visible(&shortage.text)));
        }
        self.gap();
    }

    fn losses(&mut self, plan: &PlanDocument<'_>) {
        if plan.changes.iter().all(|change| change.losses.is_empty()) {
            return;
        }
        self.raw(&format!("{BAD}Data will be lost:{BAD:#}"));
        for change in plan.changes.iter() {
            let (symbol, style) = symbol(change.action);
            for loss in &change.losses {
                let line = format!("{style}{symbol:>3}{style:#} {}: {}", change.address, ui::visible(loss));
                self.line(6, &line);
            }
        }
        self.gap();
    }

    /// What was found to differ from what was recorded, and what is done about it.
    fn drift(&mut self, plan: &PlanDocument<'_>) {
        if !plan.has_drift() {
            return;
        }
        self.raw(&format!("{DOUBTFUL}Drift:{DOUBTFUL:#} what is there is not what was recorded."));
        for change in plan.changes.iter() {
            let consequence = match change.action {
                _ if plan.options.mode == Mode::RefreshOnly => match change.accepts {
                    Some(Accepts::Update) => " (can be accepted)".to_owned(),
                    Some(Accepts::Forget) => " (can be accepted: it is then forgotten)".to_owned(),
                    None => " (cannot be accepted)".to_owned(),
                },
                Action::NoOp if change.left_alone.is_some() => " (left alone, see below)".to_owned(),
                Action::NoOp => " (nothing needs to be done)".to_owned(),
                action => format!(" (apply: {})", action.as_str()),
            };
            for drift in &change.drift {
                let text = ui::visible(&drift.text);
                self.line(6, &format!("  {}: {text}{consequence}", change.address));
            }
        }
        for found in plan.strays.iter() {
            self.line(6, &format!("  {} (nothing is done to it)", ui::visible(&stray(found))));
        }
        self.gap();
    }

    fn left_alone(&mut self, plan: &PlanDocument<'_>) {
        let alone: Vec<_> =
            plan.changes.iter().filter_map(|change| Some((change, change.left_alone.as_ref()?))).collect();
        if alone.is_empty() {
            return;
        }
        self.raw(&format!("{DOUBTFUL}Left alone:{DOUBTFUL:#}"));
        for (change, alone) in alone {
            let instead = match alone.instead_of {
                Action::NoOp => String::new(),
                action => format!(" (called for: {})", action.as_str()),
            };
            self.line(6, &format!("  {}: {}{instead}", change.address, ui::visible(&alone.reason)));
            self.fields(change);
        }
        self.gap();
    }

    fn change(&mut self, change: &Change) {
        let (symbol, style) = symbol(change.action);
        let why = if change.reasons.is_empty() {
            String::new()
        } else {
            format!(" ({})", change.reasons.join("; "))
        };
        self.line(
            INDENT,
            &format!(
                "{style}{symbol:>3}{style:#} {LABEL}{}{LABEL:#}: {}{}",
                change.address,
                change.action.as_str(),
                ui::visible(&why)
            ),
        );
        self.fields(change);
        for diff in &change.diffs {
            self.diff(&diff.what, &diff.diff);
        }
        if !change.provision.is_empty() {
            let runs: Vec<_> =
                change.provision.iter().map(|run| format!("{}. {}", run.number, run.label)).collect();
            let runs = ui::visible(&runs.join(", "));
            self.line(INDENT + 2, &format!("{:INDENT$}runs: {runs}", ""));
        }
        if !change.known_after_apply.is_empty() {
            let known = change.known_after_apply.join(", ");
            self.line(INDENT + 2, &format!("{:INDENT$}known after apply: {known}", ""));
        }
    }

    fn fields(&mut self, change: &Change) {
        // Where lines are compared, digests say nothing more.
        let is_compared = |name: &str| change.diffs.iter().any(|diff| diff.what == name);
        let fields = change.fields.iter().filter(|field| !is_compared(&field.field));
        let shown: Vec<_> = fields.filter_map(|field| Some((&*field.field, shown(field)?))).collect();
        let name_width = shown.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let hang = INDENT + name_width + 2;
        for (name, shown) in shown {
            let head = format!("{:INDENT$}{name:name_width$}  ", "");
            match shown {
                Shown::New(value) => self.line(hang, &format!("{head}{}", ui::visible(&value))),
                Shown::Changed { before, after } => self.before_and_after(&head, hang, &before, &after),
                Shown::Elements { gone, new } => {
                    let gone = gone.iter().map(|item| format!("- {}", ui::visible(item)));
                    let all = gone.chain(new.iter().map(|item| format!("+ {}", ui::visible(item))));
                    for (place, item) in all.enumerate() {
                        let head = if place == 0 { head.clone() } else { " ".repeat(hang) };
                        self.line(hang + 2, &format!("{head}{item}"));
                    }
                }
            }
        }
    }

    /// On one line if there is room, else below each other.
    fn before_and_after(&mut self, head: &str, hang: usize, before: &str, after: &str) {
        let (before, after) = (ui::visible(before), ui::visible(after));
        let one = format!("{head}{before} => {after}");
        if textwrap::core::display_width(&one) <= self.width {
            self.raw(&one);
        } else {
            self.line(hang + 2, &format!("{head}- {before}"));
            self.line(hang + 2, &format!("{:hang$}+ {after}", ""));
        }
    }

    fn diff(&mut self, what: &str, diff: &str) {
        self.raw(&format!("{:INDENT$}{LABEL}{}{LABEL:#}", "", ui::visible(what).replace('\n', " ")));
        let lines: Vec<_> = diff.lines().collect();
        for line in lines.iter().take(DIFF_LINES) {
            self.raw(&format!("{:INDENT$}  {}", "", ui::diff_line(line)));
        }
        if let Some(left) = lines.len().checked_sub(DIFF_LINES).filter(|left| *left > 0) {
            self.raw(&format!("{:INDENT$}  … and {left} more lines; `--json` and `--html` show them", ""));
        }
    }

    fn kept(&mut self, plan: &PlanDocument<'_>) {
        if plan.kept.is_empty() {
            return;
        }
        self.raw(&format!("{LABEL}Kept:{LABEL:#} no machine needs them; `--volumes` removes them."));
        for volume in plan.kept.iter() {
            self.line(6, &format!("  {}", ui::visible(&kept(volume))));
        }
        self.gap();
    }

    /// Images of which servers have something else than what is pinned, or of which nobody knows.
    fn pins(&mut self, plan: &PlanDocument<'_>) {
        let told: Vec<_> = plan.pins.iter().filter_map(pin_note).collect();
        if told.is_empty() {
            return;
        }
        self.raw(&format!("{LABEL}Images:{LABEL:#} what is pinned is what is used."));
        for note in told {
            self.line(6, &format!("  {}", ui::visible(&note)));
        }
        self.gap();
    }

    fn checks(&mut self, plan: &PlanDocument<'_>) {
        let told: Vec<_> = plan.checks.iter().filter(|check| check.status != CheckStatus::Pass).collect();
        if plan.checks.is_empty() {
            return;
        }
        if told.is_empty() {
            self.raw(&format!("{GOOD}Checks:{GOOD:#} {} passed.", plan.checks.len()));
            self.gap();
            return;
        }
        self.raw(&format!(
            "{DOUBTFUL}Checks:{DOUBTFUL:#} {} of {} did not pass.",
            told.len(),
            plan.checks.len()
        ));
        for check in told {
            let detail = check.detail.as_deref().unwrap_or_default();
            let line = format!("  {} `{}` {}: {detail}", check.address, check.name, check.status.as_str());
            self.line(6, &ui::visible(&line));
        }
        self.gap();
    }

    fn scope(&mut self, plan: &PlanDocument<'_>) {
        let names = |names: &std::collections::BTreeSet<vmctl_providers::Name>| {
            names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        if matches!(plan.options.mode, Mode::Turn(_) | Mode::Provision) {
            return;
        }
        if plan.options.no_provision {
            self.line(2, "No provisioning step runs (--no-provision).");
        }
        if plan.options.cold {
            self.line(2, "No machine is made from a template (--cold).");
        }
        if !plan.options.targets.is_empty() {
            let only = names(&plan.options.targets);
            self.line(2, &format!("Only {only} and what belongs to it was planned for (--target)."));
        }
        if !plan.options.excludes.is_empty() {
            let without = names(&plan.options.excludes);
            self.line(2, &format!("{without} and what belongs to it was left out (--exclude)."));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::PathBuf;

    use jiff::Timestamp;
    use uuid::Uuid;
    use vmctl_planner::desired::{DesiredImage, Lifecycle, Move, ready_at_login};
    use vmctl_planner::{
        CheckResult, Desired, DesiredVm, Inputs, Looked, Observed, Options, Plan, Power, RecordedVm, Sight,
        Until,
    };
    use vmctl_providers::image::{ImageCache, ImageIdentity};
    use vmctl_providers::provision::{ProvisionAction, ProvisionStep};
    use vmctl_providers::{
        CloudInitConfig, Digest, Forward, ImageFormat, InstanceId, Protocol, Secret, SshConfig,
    };
    use vmctl_state::{Address, Phase, ProvisionRecord, Record, Snapshot};

    use super::*;

    /// Two states of a project between which everything happens that can happen.
    fn shop() -> (Desired, Snapshot, Observed) {
        let needs = BTreeMap::from([("replaced".parse().unwrap(), Until::Provisioned)]);
        let forward = |host_port, guest_port| Forward {
            protocol: Protocol::Tcp,
            host_address: [127, 0, 0, 1].into(),
            host_port,
            guest_port,
        };
        let seeded = |text: &str, vm: DesiredVm| DesiredVm {
            cloud_init: Some(CloudInitConfig {
                hostname: vm.name.to_hostname(),
                user: "vm".to_owned(),
                authorized_keys: Vec::new(),
                user_data: Some(Secret::new(text)),
                more: Default::default(),
            }),
            ..vm
        };
        let protected = |vm: DesiredVm| DesiredVm {
            lifecycle: Lifecycle { prevent_destroy: true, ..Lifecycle::default() },
            ..vm
        };
        let mut replaced = vm("replaced");
        if let Some(DesiredImage::Local { identity, .. }) = &mut replaced.image {
            identity.digest = Digest::of("two");
        }
        let vms = [
            DesiredVm { depends_on: needs, forwards: vec![forward(0, 80)], ..vm("added") },
            DesiredVm { memory_mib: 2048, ..vm("hung") },
            DesiredVm { provision: vec![step("se\u{1b}[2Jtup-2.sh")], ..vm("provisioned") },
            replaced,
            DesiredVm { memory_mib: 2048, vcpus: 2, ..vm("restarted") },
            DesiredVm { power: Power::Stopped, ..vm("stopped") },
            DesiredVm { disk_bytes: None, ..vm("shrunk") },
            seeded("users: []\npassword: new\n", vm("seeded")),
            DesiredVm { forwards: vec![forward(8080, 80), forward(9090, 90)], ..vm("forwarded") },
            vm("renamed"),
            vm("unchanged"),
        ];
        let desired = Desired {
            vms: vms.map(|vm| (vm.name.clone(), vm)).into(),
            moved: vec![Move { from: "old-name".parse().unwrap(), to: "renamed".parse().unwrap() }],
            removed: BTreeSet::from(["let-go".parse().unwrap()]),
            ..Desired::new("shop".parse().unwrap())
        };
        let before = [
            vm("hung"),
            vm("provisioned"),
            vm("removed"),
            protected(vm("protected")),
            vm("replaced"),
            vm("restarted"),
            vm("stopped"),
            DesiredVm { disk_bytes: Some(20 << 30), ..vm("shrunk") },
            seeded("users: []\npassword: old\n", vm("seeded")),
            DesiredVm { forwards: vec![forward(8080, 80), forward(8081, 81)], ..vm("forwarded") },
            vm("old-name"),
            vm("let-go"),
            vm("unchanged"),
        ];
        let mut recorded = Snapshot::empty(Uuid::from_u128(7), Timestamp::UNIX_EPOCH);
        for vm in before {
            let record = record(&vm);
            recorded.records.insert(record.address.clone(), record);
        }
        let unreachable = Sight::Unreachable { reason: "no answer within 5s".to_owned(), elsewhere: false };
        let stray = Stray {
            name: "lost".to_owned(),
            id: InstanceId(Uuid::from_u128(9)),
            pid: Some(4711),
            work_dir: Some(PathBuf::from("/data/projects/shop/vms/lost")),
            released: false,
            note: None,
            handle: None,
        };
        let check = |name: &str, status, detail: Option<&str>| CheckResult {
            address: Address::vm("unchanged"),
            name: name.to_owned(),
            status,
            detail: detail.map(str::to_owned),
        };
        let observed = Observed {
            upstream: BTreeMap::new(),
            templates: BTreeMap::new(),
            vms: [(Address::vm("hung"), unreachable)].into(),
            strays: vec![stray],
            volumes: None,
            looked: Looked { refreshed: true, checks_asked: true },
            checks: vec![
                check("answers", CheckStatus::Fail, Some("tcp 80: connection refused")),
                check("quick", CheckStatus::Pass, None),
            ],
        };
        (desired, recorded, observed)
    }

    fn text(width: usize) -> String {
        let (desired, recorded, observed) = shop();
        let images = ImageCache::new("/cache");
        let inputs = Inputs {
            project: &desired.project,
            desired: Some(&desired),
            recorded: &recorded,
            observed: &observed,
            images: &images,
            options: &Options::default(),
        };
        let mut made = Plan::new(inputs).unwrap();
        let known = |digest: &str| {
            let texts = ["users: []\npassword: old\n", "setup.sh"];
            texts.into_iter().find(|text| Digest::of(text).as_str() == digest).map(str::to_owned)
        };
        made.show_texts(&desired, &recorded, known).unwrap();
        anstream::adapter::strip_str(&plan(&PlanDocument::from(&made), width)).to_string()
    }

    #[test]
    fn plan_says_what_happens_to_each_machine_and_why() {
        insta::assert_snapshot!(text(100));
    }

    #[test]
    fn narrow_terminal_gets_narrow_lines() {
        let text = text(60);
        let long: Vec<_> = text.lines().filter(|line| line.chars().count() > 60).collect();
        // Single words, such as paths, are never cut.
        assert!(long.iter().all(|line| line.split_whitespace().any(|word| word.len() > 30)), "{long:#?}");
    }

    fn vm(name: &str) -> DesiredVm {
        DesiredVm {
            image: Some(DesiredImage::Local {
                source: "/images/debian.qcow2".into(),
                identity: ImageIdentity {
                    digest: Digest::of("one"),
                    format: ImageFormat::Qcow2,
                    virtual_size: 1 << 30,
                },
            }),
            ssh: Some(SshConfig { user: "vm".to_owned(), private_key: None }),
            provision: vec![step("setup.sh")],
            ready: ready_at_login(Some(&SshConfig { user: "vm".to_owned(), private_key: None })),
            ..DesiredVm::new(name.parse().unwrap())
        }
    }

    fn step(script: &str) -> ProvisionStep {
        let action = ProvisionAction::Shell { script: script.to_owned() };
        ProvisionStep {
            number: 1,
            label: script.to_owned(),
            action,
            options: Default::default(),
            digest: Digest::of(script),
            secrets: Default::default(),
        }
    }

    /// A machine that was made exactly as `vm` says.
    fn record(vm: &DesiredVm) -> Record {
        let provisioned = vm
            .provision
            .iter()
            .map(|step| ProvisionRecord { digest: step.digest.to_string(), at: Timestamp::UNIX_EPOCH });
        Record {
            address: Address::vm(vm.name.as_str()),
            instance: Uuid::from_u128(1),
            backend: vm.backend.to_string(),
            spec: serde_json::to_value(RecordedVm::from(vm)).unwrap().into(),
            handle: None,
            phase: Phase::Running,
            ready: true,
            taint: None,
            provisioned: provisioned.collect(),
            ran_once: Vec::new(),
            interrupted: None,
            provision_failed: None,
            created: Timestamp::UNIX_EPOCH,
            updated: Timestamp::UNIX_EPOCH,
        }
    }
}
