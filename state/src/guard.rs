//! Keeps panics of the storage engine from reaching the user.
//!
//! sled panics where others return an error, above all on a truncated file, and it does so on its own threads as
//! well. Such a panic is caught here, and its message becomes part of an error instead of text on stderr.

use std::any::Any;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// How the engine's own threads are named.
const ENGINE_THREADS: &str = "sled";

/// There is one panic hook per process, so only one thread at a time may exchange it.
static HOOK: Mutex<()> = Mutex::new(());

/// Runs `act`; a panic in it becomes the message that would have been printed.
///
/// Meanwhile panics of other threads are reported as ever. Whatever `act` had in its hands when it panicked must
/// not be used again.
pub(crate) fn contain<T>(act: impl FnOnce() -> T) -> Result<T, String> {
    let act = AssertUnwindSafe(act);
    if thread::panicking() {
        // The hook may not be exchanged now, and the user has a panic message already.
        return panic::catch_unwind(act).map_err(message);
    }
    let _turn = HOOK.lock().unwrap_or_else(PoisonError::into_inner);
    let usual = Arc::new(panic::take_hook());
    let silenced = thread::current().id();
    panic::set_hook({
        let usual = Arc::clone(&usual);
        Box::new(move |info: &PanicHookInfo<'_>| {
            let thread = thread::current();
            let ours =
                thread.id() == silenced || thread.name().is_some_and(|n| n.starts_with(ENGINE_THREADS));
            if !ours {
                usual(info);
            }
        })
    });
    let result = panic::catch_unwind(act);
    drop(panic::take_hook());
    panic::set_hook(match Arc::try_unwrap(usual) {
        Ok(hook) => hook,
        Err(shared) => Box::new(move |info| shared(info)),
    });
    result.map_err(message)
}

fn message(panic: Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    // Only the first line: the rest of an assertion is a dump of values.
    format!("the storage engine gave up: {}", text.lines().next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_becomes_its_first_line() {
        let caught = contain(|| -> u8 { panic!("torn page {}\nleft: 1", 7) });
        assert_eq!(caught, Err("the storage engine gave up: torn page 7".to_owned()));
    }

    #[test]
    fn result_passes_through() {
        assert_eq!(contain(|| 7), Ok(7));
    }
}
