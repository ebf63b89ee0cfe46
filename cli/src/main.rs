//! vmctl.
fn main() {}
