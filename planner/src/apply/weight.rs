//! What steps weigh on the way to the end of a plan: tenths of a second that they usually take. Only their order of
//! magnitude counts: a way with one more boot is the longer one, however many small steps the other has.

use crate::step::StepKind;

/// A gigabyte is read, digested and written.
const FETCH_IMAGE: u64 = 50;
/// Half a gigabyte comes in a minute over a good line.
pub(super) const DOWNLOAD: u64 = 600;
/// Takes milliseconds, and weighs nothing: so a machine that is prepared starts before the next one is prepared,
/// and the first boot does not wait until all are.
const PREPARE: u64 = 0;
/// A process is started, told something, or ended.
const SHORT: u64 = 1;
/// A small guest boots to its login in some seconds, a large one in half a minute.
const READY: u64 = 100;
/// Packages are installed, or one file is copied: nobody knows beforehand.
const PROVISION: u64 = 100;
/// A guest powers down in some seconds.
const STOP: u64 = 30;

/// What a step of this kind weighs; one that downloads, [`DOWNLOAD`].
pub(super) fn weight_of(kind: StepKind) -> u64 {
    match kind {
        StepKind::FetchImage => FETCH_IMAGE,
        StepKind::Prepare => PREPARE,
        StepKind::Ready => READY,
        StepKind::Provision(_) => PROVISION,
        StepKind::Stop => STOP,
        StepKind::Update
        | StepKind::Start
        | StepKind::Resume
        | StepKind::Keep
        | StepKind::Suspend
        | StepKind::Destroy
        | StepKind::Forget => SHORT,
    }
}
