//! How fast the host's time stamp counter counts.
//!
//! An emulated x86 guest reads the host's counter as its own. A PC has timers by which Linux measures it; a `microvm` has
//! one that it polls, and on a busy host the measurement fails: the counter is given up, and the guest hangs before its
//! first line. Told how fast the counter is (`tsc_early_khz`, in Linux's kernel-parameters.txt), it measures nothing.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::accel::Accel;
use crate::spec::{Arch, Machine};

/// How long is counted. Each reading is off by a microsecond at most, which makes 40 millionths of the result: 3 s a day
/// if the guest has no other clock.
const SPAN: Duration = Duration::from_millis(50);

/// Readings of which the quickest counts: nobody interrupted it.
const READINGS: usize = 5;

/// The frequency in kHz that `machine` is to be told, if it needs that.
pub(super) async fn to_tell(machine: &Machine, accel: &Accel) -> Option<u32> {
    let hardware = &machine.hardware;
    let is_needed = hardware.is_microvm() && matches!(accel, Accel::Tcg(_)) && Arch::HOST == Arch::X86_64;
    let is_told = || {
        let words = hardware.kernel.iter().filter_map(|kernel| kernel.cmdline.as_deref());
        words.flat_map(str::split_whitespace).any(|word| word.starts_with("tsc_early_khz="))
    };
    if !is_needed || is_told() {
        return None;
    }
    let (start, first) = reading()?;
    sleep(SPAN).await;
    let (end, last) = reading()?;
    let nanoseconds = end.duration_since(start).as_nanos();
    u32::try_from(u128::from(last.checked_sub(first)?) * 1_000_000 / nanoseconds).ok()
}

/// The time, and the counter at that time.
fn reading() -> Option<(Instant, u64)> {
    let once = || {
        let before = Instant::now();
        let count = counter()?;
        Some((before.elapsed(), before, count))
    };
    let (took, before, count) = (0..READINGS).filter_map(|_| once()).min()?;
    Some((before + took / 2, count))
}

#[cfg(target_arch = "x86_64")]
#[expect(
    unsafe_code,
    reason = "an instruction that only reads a register, and that every x86-64 processor has"
)]
fn counter() -> Option<u64> {
    // SAFETY: it touches no memory. Where the system forbids it to programs (prctl PR_SET_TSC), nobody starts vmctl so.
    Some(unsafe { std::arch::x86_64::_rdtsc() })
}

#[cfg(not(target_arch = "x86_64"))]
fn counter() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::manifest::tests::spec;
    use crate::spec::{Digest, InputFile, Kernel};

    #[tokio::test]
    async fn only_an_emulated_microvm_is_told_unless_its_user_did() {
        let mut machine = spec(std::path::Path::new("/images/base")).machine;
        let emulated = Accel::Tcg(None);
        assert_eq!(to_tell(&machine, &emulated).await, None);
        machine.hardware.machine = Some("microvm".to_owned());
        assert_eq!(to_tell(&machine, &Accel::Kvm).await, None);
        let first = to_tell(&machine, &emulated).await;
        assert_eq!(first.is_some(), cfg!(target_arch = "x86_64"));
        // What is measured twice is about the same, and what processors have.
        if let (Some(first), Some(second)) = (first, to_tell(&machine, &emulated).await) {
            assert!((100_000..20_000_000).contains(&first) && first.abs_diff(second) < first / 100);
        }
        let kernel = InputFile { path: "/boot/vmlinux".into(), digest: Digest::of("x") };
        let cmdline = Some("console=ttyS0 tsc_early_khz=1000000".to_owned());
        machine.hardware.kernel = Some(Kernel { kernel, initrd: None, cmdline });
        assert_eq!(to_tell(&machine, &emulated).await, None);
    }
}
