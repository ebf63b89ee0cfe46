//! The nodes of a machine that speak of its guest: what it is told, how it is entered, what runs in it.

use std::time::Duration;

use super::misplaced::{in_check, in_lifecycle};
use super::{Args, Layers, Prop, Shape, TCP_PORT, Type, words};
use vmctl_providers::provision::Rerun;

use crate::desired::Run;

/// Less is over before a process runs, more is a slip of the pen.
const TIMEOUTS: Type = Type::Duration { low: Duration::from_secs(1), high: Duration::from_secs(24 * 3600) };

pub(in super::super) static CLOUD_INIT: Shape = Shape {
    default: "see [logins](#logins)",
    ..Shape::branch(
        "cloud-init",
        &[&HOSTNAME, &SSH_KEY, &SEED_USER, &PACKAGES, &WRITE_FILE, &SEED_RUN, &USER_DATA],
        "`cloud-init { hostname \"web\" }`",
        "What the guest is told at its [first boot](#logins)",
    )
};
pub(in super::super) static HOSTNAME: Shape = Shape {
    default: "the machine's name",
    ..Shape::leaf("hostname", Type::Text, "`hostname \"web\"`", "The guest's host name")
};
pub(in super::super) static SSH_KEY: Shape = Shape {
    default: "none",
    ..Shape::leaf(
        "ssh-key",
        Type::Path,
        "`ssh-key \"~/.ssh/id_ed25519.pub\"`",
        "A file of public keys that may log in too, besides vmctl's",
    )
};
pub(in super::super) static SEED_USER: Shape = Shape {
    block: &[&USER_SSH_KEY, &GROUPS, &SUDO, &SHELL],
    repeats: true,
    layers: Layers::Added,
    default: "the user who logs in",
    ..Shape::leaf(
        "user",
        Type::Text,
        "`user \"deploy\" { groups \"docker\" }`",
        "A user that the guest gets. The first is the one who logs in, unless `ssh` names another: that one has `sudo #true` and the group `sudo` where its block does not say otherwise, others have nothing that theirs does not say",
    )
};
static USER_SSH_KEY: Shape = Shape {
    repeats: true,
    default: "none",
    ..Shape::leaf(
        "ssh-key",
        Type::Path,
        "`ssh-key \"deploy.pub\"`",
        "A file of public keys that may log in as this user",
    )
};
pub(in super::super) static GROUPS: Shape = Shape {
    args: Args::Many(Type::Text),
    repeats: true,
    default: "none",
    ..Shape::leaf("groups", Type::Text, "`groups \"docker\" \"adm\"`", "Groups besides the user's own")
};
pub(in super::super) static SUDO: Shape = Shape {
    default: "`#false`",
    ..Shape::leaf(
        "sudo",
        Type::Scalar,
        "`sudo #true` or `sudo \"ALL=(app) NOPASSWD:ALL\"`",
        "What the user may do as others: everything without a password, or what a rule of sudoers(5) says",
    )
};
pub(in super::super) static SHELL: Shape = Shape {
    default: "`\"/bin/bash\"`",
    ..Shape::leaf("shell", Type::Text, "`shell \"/bin/sh\"`", "The user's shell")
};
pub(in super::super) static PACKAGES: Shape = Shape {
    args: Args::Many(Type::Text),
    repeats: true,
    layers: Layers::Added,
    default: "none",
    ..Shape::leaf(
        "packages",
        Type::Text,
        "`packages \"nginx\" \"git\"`",
        "Packages that the guest installs at its first boot",
    )
};
pub(in super::super) static WRITE_FILE: Shape = Shape {
    block: &[&FILE_CONTENT, &FILE_SOURCE, &MODE, &OWNER],
    repeats: true,
    layers: Layers::Added,
    default: "none",
    ..Shape::leaf(
        "write-file",
        Type::Text,
        "`write-file \"/etc/motd\" { content \"hello\\n\" }`",
        "A file that cloud-init writes before anything of the block runs: its absolute path in the guest. Without an `owner` it is root's, without a `mode` it has 0644",
    )
};
pub(in super::super) static FILE_CONTENT: Shape = Shape {
    default: "this or `source` is required",
    ..Shape::leaf("content", Type::Scalar, "`content \"hello\\n\"`", "What is in the file")
};
pub(in super::super) static FILE_SOURCE: Shape = Shape {
    default: "this or `content` is required",
    ..Shape::leaf("source", Type::Path, "`source \"motd\"`", "A text file of the host that is copied")
};
pub(in super::super) static SEED_RUN: Shape = Shape {
    repeats: true,
    layers: Layers::Added,
    default: "none",
    ..Shape::leaf(
        "run",
        Type::Text,
        "`run \"systemctl enable --now nginx\"`",
        "A command for the guest's shell, run as root at the end of the first boot, in the order of the text (cloud-init's `runcmd`)",
    )
};
pub(in super::super) static MERGE_KEYS: Prop = Prop::new(
    "merge-keys",
    Type::Truth,
    "`#false`",
    "`#true`: the login's key and the guest's host key, and what else the block says, go beside it as a part of one MIME document",
);
pub(in super::super) static USER_DATA: Shape = Shape {
    default: "vmctl's",
    props: std::slice::from_ref(&MERGE_KEYS),
    ..Shape::leaf(
        "user-data",
        Type::Path,
        "`user-data \"user-data.yaml\"`",
        "A file of your own user-data, passed on as it is in place of vmctl's",
    )
};

pub(in super::super) static SSH: Shape = Shape {
    default: "see [logins](#logins)",
    ..Shape::branch(
        "ssh",
        &[&USER, &PRIVATE_KEY],
        "`ssh { user \"vm\" }` or `ssh` alone",
        "How vmctl [logs in](#logins)",
    )
};
pub(in super::super) static USER: Shape = Shape {
    default: "`\"vm\"`",
    ..Shape::leaf("user", Type::Text, "`user \"vm\"`", "Who logs in: small letters, digits, `_` and `-`")
};
pub(in super::super) static PRIVATE_KEY: Shape = Shape {
    default: "a key made for this machine alone",
    ..Shape::leaf(
        "private-key",
        Type::Path,
        "`private-key \"~/.ssh/id_ed25519\"`",
        "A file of the private key to log in with, or of its public half if the ssh agent holds it",
    )
};

pub(in super::super) const SHELL_USAGE: &str =
    "`provision \"shell\" { inline \"uname -a\" }` or `provision \"shell\" { script \"setup.sh\" }`";
pub(in super::super) const FILE_USAGE: &str =
    "`provision \"file\" { source \"app.conf\"; destination \"/etc/app.conf\" }`";
/// Whether it is a file step.
pub(in super::super) const PROVISIONS: [(&str, bool); 2] = [("shell", false), ("file", true)];
pub(in super::super) static PROVISION: Shape = Shape {
    args: Args::Optional(Type::Choice(&words(&PROVISIONS))),
    block: &[
        &INLINE,
        &SCRIPT,
        &SOURCE,
        &DESTINATION,
        &MODE,
        &OWNER,
        &RUN,
        &RERUN,
        &RETRIES,
        &ENV,
        &STEP_USER,
        &STEP_TIMEOUT,
    ],
    repeats: true,
    layers: Layers::Added,
    default: "none",
    ..Shape::leaf(
        "provision",
        Type::Text,
        SHELL_USAGE,
        "A [step that runs in the guest](#provisioning), in the order of the text: a script, or a file that is copied. Without a word it is `shell`",
    )
};
pub(in super::super) static INLINE: Shape = Shape {
    default: "this or `script` is required for `shell`",
    ..Shape::leaf("inline", Type::Text, "`inline \"uname -a\"`", "`shell`: the text of a script")
};
pub(in super::super) static SCRIPT: Shape = Shape {
    default: "this or `inline` is required for `shell`",
    ..Shape::leaf("script", Type::Path, "`script \"setup.sh\"`", "`shell`: the file of a script")
};
pub(in super::super) static SOURCE: Shape = Shape {
    default: "required for `file`",
    ..Shape::leaf(
        "source",
        Type::Path,
        "`source \"app.conf\"`",
        "`file`: the file or folder of the host that is copied",
    )
};
pub(in super::super) static DESTINATION: Shape = Shape {
    default: "required for `file`",
    ..Shape::leaf(
        "destination",
        Type::Text,
        "`destination \"/etc/app.conf\"`",
        "`file`: where it goes in the guest; a relative path is below the user's home. What is in a folder goes into the folder of this name",
    )
};
pub(in super::super) static MODE: Shape = Shape {
    default: "that of the source",
    ..Shape::leaf(
        "mode",
        Type::Mode,
        "`mode \"0644\"`",
        "`file`: permission bits of what is written; a folder keeps those of its files",
    )
};
pub(in super::super) static OWNER: Shape = Shape {
    default: "the user who logs in",
    ..Shape::leaf(
        "owner",
        Type::Text,
        "`owner \"www-data:www-data\"`",
        "`file`: owner, and perhaps group, of what is written, by `sudo`; a user alone comes with that user's own group",
    )
};
pub(in super::super) const RUNS: [(&str, Run); 3] =
    [("on-change", Run::OnChange), ("once", Run::Once), ("always", Run::Always)];
pub(in super::super) static RUN: Shape = Shape {
    default: "`\"on-change\"`",
    ..Shape::leaf(
        "run",
        Type::Choice(&words(&RUNS)),
        "`run \"once\"`",
        "When it runs again after it ran: when its content changed, never, or at every apply",
    )
};
pub(in super::super) const RERUNS: [(&str, Rerun); 2] = [("ask", Rerun::Ask), ("safe", Rerun::Safe)];
pub(in super::super) static RERUN: Shape = Shape {
    default: "`\"ask\"` for `shell`, `\"safe\"` for `file`",
    ..Shape::leaf(
        "rerun",
        Type::Choice(&words(&RERUNS)),
        "`rerun \"safe\"`",
        "Whether it may simply run again where it was [cut off](#interrupted-steps), or somebody must decide",
    )
};
/// More is no retry but a loop.
const MAX_RETRIES: u64 = 10;
pub(in super::super) static RETRIES: Shape = Shape {
    default: "`0`",
    ..Shape::leaf(
        "retries",
        Type::Whole { low: 0, high: MAX_RETRIES },
        "`retries 3`",
        "How often it is tried again after a failure, in the same apply; only with `rerun \"safe\"`",
    )
};
pub(in super::super) static ENV: Shape = Shape {
    named: Some(&ENV_ENTRY),
    default: "none",
    ..Shape::branch("env", &[], "`env { MODE \"fast\" }`", "`shell`: environment variables of the script")
};
pub(in super::super) static ENV_ENTRY: Shape = Shape {
    default: "none",
    ..Shape::leaf("", Type::Scalar, "`MODE \"fast\"`", "One variable, by its name")
};
pub(in super::super) static STEP_USER: Shape = Shape {
    default: "the user who logs in",
    ..Shape::leaf(
        "user",
        Type::Text,
        "`user \"root\"`",
        "`shell`: who the script runs as, by `sudo` and in that user's home",
    )
};
pub(in super::super) static STEP_TIMEOUT: Shape = Shape {
    default: "`\"30m\"`",
    ..Shape::leaf(
        "timeout",
        TIMEOUTS,
        "`timeout \"5m\"`",
        "How long the step may take; then it is ended in the guest, and has failed",
    )
};

pub(in super::super) static READY: Shape = Shape {
    is_ordered: true,
    default: "a login works, if it has one",
    ..Shape::branch(
        "ready",
        &[&READY_SSH, &TCP, &EXEC, &LOG, &TIMEOUT],
        "`ready { tcp 5432; timeout \"2m\" }`",
        "When it counts as [ready](#ready): all probes of the block hold, asked in the order of the text",
    )
};
pub(in super::super) static READY_SSH: Shape = Shape {
    args: Args::None,
    default: "implied where the machine has a login",
    ..Shape::leaf(
        "ssh",
        Type::Text,
        "`ready { ssh }`",
        "A login works, and a seeded guest is done with its first boot",
    )
};
pub(in super::super) static TIMEOUT: Shape = Shape {
    default: "`\"10m\"`",
    ..Shape::leaf(
        "timeout",
        TIMEOUTS,
        "`timeout \"2m\"`",
        "How long it may take from the start until all of them hold",
    )
};
pub(in super::super) static CHECK: Shape = Shape {
    args: Args::One(Type::Text),
    block: &[&TCP, &EXEC, &LOG],
    repeats: true,
    is_ordered: true,
    layers: Layers::Added,
    default: "none",
    elsewhere: in_check,
    ..Shape::leaf(
        "check",
        Type::Text,
        "`check \"answers\" { tcp 80 }`",
        "What must [hold while it runs](#check), asked by `vmctl plan` and `vmctl drift`: a name of one line, and at least one probe",
    )
};
pub(in super::super) static TCP: Shape = Shape {
    repeats: true,
    layers: Layers::Added,
    default: "none",
    ..Shape::leaf(
        "tcp",
        TCP_PORT,
        "`tcp 5432`",
        "Something in the guest accepts connections to this port; needs a login",
    )
};
pub(in super::super) static EXEC: Shape = Shape {
    repeats: true,
    layers: Layers::Added,
    default: "none",
    ..Shape::leaf(
        "exec",
        Type::Text,
        "`exec \"pg_isready\"`",
        "This shell command, run in the guest, ends with 0; without a login the guest agent runs it, as root",
    )
};
pub(in super::super) static LOG: Shape = Shape {
    repeats: true,
    layers: Layers::Added,
    default: "none",
    ..Shape::leaf(
        "log",
        Type::Pattern,
        "`log \"ready to accept connections\"`",
        "A line of the console since the last start matches this regular expression",
    )
};

pub(in super::super) static LIFECYCLE: Shape = Shape {
    default: "nothing special",
    elsewhere: in_lifecycle,
    ..Shape::branch(
        "lifecycle",
        &[&PREVENT_DESTROY, &IGNORE_CHANGES, &REPLACE_WHEN],
        "`lifecycle { prevent-destroy }`",
        "What may and may not [become of it](#lifecycle)",
    )
};
pub(in super::super) static PREVENT_DESTROY: Shape = Shape::flag(
    "prevent-destroy",
    "`prevent-destroy` or `prevent-destroy #false`",
    "No plan may lose the data on it",
);
pub(in super::super) static IGNORE_CHANGES: Shape = Shape {
    args: Args::Many(Type::Text),
    repeats: true,
    layers: Layers::Added,
    default: "none",
    ..Shape::leaf(
        "ignore-changes",
        Type::Text,
        "`ignore-changes \"memory\" \"cloud-init\"`",
        "Names of [fields](#lifecycle) whose changes are passed over",
    )
};
pub(in super::super) static REPLACE_WHEN: Shape = Shape {
    args: Args::Many(Type::Text),
    repeats: true,
    layers: Layers::Added,
    default: "none",
    ..Shape::leaf(
        "replace-when",
        Type::Text,
        "`replace-when \"provision\" \"vm.db\"`",
        "Names of fields, or `vm.NAME` of other machines, whose change replaces the machine",
    )
};

/// Longest name of a check: it stands in one line of a report.
pub(in super::super) const MAX_CHECK_NAME: usize = 63;
