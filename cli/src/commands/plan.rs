//! `plan`: shows what `apply` would do.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;
use vmctl_planner::apply::obstacles;
use vmctl_planner::pins::{Ask, PinnedBy, ask_upstream};
use vmctl_planner::vmfile::{Loaded, Problem};
use vmctl_planner::warm;
use vmctl_planner::{
    Action, Change, Desired, DriftKind, Inputs, KeptValues, Mode, Observed, Options, Plan, PlanDocument,
    PlanError, Refusal, RefusalKind, SavedPlan, ShortageKind, Values, checks, observed, refresh, shortages,
};
use vmctl_providers::image::{FetchOptions, ImageCache, Upstream};
use vmctl_providers::{Name, RouterHypervisor, Volumes};
use vmctl_state::{ProjectDir, Snapshot, project};

use crate::args::{ChecksWhen, PlanArgs, PlanningArgs};
use crate::context::{Context, large_runtime};
use crate::error::{CliError, Exit, in_words};
use crate::files::Destination;
use crate::{machines, output, summary, ui};

/// Runs the command.
pub(crate) fn run(ctx: &Context, args: &PlanArgs) -> Result<Exit, CliError> {
    if args.checks == ChecksWhen::Fail && args.planning.no_refresh {
        return Err(CliError::new("--checks fail asks machines, and --no-refresh looks at none")
            .help("leave one of them out".to_owned())
            .exit(Exit::Usage));
    }
    let goal = Goal::of(ctx, &args.planning)?;
    let look = Look {
        refresh: !args.planning.no_refresh,
        checks: args.checks,
        upstream: true,
        overcommit: args.planning.overcommit,
        ahead: !args.planning.no_refresh,
    };
    let (plan, observed) = goal.plan_now(ctx, look)?;
    refuse_unlocked(&plan, args.planning.locked)?;
    let document = PlanDocument::from(&plan);
    let out = args.out.as_deref().map(|path| Destination::of_plan(path, &document)).transpose()?;
    output::plan(&document, &args.output, out.as_ref())?;
    // What cannot be carried out yet may be looked at. A plan that is kept must be one that can be applied.
    let is_only_shown =
        out.is_none() && plan.refused().all(|(_, refusal)| refusal.kind == RefusalKind::NotYet);
    if !is_only_shown {
        refuse(&plan)?;
    }
    if let Some(out) = out {
        let values = goal.kept_values(ctx)?;
        out.write(&SavedPlan::new(&plan, &observed, values, env!("CARGO_PKG_VERSION")).to_bytes())?;
        let shown = out.path().display();
        ctx.note(&match plan.is_empty() {
            true => format!("Saved to `{shown}`. There is nothing in it to apply."),
            false => format!("Saved to `{shown}`. `vmctl apply {shown}` does just that."),
        });
    }
    if args.checks == ChecksWhen::Fail {
        output::fail_on_checks(&plan.checks)?;
    }
    Ok(if args.detailed_exitcode && !plan.is_settled() { Exit::Changes } else { Exit::Fine })
}

/// What is planned towards.
#[derive(Debug)]
pub(super) struct Goal {
    pub(super) project: Name,
    /// What the VMFile asks for; absent where none is needed.
    pub(super) desired: Option<Desired>,
    /// What the VMFile's author may not have meant.
    pub(super) warnings: Vec<Problem>,
    /// What the VMFile was read with.
    pub(super) values: Values,
    pub(super) options: Options,
}

/// What is asked of the host while planning.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) refresh: bool,
    pub(super) checks: ChecksWhen,
    /// Whether servers are asked if they still have the images that are pinned.
    pub(super) upstream: bool,
    /// Whether the user goes on where the host has too little room.
    pub(super) overcommit: bool,
    /// Whether to warn of what an apply would be refused for.
    pub(super) ahead: bool,
}

impl Goal {
    /// The goal that the options name.
    ///
    /// To remove everything, the project must be told in one way or another; to refresh, a VMFile helps and is not
    /// needed.
    pub(super) fn of(ctx: &Context, planning: &PlanningArgs) -> Result<Self, CliError> {
        let mode = match planning {
            PlanningArgs { destroy: true, .. } => Mode::Destroy,
            PlanningArgs { refresh_only: true, .. } => Mode::RefreshOnly,
            PlanningArgs { .. } => Mode::Normal,
        };
        let mut options = Options {
            forget: Default::default(),
            mode,
            targets: planning.target.iter().cloned().collect(),
            excludes: planning.exclude.iter().cloned().collect(),
            replace: planning.replace.iter().cloned().collect(),
            rerun: planning.rerun.iter().cloned().collect(),
            volumes: planning.volumes,
            no_provision: planning.no_provision,
            cold: planning.cold,
            no_wait: false,
            by_hand: false,
            provision: Default::default(),
        };
        match mode {
            Mode::Normal | Mode::Provision | Mode::Turn(_) => Self::of_vmfile(ctx, options),
            Mode::Destroy => match ctx.named_project()? {
                Some(project) => {
                    options.forget = ctx.removed()?;
                    Ok(Self {
                        project,
                        desired: None,
                        warnings: Vec::new(),
                        values: Values::default(),
                        options,
                    })
                }
                None => Err(CliError::new("nothing says which project to destroy: no VMFile is here").help(
                    "change to the project's folder, or pass --file PATH or --project NAME".to_owned(),
                )),
            },
            Mode::RefreshOnly if ctx.has_vmfile() => Self::of_vmfile(ctx, options),
            Mode::RefreshOnly => match ctx.project()? {
                Some(project) => Ok(Self {
                    project,
                    desired: None,
                    warnings: Vec::new(),
                    values: Values::default(),
                    options,
                }),
                None => {
                    Err(CliError::new("there is nothing to look at: no VMFile is here and no project exists")
                        .help(
                            "change to the project's folder, or pass --file PATH or --project NAME"
                                .to_owned(),
                        ))
                }
            },
        }
    }

    pub(super) fn of_vmfile(ctx: &Context, options: Options) -> Result<Self, CliError> {
        let by_hand = ctx.is_by_hand()?;
        let options = Options { by_hand, no_wait: by_hand, ..options };
        let Loaded { mut desired, warnings, values } = ctx.load()?;
        ctx.seal(&mut desired)?;
        Ok(Self { project: desired.project.clone(), desired: Some(desired), warnings, values, options })
    }

    /// What a saved plan keeps of the values that the VMFile was read with; nothing where no VMFile decides.
    pub(super) fn kept_values(&self, ctx: &Context) -> Result<KeptValues, CliError> {
        match self.options.mode {
            Mode::Normal => self.values.keep(|| ctx.key(&self.project)),
            Mode::Destroy | Mode::RefreshOnly | Mode::Provision | Mode::Turn(_) => Ok(KeptValues::default()),
        }
    }

    /// Reads the state without the right to write it, looks, and plans.
    pub(super) fn plan_now(&self, ctx: &Context, look: Look) -> Result<(Plan, Observed), CliError> {
        let dir = ctx.project_dir(&self.project)?;
        let mut recorded = recorded(&dir)?;
        if let Some(writer) = project::at_work(&dir)? {
            ui::warn(&format!("{writer} is at work on this project; what follows is a moment's picture"));
            // What is begun there is not interrupted.
            recorded.open.clear();
        }
        let host = Arc::new(ctx.hypervisor(&dir)?);
        large_runtime()?.block_on(async {
            let planned = self.plan(ctx, &dir, &recorded, &host, look).await?;
            if look.ahead {
                let obstacles = obstacles(&*host, &planned.0, &recorded).await;
                summary::warn_of(&obstacles.map_err(|error| CliError::of(&error))?);
            }
            Ok(planned)
        })
    }

    /// Looks at what runs, unless told not to, and plans.
    pub(super) async fn plan(
        &self,
        ctx: &Context,
        dir: &ProjectDir,
        recorded: &Snapshot,
        host: &Arc<RouterHypervisor>,
        look: Look,
    ) -> Result<(Plan, Observed), CliError> {
        if let Some(desired) =
            self.desired.as_ref().filter(|_| matches!(self.options.mode, Mode::Normal | Mode::Provision))
        {
            ctx.refuse_other_copy(
                &desired.project,
                desired.inputs.first().map(|input| &*input.path),
                recorded,
            )?;
        }
        let mut observed =
            if look.refresh { self.observe(ctx, recorded, host, look).await? } else { Observed::default() };
        if let Some(desired) = self.desired.as_ref().filter(|_| !self.options.cold) {
            observed.templates = warm::seen(&ctx.templates()?, desired);
        }
        // They have no record that could be trusted instead.
        observed.volumes = Some(host.volumes(&self.project).await?);
        let mut plan = self.plan_from(ctx, dir, recorded, &observed)?;
        find_room(ctx, &mut plan, recorded, host, look.overcommit)?;
        Ok((plan, observed))
    }

    async fn observe(
        &self,
        ctx: &Context,
        recorded: &Snapshot,
        host: &Arc<RouterHypervisor>,
        look: Look,
    ) -> Result<Observed, CliError> {
        let desired = self.desired.as_ref();
        let servers = Servers { images: ctx.images()?, options: ctx.settings.fetch_options() };
        let upstream = async {
            match desired.filter(|_| look.upstream) {
                Some(desired) => ask_upstream(&servers, desired).await,
                None => BTreeMap::new(),
            }
        };
        let (observed, upstream) = tokio::join!(refresh(host, recorded), upstream);
        let mut observed = observed.map_err(|error| CliError::of(&error))?;
        observed.upstream = upstream;
        observed.strays = observed::strays(&**host, &self.project, recorded, desired).await?;
        if let Some(desired) = desired.filter(|_| look.checks != ChecksWhen::Skip) {
            observed.checks = checks::ask(&**host, desired, &observed).await;
            observed.looked.checks_asked = true;
        }
        Ok(observed)
    }

    /// Plans from what was observed.
    pub(super) fn plan_from(
        &self,
        ctx: &Context,
        dir: &ProjectDir,
        recorded: &Snapshot,
        observed: &Observed,
    ) -> Result<Plan, CliError> {
        let inputs = Inputs {
            project: &self.project,
            desired: self.desired.as_ref(),
            recorded,
            observed,
            images: &ctx.images()?,
            options: &self.options,
        };
        let mut plan = Plan::new(inputs).map_err(|error| explain(ctx, &self.project, &error))?;
        plan.warnings =
            self.warnings.iter().map(serde_json::to_value).collect::<Result<_, _>>().map_err(|error| {
                CliError::new("cannot tell the VMFile's warnings as JSON").because(&error)
            })?;
        if let Some(desired) = &self.desired {
            plan.show_texts(desired, recorded, |digest| dir.text(digest))
                .map_err(|error| CliError::of(&error))?;
        }
        Ok(plan)
    }
}

/// The servers of images, asked through the cache.
struct Servers {
    images: ImageCache,
    options: FetchOptions,
}

impl Ask for Servers {
    async fn ask(&self, url: &str) -> Result<Upstream, String> {
        self.images.upstream(url, &self.options).await.map_err(|error| in_words(&error))
    }
}

/// Ends with the images that the lock file does not pin, where it is to pin all of them.
pub(super) fn refuse_unlocked(plan: &Plan, locked: bool) -> Result<(), CliError> {
    let unlocked = plan.pins.iter().filter(|pin| locked && pin.by != Some(PinnedBy::Lock));
    let urls: Vec<_> = unlocked.map(|pin| format!("\n  {}", pin.url)).collect();
    if urls.is_empty() {
        return Ok(());
    }
    Err(CliError::new(format!("--locked, and the lock file does not pin every image{}", urls.concat())).help(
        "`vmctl image update` pins them, and `vmctl apply` without --locked as well; commit the lock file then"
            .to_owned(),
    ))
}

/// Asks the host whether it has room for what the plan starts and makes. A host that does not tell is no reason to stop.
pub(super) fn find_room(
    ctx: &Context,
    plan: &mut Plan,
    recorded: &Snapshot,
    host: &RouterHypervisor,
    overcommit: bool,
) -> Result<(), CliError> {
    match shortages(plan, recorded, host, &ctx.images()?) {
        Ok(found) => {
            plan.shortages = found;
            plan.shortages.iter_mut().for_each(|shortage| shortage.overcommitted = overcommit);
        }
        Err(error) => {
            let why = std::error::Error::source(&error).map(|why| format!(": {why}")).unwrap_or_default();
            ui::warn(&format!("cannot tell whether this host has room for the plan: {error}{why}"));
        }
    }
    Ok(())
}

/// Ends with what the host has too little of, unless the user goes on all the same.
pub(super) fn refuse_shortages(plan: &Plan) -> Result<(), CliError> {
    let short: Vec<_> = plan.shortages.iter().filter(|shortage| !shortage.overcommitted).collect();
    let Some(first) = short.first() else { return Ok(()) };
    let texts: Vec<_> = short.iter().map(|shortage| format!("\n  {}", shortage.text)).collect();
    let name = first.machines.last().map_or("NAME", |machine| machine.name());
    let more = match first.kind {
        ShortageKind::Memory => "give machines less `memory`",
        ShortageKind::Disk => "free some space, or choose another data folder with --data-dir",
    };
    Err(CliError::new(format!("this host has too little room, so nothing was begun{}", texts.concat())).help(
        format!("{more}; leave machines out, such as with --exclude {name}; or go on all the same with --overcommit"),
    ))
}

/// What is recorded; for a project without a state, an empty one under the lineage that it will have.
fn recorded(dir: &ProjectDir) -> Result<Snapshot, CliError> {
    Ok(match project::read(dir)? {
        Some(recorded) => recorded,
        None => Snapshot::empty(lineage(dir), Timestamp::now()),
    })
}

/// The lineage of a state that may not be there yet. Where none can be reserved, a plan stands for itself alone.
pub(crate) fn lineage(dir: &ProjectDir) -> Uuid {
    let fresh = Uuid::new_v4();
    project::reserve_lineage(dir, fresh).unwrap_or_else(|error| {
        tracing::warn!(%error, "no lineage can be reserved; the next plan will have another");
        fresh
    })
}

fn explain(ctx: &Context, project: &Name, error: &PlanError) -> CliError {
    let this = CliError::of(error);
    match error {
        PlanError::Unknown(unknown) => {
            let names: Vec<_> = unknown.known.iter().map(Name::as_str).collect();
            this.help(
                machines::made_by_command(ctx, project, unknown.name.as_str())
                    .unwrap_or_else(|| machines::suggestion(unknown.name.as_str(), &names)),
            )
        }
        PlanError::Step(unknown) => this.help(match &*unknown.known {
            [] => "these machines have no provisioning steps".to_owned(),
            known => format!("there are: {}", known.join(", ")),
        }),
        PlanError::Contradiction(_) => this.help("leave one of them out".to_owned()).exit(Exit::Usage),
        PlanError::MoveOntoExisting { from, to } => this.help(format!(
            "remove the `moved` node, or let go of one of them first: `vmctl state rm {}`, or destroy `{to}`",
            from.name()
        )),
        PlanError::NoSubnet { name } => this.help(format!(
            "write one that overlaps no other: `network \"{name}\" {{ subnet \"10.77.0.0/24\"; }}`"
        )),
        PlanError::NetworkFull { name, .. } => this.help(format!(
            "write a larger one, `network \"{name}\" {{ subnet \"10.80.0.0/16\"; }}`: that restarts its machines, \
             which get other addresses"
        )),
        PlanError::VolumeShrinks { name, least, .. } => this.help(format!(
            "give `{name}` {least} or more; or make another volume, and move what is on it from inside a guest"
        )),
        _ => this,
    }
}

/// Ends with what forbids the plan, if something does.
pub(super) fn refuse(plan: &Plan) -> Result<(), CliError> {
    let of = |kind| plan.refused().filter(move |(_, refusal)| refusal.kind == kind);
    let protected: Vec<_> = of(RefusalKind::Protected).map(|(change, _)| change).collect();
    let not_yet: Vec<_> = of(RefusalKind::NotYet).collect();
    let state: Vec<_> = of(RefusalKind::State).collect();
    let why =
        protection(plan, &protected).into_iter().chain(lacking(&not_yet)).chain(impossible(plan, &state));
    let why: Vec<_> = why.collect();
    if why.is_empty() {
        return Ok(());
    }
    let machines: Vec<_> = plan.refused().filter(|(change, _)| !change.address.is_volume()).collect();
    let out = if machines.is_empty() {
        "leave `--volumes` out".to_owned()
    } else {
        let names = machines.iter().map(|(change, _)| format!("--exclude {}", change.address.name()));
        format!("pass {}", names.collect::<Vec<_>>().join(" "))
    };
    let (messages, ways): (Vec<_>, Vec<_>) = why.into_iter().unzip();
    let ways = ways.join("; ");
    Err(CliError::new(messages.join("\n")).help(match plan.options.mode {
        Mode::Provision | Mode::Turn(_) => ways,
        Mode::Normal | Mode::Destroy | Mode::RefreshOnly => {
            format!("{ways}; to go on without it, {out}")
        }
    }))
}

/// What `prevent-destroy` forbids, and the way out.
fn protection(plan: &Plan, protected: &[&Change]) -> Option<(String, String)> {
    let first = protected.first()?;
    let name = first.address.name();
    let way = match (plan.options.mode, first.action) {
        _ if first.address.is_volume() => {
            format!("let a machine have the volume `{name}` without `prevent-destroy`, and apply that first")
        }
        (Mode::Normal, Action::Destroy) => format!(
            "put the block of `{name}` back; or write `moved` if it has another name now, or `removed \"{name}\"` to \
             let go of it untouched"
        ),
        (Mode::Destroy, _) => "take `prevent-destroy` out of the VMFile, and apply that first".to_owned(),
        _ if plan.options.replace.iter().any(|replaced| replaced.as_str() == name) => {
            format!("leave `--replace {name}` out, or take `prevent-destroy` out of its block")
        }
        _ if first.reasons.iter().any(|reason| reason.starts_with("it is tainted")) => {
            format!("`vmctl untaint {name}`, or take `prevent-destroy` out of its block")
        }
        _ if first.drift.iter().any(|drift| drift.kind == DriftKind::Gone) => format!(
            "put its files back; if they are lost, `vmctl state rm {name}`: the next apply then makes a new machine"
        ),
        _ => format!(
            "take the change back, or let `ignore-changes` pass over it; to lose the disk of `{name}` after all, take \
             `prevent-destroy` out of its block"
        ),
    };
    let names: Vec<_> = protected.iter().map(|change| change.address.name()).collect();
    Some((format!("`prevent-destroy` protects `{}`, so nothing can be applied", names.join("`, `")), way))
}

/// What this version cannot carry out, and the way out.
fn lacking(not_yet: &[(&Change, &Refusal)]) -> Option<(String, String)> {
    if not_yet.is_empty() {
        return None;
    }
    let mut message =
        "the VMFile asks for more than this version can do, so nothing can be applied".to_owned();
    for (change, refusal) in not_yet {
        message.push_str(&format!("\n  {}: {}", change.address, refusal.text));
    }
    Some((
        message,
        "`vmctl plan` shows it all the same, and docs/limitations.md says what is to come".to_owned(),
    ))
}

/// What machines cannot do as they are now, and the way out.
fn impossible(plan: &Plan, refused: &[(&Change, &Refusal)]) -> Option<(String, String)> {
    let verb = match plan.options.mode {
        Mode::Turn(turn) => turn.as_str(),
        Mode::Provision => "provision",
        Mode::Normal | Mode::Destroy | Mode::RefreshOnly => return None,
    };
    let mut message = format!("cannot {verb}");
    for (change, refusal) in refused {
        message.push_str(&format!("\n  {}: {}", change.address, refusal.text));
    }
    (!refused.is_empty()).then(|| (message, "nothing was done; name only machines that can do it".to_owned()))
}

/// Nothing was ever made, so there is nothing to do what the goal asks for to.
pub(super) fn nothing_there(ctx: &Context, goal: &Goal) -> Result<Exit, CliError> {
    let elsewhere = || {
        let mut targets = goal.options.targets.iter();
        targets.find_map(|target| machines::made_by_command(ctx, &goal.project, target.as_str()))
    };
    match goal.options.mode {
        mode @ (Mode::Turn(_) | Mode::Provision) => {
            let verb = if let Mode::Turn(turn) = mode { turn.as_str() } else { "provision" };
            let up = || "`vmctl up` makes and starts what the VMFile asks for".to_owned();
            Err(CliError::new(format!("there is nothing to {verb}: no machine was made yet"))
                .help(elsewhere().unwrap_or_else(up)))
        }
        Mode::Destroy if let Some(hint) = elsewhere() => {
            Err(CliError::new("there is nothing to destroy: no project exists here").help(hint))
        }
        Mode::Normal | Mode::Destroy | Mode::RefreshOnly => {
            ctx.note("No project exists here, so there is nothing to destroy.");
            Ok(Exit::Fine)
        }
    }
}
