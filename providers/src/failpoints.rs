//! Places where tests let the process die, panic, or see a failing disk. Nothing at all without the feature.

/// Passes a named place. What is armed there ends the process, panics, or makes the surrounding function return the
/// error of a failed write to `$path`.
macro_rules! failpoint {
    ($name:expr, $path:expr) => {
        fail::fail_point!($name, |errno| {
            let failed = $crate::failpoints::answer(errno);
            Err($crate::error::Error::io("write", $path)(failed))
        })
    };
}

pub(crate) use failpoint;

/// What the system answers where a fault with the number `errno` is armed.
#[cfg(feature = "failpoints")]
pub(crate) fn answer(errno: Option<String>) -> std::io::Error {
    std::io::Error::from_raw_os_error(errno.and_then(|number| number.parse().ok()).unwrap_or_default())
}
