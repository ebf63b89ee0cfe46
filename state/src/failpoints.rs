//! Places where tests let the process die, panic, or see a failing disk. Nothing at all without the feature.

/// Passes a named place. What is armed there ends the process, panics, or makes the surrounding function return the
/// error of a failed write to `$path`.
macro_rules! failpoint {
    ($name:literal, $path:expr) => {
        fail::fail_point!($name, |errno| Err($crate::failpoints::failed($path, errno)))
    };
}

pub(crate) use failpoint;

/// The error of a write to `path` that the system answers with the number `errno`.
#[cfg(feature = "failpoints")]
pub(crate) fn failed(path: &std::path::Path, errno: Option<String>) -> crate::error::StoreError {
    let errno = errno.and_then(|number| number.parse().ok()).unwrap_or_default();
    crate::error::StoreError::io("write", path)(std::io::Error::from_raw_os_error(errno))
}
