//! The corpus of the fuzz target `vmfile` without a fuzzer: what it found once is not lost again.

#[path = "../../tests/fuzz/check.rs"]
mod check;

use std::fs;

#[test]
fn every_text_of_the_fuzz_corpus_is_an_error_or_a_file() {
    let site = check::Site::new();
    let texts: Vec<_> =
        fs::read_dir("../tests/fuzz/corpus/vmfile").unwrap().map(|text| text.unwrap().path()).collect();
    assert!(texts.len() >= 50, "{} texts", texts.len());
    for text in texts {
        println!("{}", text.display());
        site.check(&fs::read(&text).unwrap());
    }
}
