//! Bounds how many guests run at once, whatever the number of test threads.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Guests at once. More than this on two cores, emulated, and boots starve each other.
pub const GUESTS: usize = 3;

static TAKEN: Mutex<usize> = Mutex::new(0);
static GIVEN_BACK: Condvar = Condvar::new();

/// The right to run some guests; given back when dropped.
#[derive(Debug)]
pub struct Slots(usize);

/// Waits until `guests` more may run.
pub fn take(guests: usize) -> Slots {
    assert!(guests <= GUESTS, "no test may run more than {GUESTS} guests at once");
    let free = |taken: &mut usize| *taken + guests > GUESTS;
    let mut taken = GIVEN_BACK.wait_while(lock(), free).unwrap_or_else(PoisonError::into_inner);
    *taken += guests;
    Slots(guests)
}

impl Drop for Slots {
    fn drop(&mut self) {
        *lock() -= self.0;
        GIVEN_BACK.notify_all();
    }
}

/// A test that panicked while it held the lock leaves a sound number.
fn lock() -> MutexGuard<'static, usize> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}
