//! vmctl killed, out of disk, or panicking at every named place: one more apply makes everything good (F1-F8, F12).
#![expect(clippy::print_stdout, reason = "a failure is found again by what was armed, and in which order")]

mod downloads;
mod leakcheck;
mod matrix;
mod pairs;
mod points;
mod propolis;
mod qemu;
mod scenario;
mod warm;
