//! Any bytes as a VMFile: a desired state, or errors with places and ways out, and never a crash.
#![no_main]

#[path = "../check.rs"]
mod check;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static SITE: LazyLock<check::Site> = LazyLock::new(check::Site::new);

fuzz_target!(|text: &[u8]| SITE.check(text));
