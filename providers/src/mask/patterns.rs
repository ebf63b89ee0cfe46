//! What secrets look like, and the names of settings that hold them.

use std::sync::LazyLock;

use regex::Regex;

/// What a secret looks like by itself. Groups `keep` and `end`, if any, are shown.
pub(super) static SHAPES: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    regexes(&[
        r"\beyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)*",
        r"\bgh[pousr]_[A-Za-z0-9]{8,}",
        r"\bgithub_pat_[A-Za-z0-9_]{8,}",
        r"\bxox[abprs]-[A-Za-z0-9-]{8,}",
        r"\bAKIA[0-9A-Z]{12,}",
        r"\$1\$[A-Za-z0-9./=,$]{20,}",
        r"\$(?:2[abxy]?|5|6|7|y|gy)\$[A-Za-z0-9./=,$]{4,}",
        r"AGE-SECRET-KEY-[0-9A-Za-z]+",
        r"(?P<keep>hooks\.slack\.com/services/)[A-Za-z0-9_/.-]+",
        r"(?i)(?P<keep>\bbearer\s+)[A-Za-z0-9_.~+/=-]{12,}",
        r#"(?P<keep>://[^\s/:@"']*:)[^\s/"']+(?P<end>@)"#,
        r"(?P<keep>\b(?:echo|printf)\s+)\S.*?(?P<end>\s*\|[^|]*\bchpasswd\b)",
    ])
});

/// Commands and statements that take a secret as the next word. Group `quote`, if any, began before the value.
pub(super) static COMMANDS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    regexes(&[
        r"\b(?:mysql|mariadb)[\w-]*\s(?:(?:[^|;&]|&[^&\s])*?\s)??-p\s*",
        r"\bsshpass\s+(?:-[a-z]\s+)*?-p\s*",
        r"\buser(?:add|mod)\s(?:(?:[^|;&]|&[^&\s])*?\s)??-[a-oq-zA-Z]*p\s*",
        r"\bredis-cli\s(?:(?:[^|;&]|&[^&\s])*?\s)??-a\s*",
        r#"--from-literal[=\s]\s*(?P<quote>["']?)[\w.-]+="#,
        r"(?i)\bidentified\s+(?:with\s+\S+\s+)?by\s+(?:password\s+)?",
        r"(?i)\b(?:requirepass|masterauth)\s+",
        r"(?i)\blogin\s+\S+\s+password\s+",
        r"\bchpasswd\b[^<]*<<<\s*",
    ])
});

/// A user and a password in one word, of which only the colon tells that the password is there.
pub(super) static LOGIN: LazyLock<Regex> =
    LazyLock::new(|| fixed(r"\b(?:curl|wget)\s(?:.*?\s)??(?:-[a-zA-Z]*[uU]|--(?:proxy-)?user[=\s])\s*"));

/// `<name>value</`; the value may be empty.
pub(super) static ELEMENT: LazyLock<Regex> =
    LazyLock::new(|| fixed(r"<(?P<name>[\w.-]+)[^<>]*>(?P<value>[^<]*)</"));

/// What may be the name of a setting.
pub(super) static NAME: LazyLock<Regex> = LazyLock::new(|| fixed("[A-Za-z0-9_.-]+"));

/// Names that contain this have a secret as their value, unless they are harmless.
pub(super) static SECRET: LazyLock<Regex> = LazyLock::new(|| {
    fixed(
        r"(?ix) pass | pwd | secret | token | credential | authorization
        | (?:api|access|account|private|license)[_.-]?key
        | (?:^|[_.-])(?:o?auth|pat|pw|psk)(?:[_.-]|$) | [a-z](?-i:Auth)$",
    )
});

/// Parts of names that only resemble those of secrets.
pub(super) static HARMLESS: LazyLock<Regex> = LazyLock::new(|| {
    fixed(
        r"(?ix) (?:^|[_.-]) (?: (?:by|com|encom|sur|tres|over|under)pass(?:ed|es|ing)? | pass(?:ed|es|ing|ive|age|enger|port)
        | passthrough | nopasswd | chpasswd | password_?auth(?:entication)?
        | (?:lock|no|disabled?|expire)[_-]pass(?:wd|word)
        | (?:pass\w*|pwd|secret|token|credentials?|key)[_-](?:file|path|dir|stdin) ) (?:[_.-]|$)",
    )
});

/// What stands between a name and its value.
pub(super) static SEPARATOR: LazyLock<Regex> =
    LazyLock::new(|| fixed(r#"^(?P<close>\\?["']?\]?)\s*(?P<sign>=>|==|:=|\+=|\?=|=|:)"#));

/// The key of a YAML block scalar, up to the end of the line.
pub(super) static BLOCK: LazyLock<Regex> = LazyLock::new(|| {
    fixed(
        r#"^(?P<indent>\s*(?:-\s+)*)["']?(?P<name>[\w.-]+)["']?\s*:\s+(?:[!&]\S*\s+)*[|>][-+0-9]*\s*(?:\s\#.*)?$"#,
    )
});

/// A value that only says that the lines below are the value.
pub(super) static BLOCK_SIGN: LazyLock<Regex> =
    LazyLock::new(|| fixed(r"^(?:[!&]\S*\s+)*[|>][-+0-9]*\s*(?:\s#.*)?$"));

pub(super) static KEY_BEGINS: LazyLock<Regex> =
    LazyLock::new(|| fixed("-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"));
pub(super) static KEY_ENDS: LazyLock<Regex> = LazyLock::new(|| fixed("-----END [A-Z0-9 ]*PRIVATE KEY"));

/// Where lines of users and passwords begin: cloud-init's module, or text for the command.
pub(super) static PASSWORDS_BEGIN: LazyLock<Regex> =
    LazyLock::new(|| fixed(r"\bchpasswd(?::\s*$|\b[^|]*<<-?\s*\S)"));

/// A line among those: a user's, or a setting of the module.
pub(super) static PASSWORDS: LazyLock<Regex> =
    LazyLock::new(|| fixed(r#"^\s*(?:-\s+)?(?:["']?[\w.-]+:(?P<value>[^\s].*)|[\w.-]+:(?:\s.*)?)$"#));

fn fixed(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a fixed pattern")
}

fn regexes(patterns: &[&str]) -> Vec<Regex> {
    patterns.iter().map(|pattern| fixed(pattern)).collect()
}
