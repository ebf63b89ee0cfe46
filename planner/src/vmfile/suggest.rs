//! "Did you mean": the nearest known word, if it is near enough to be meant.

/// The candidate that `word` is most likely a misspelling of.
///
/// Near enough is one edit for each three letters, at least one.
pub(super) fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    // Longer than any candidate by far: not worth a quadratic comparison.
    const LONGEST: usize = 100;
    // Each of very many wrong words is compared with them: a file that is made by a program must not take minutes.
    const COMPARED: usize = 300;
    if word.len() > LONGEST {
        return None;
    }
    let length = word.chars().count();
    let limit = (length / 3).max(1);
    candidates
        .into_iter()
        .filter(|candidate| candidate.chars().count().abs_diff(length) <= limit)
        .take(COMPARED)
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        // Of several, one that only was not written to its end.
        .min_by_key(|(distance, candidate)| (*distance, !candidate.starts_with(word)))
        .map(|(_, candidate)| candidate)
}

/// `word` behind its article.
pub(super) fn article(word: &str) -> String {
    let article = if word.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {word}")
}

/// `a, b and c` with each word in backticks.
pub(super) fn list(words: &[&str], last: &str) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [head @ .., tail] => format!("{} {last} {tail}", head.join(", ")),
    }
}

/// Help for an unknown word: the nearest one, else all.
pub(super) fn did_you_mean(word: &str, known: &[&str]) -> String {
    match nearest(word, known.iter().copied()) {
        Some(candidate) => format!("did you mean `{candidate}`?"),
        None => format!("known here: {}", list(known, "and")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_near_words_are_suggested() {
        let known = ["memory", "image", "ssh"];
        assert_eq!(nearest("memroy", known), Some("memory"));
        assert_eq!(nearest("shs", known), Some("ssh"));
        assert_eq!(nearest("firmware", known), None);
        assert_eq!(nearest(&"m".repeat(100_000), known), None);
    }
}
