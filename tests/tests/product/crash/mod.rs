//! vmctl killed, out of disk, or panicking at every named place: one more apply makes everything good (F1-F8, F12).

mod leakcheck;
mod matrix;
mod pairs;
mod points;
mod qemu;
mod scenario;
