//! A plan as text for people. Symbols always; colour where the stream takes it.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use serde_json::Value;
use vmctl_planner::{Action, Change, FieldChange, Plan};

use crate::ui::{self, DOUBTFUL, LABEL};

/// Hexadecimal digits of a digest that are shown: enough to tell two images apart.
const SHOWN_DIGITS: usize = 12;

/// The whole plan: drift, changes, summary line.
pub(crate) fn plan(plan: &Plan) -> String {
    let mut text = String::new();
    drift(plan, &mut text);
    for change in plan.effective() {
        render_change(change, &mut text);
        text.push('\n');
    }
    text.push_str(&summary(plan));
    text.push('\n');
    text
}

/// The last line: how many machines each kind of change concerns.
pub(crate) fn summary(plan: &Plan) -> String {
    if plan.is_empty() {
        return format!("{LABEL}No changes.{LABEL:#}");
    }
    let counts = plan.summary();
    format!(
        "{LABEL}Plan:{LABEL:#} {} to create, {} to update, {} to replace, {} to destroy.",
        counts.create, counts.update, counts.replace, counts.destroy
    )
}

/// What was found to differ from what was recorded, and what is done about it.
fn drift(plan: &Plan, text: &mut String) {
    if !plan.has_drift() {
        return;
    }
    line(text, format_args!("{DOUBTFUL}Drift:{DOUBTFUL:#} what runs is not what was recorded."));
    for change in plan.changes.iter().filter(|change| !change.drift.is_empty()) {
        let consequence = match change.reasons.first() {
            _ if change.is_effective() => String::new(),
            Some(reason) => format!(" ({reason})"),
            None => " (nothing needs to be done)".to_owned(),
        };
        for found in &change.drift {
            line(
                text,
                format_args!("  {}: {}{}", change.address, ui::visible(found), ui::visible(&consequence)),
            );
        }
    }
    text.push('\n');
}

fn render_change(change: &Change, text: &mut String) {
    let (symbol, style) = symbol(change.action);
    let why =
        if change.reasons.is_empty() { String::new() } else { format!(" ({})", change.reasons.join("; ")) };
    line(
        text,
        format_args!(
            "{style}{symbol:>3}{style:#} {LABEL}{}{LABEL:#}: {}{}",
            change.address,
            change.action.as_str(),
            ui::visible(&why)
        ),
    );
    let width = change.fields.iter().map(|field| field.field.len()).max().unwrap_or(0);
    for field in change.fields.iter().filter(|field| is_telling(field)) {
        line(text, format_args!("        {:width$}  {}", field.field, ui::visible(&values(field))));
    }
    if matches!(change.action, Action::Replace | Action::Destroy) {
        line(text, format_args!("        its disk is removed with everything on it"));
    }
    if !change.provision.is_empty() {
        line(text, format_args!("        runs: {}", ui::visible(&change.provision.join(", "))));
    }
}

/// Empty lists say nothing on a machine that is new.
fn is_telling(field: &FieldChange) -> bool {
    let is_empty = match &field.after {
        Value::Array(items) => items.is_empty(),
        Value::Object(items) => items.is_empty(),
        _ => false,
    };
    !(field.before.is_null() && is_empty)
}

fn values(field: &FieldChange) -> String {
    let after = value(&field.after, field.unit);
    if field.before.is_null() { after } else { format!("{} -> {after}", value(&field.before, field.unit)) }
}

fn value(value: &Value, unit: &str) -> String {
    match value {
        Value::Null => "(none)".to_owned(),
        Value::String(text) => match text.strip_prefix("sha256:") {
            Some(digits) => format!("sha256:{}…", digits.get(..SHOWN_DIGITS).unwrap_or(digits)),
            None => text.clone(),
        },
        Value::Number(number) if !unit.is_empty() => format!("{number} {unit}"),
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        Value::Array(items) if items.is_empty() => "(none)".to_owned(),
        Value::Array(items) => {
            items.iter().map(|item| self::value(item, unit)).collect::<Vec<_>>().join(", ")
        }
        Value::Object(entries) => {
            // A tagged value is told by its tag, which comes first.
            let tag = entries.get("kind").map(|kind| self::value(kind, unit));
            let rest = entries
                .iter()
                .filter(|(key, item)| key.as_str() != "kind" && !item.is_null())
                .map(|(key, item)| format!("{} {}", key.replace('_', "-"), self::value(item, unit)));
            tag.into_iter().chain(rest).collect::<Vec<_>>().join(" ")
        }
    }
}

fn symbol(action: Action) -> (&'static str, Style) {
    let good = AnsiColor::Green.on_default();
    let change = AnsiColor::Yellow.on_default();
    let bad = AnsiColor::Red.on_default();
    match action {
        Action::NoOp => ("", Style::new()),
        Action::Create => ("+", good),
        Action::Update | Action::Start | Action::Stop | Action::Suspend | Action::Resume => ("~", change),
        Action::Restart => ("!", change),
        Action::Replace => ("-/+", bad),
        Action::Provision => (">", change),
        Action::Destroy => ("-", bad),
    }
}

/// Writing to a `String` cannot fail.
fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    let _ = writeln!(text, "{arguments}");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;
    use serde_json::json;
    use uuid::Uuid;
    use vmctl_planner::desired::DesiredImage;
    use vmctl_planner::{Desired, DesiredVm, Inputs, Observed, Power, RecordedVm, Sight, Until};
    use vmctl_providers::image::{ImageCache, ImageIdentity};
    use vmctl_providers::provision::{ProvisionAction, ProvisionStep};
    use vmctl_providers::{BackendTag, Digest, ImageFormat, NetworkConfig, SshConfig};
    use vmctl_state::{Address, Phase, ProvisionRecord, Record, Snapshot};

    use super::*;

    #[test]
    fn values_are_short_and_readable() {
        let cases = [
            (json!(null), "", "(none)"),
            (json!(512), "MiB", "512 MiB"),
            (json!("sha256:0123456789abcdef0123"), "", "sha256:0123456789ab…"),
            (json!([{ "kind": "user" }]), "", "user"),
            (json!([{ "kind": "tap", "bridge": "br0" }]), "", "tap bridge br0"),
            (json!({ "user": "vm", "private_key": null }), "", "user vm"),
            (json!([]), "", "(none)"),
        ];
        for (input, unit, shown) in cases {
            assert_eq!(value(&input, unit), shown);
        }
    }

    fn vm(name: &str) -> DesiredVm {
        DesiredVm {
            name: name.parse().unwrap(),
            backend: BackendTag::Qemu,
            image: DesiredImage {
                source: "/images/debian.qcow2".into(),
                identity: ImageIdentity {
                    digest: Digest::of("one"),
                    format: ImageFormat::Qcow2,
                    virtual_size: 1 << 30,
                },
            },
            vcpus: 1,
            memory_mib: 1024,
            disk_bytes: None,
            networks: vec![NetworkConfig::User],
            forwards: Vec::new(),
            cloud_init: None,
            ssh: Some(SshConfig { user: "vm".to_owned(), private_key: None }),
            provision: vec![step("setup.sh")],
            power: Power::Running,
            depends_on: BTreeMap::new(),
        }
    }

    fn step(script: &str) -> ProvisionStep {
        let action = ProvisionAction::Shell { script: script.to_owned() };
        ProvisionStep { number: 1, label: script.to_owned(), action, digest: Digest::of(script) }
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
            spec: serde_json::to_value(RecordedVm::from(vm)).unwrap(),
            handle: None,
            phase: Phase::Running,
            ready: true,
            taint: None,
            provisioned: provisioned.collect(),
            created: Timestamp::UNIX_EPOCH,
            updated: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn plan_says_what_happens_to_each_machine_and_why() {
        let needs = BTreeMap::from([("replaced".parse().unwrap(), Until::Provisioned)]);
        let mut replaced = vm("replaced");
        replaced.image.identity.digest = Digest::of("two");
        let vms = [
            DesiredVm { depends_on: needs, ..vm("added") },
            vm("hung"),
            DesiredVm { provision: vec![step("se\u{1b}[2Jtup-2.sh")], ..vm("provisioned") },
            replaced,
            DesiredVm { memory_mib: 2048, vcpus: 2, ..vm("restarted") },
            DesiredVm { power: Power::Stopped, ..vm("stopped") },
            vm("unchanged"),
        ];
        let desired = Desired {
            project: "shop".parse().unwrap(),
            vms: vms.map(|vm| (vm.name.clone(), vm)).into(),
            inputs: Vec::new(),
        };
        let mut recorded = Snapshot::empty(Uuid::from_u128(7), Timestamp::UNIX_EPOCH);
        for name in ["hung", "provisioned", "removed", "replaced", "restarted", "stopped", "unchanged"] {
            let record = record(&vm(name));
            recorded.records.insert(record.address.clone(), record);
        }
        let unreachable = Sight::Unreachable { reason: "no answer within 5s".to_owned() };
        let observed = Observed { vms: [(Address::vm("hung"), unreachable)].into() };
        let images = ImageCache::new("/cache");
        let project = desired.project.clone();
        let inputs = Inputs {
            project: &project,
            desired: Some(&desired),
            recorded: &recorded,
            observed: &observed,
            images: &images,
        };
        let text = plan(&Plan::new(inputs).unwrap());
        insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string());
    }
}
