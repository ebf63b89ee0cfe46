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

/// The same in what fills the cache of images: the error is one of a failed write to the cache.
macro_rules! image_failpoint {
    ($name:expr, $path:expr) => {
        fail::fail_point!($name, |errno| {
            let (path, source) = ($path.into(), $crate::failpoints::answer(errno));
            Err($crate::image::ImageError::Cache { action: "write", path, source }.into())
        })
    };
}

pub(crate) use image_failpoint;

/// What the system answers where a fault with the number `errno` is armed.
#[cfg(feature = "failpoints")]
pub(crate) fn answer(errno: Option<String>) -> std::io::Error {
    std::io::Error::from_raw_os_error(errno.and_then(|number| number.parse().ok()).unwrap_or_default())
}
