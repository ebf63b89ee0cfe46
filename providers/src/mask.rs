//! Hides what looks like a secret in texts of users: scripts, user-data, commands. Best effort, by names and shapes.
//!
//! ```text
//! line ─▶ inside a key, a block or a value that goes on? ─ yes ─▶ masked whole
//!            └─ no ─▶ shapes ─▶ commands ─▶ settings by name ─▶ does a key, block or value begin here?
//! ```
//!
//! In doubt more is masked than needed. What is masked stays as it is when it is masked again.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

/// What stands in place of a masked value.
const MASK: &str = "(masked)";

/// What stands in place of a shape.
const SHOWN: &str = "${keep}(masked)${end}";

/// What stands at the end of a line whose masked value goes on in the next.
const GOES_ON: &str = "(masked)\\";

/// How often a line is looked at: a masked value can bare the one beside it. More than a few have no use.
const ROUNDS: usize = 8;

/// What a secret looks like by itself. Groups `keep` and `end`, if any, are shown.
static SHAPES: LazyLock<Vec<Regex>> = LazyLock::new(|| {
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
static COMMANDS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
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
static LOGIN: LazyLock<Regex> =
    LazyLock::new(|| fixed(r"\b(?:curl|wget)\s(?:.*?\s)??(?:-[a-zA-Z]*[uU]|--(?:proxy-)?user[=\s])\s*"));

/// `<name>value</`; the value may be empty.
static ELEMENT: LazyLock<Regex> = LazyLock::new(|| fixed(r"<(?P<name>[\w.-]+)[^<>]*>(?P<value>[^<]*)</"));

/// What may be the name of a setting.
static NAME: LazyLock<Regex> = LazyLock::new(|| fixed("[A-Za-z0-9_.-]+"));

/// Names that contain this have a secret as their value, unless they are harmless.
static SECRET: LazyLock<Regex> = LazyLock::new(|| {
    fixed(
        r"(?ix) pass | pwd | secret | token | credential | authorization
        | (?:api|access|account|private|license)[_.-]?key
        | (?:^|[_.-])(?:o?auth|pat|pw|psk)(?:[_.-]|$) | [a-z](?-i:Auth)$",
    )
});

/// Parts of names that only resemble those of secrets.
static HARMLESS: LazyLock<Regex> = LazyLock::new(|| {
    fixed(
        r"(?ix) (?:^|[_.-]) (?: (?:by|com|encom|sur|tres|over|under)pass(?:ed|es|ing)? | pass(?:ed|es|ing|ive|age|enger|port)
        | passthrough | nopasswd | chpasswd | password_?auth(?:entication)?
        | (?:lock|no|disabled?|expire)[_-]pass(?:wd|word)
        | (?:pass\w*|pwd|secret|token|credentials?|key)[_-](?:file|path|dir|stdin) ) (?:[_.-]|$)",
    )
});

/// What stands between a name and its value.
static SEPARATOR: LazyLock<Regex> =
    LazyLock::new(|| fixed(r#"^(?P<close>\\?["']?\]?)\s*(?P<sign>=>|==|:=|\+=|\?=|=|:)"#));

/// The key of a YAML block scalar, up to the end of the line.
static BLOCK: LazyLock<Regex> = LazyLock::new(|| {
    fixed(
        r#"^(?P<indent>\s*(?:-\s+)*)["']?(?P<name>[\w.-]+)["']?\s*:\s+(?:[!&]\S*\s+)*[|>][-+0-9]*\s*(?:\s\#.*)?$"#,
    )
});

/// A value that only says that the lines below are the value.
static BLOCK_SIGN: LazyLock<Regex> = LazyLock::new(|| fixed(r"^(?:[!&]\S*\s+)*[|>][-+0-9]*\s*(?:\s#.*)?$"));

static KEY_BEGINS: LazyLock<Regex> =
    LazyLock::new(|| fixed("-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"));
static KEY_ENDS: LazyLock<Regex> = LazyLock::new(|| fixed("-----END [A-Z0-9 ]*PRIVATE KEY"));

/// Where lines of users and passwords begin: cloud-init's module, or text for the command.
static PASSWORDS_BEGIN: LazyLock<Regex> = LazyLock::new(|| fixed(r"\bchpasswd(?::\s*$|\b[^|]*<<-?\s*\S)"));

/// A line among those: a user's, or a setting of the module.
static PASSWORDS: LazyLock<Regex> =
    LazyLock::new(|| fixed(r#"^\s*(?:-\s+)?(?:["']?[\w.-]+:(?P<value>[^\s].*)|[\w.-]+:(?:\s.*)?)$"#));

fn fixed(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a fixed pattern")
}

fn regexes(patterns: &[&str]) -> Vec<Regex> {
    patterns.iter().map(|pattern| fixed(pattern)).collect()
}

/// Hides secrets in the lines of one text, given in order: some secrets span lines.
#[derive(Debug, Clone, Default)]
pub struct Mask {
    /// Between the marks of a private key.
    in_key: bool,
    /// The value masked in the line before goes on here.
    goes_on: bool,
    /// The column of a key whose value are the lines that are indented deeper.
    block: Option<usize>,
    /// Among lines of users and passwords.
    passwords: bool,
}

/// Hides secrets in a whole text; its line ends stay.
pub fn text(text: &str) -> String {
    let mut mask = Mask::default();
    let masked: Vec<_> = text
        .split('\n')
        .map(|line| match line.strip_suffix('\r') {
            Some(line) => mask.line(line) + "\r",
            None => mask.line(line),
        })
        .collect();
    masked.join("\n")
}

impl Mask {
    /// The next line of the text, given without its end, with its secrets replaced by `(masked)`.
    ///
    /// Takes time linear in the line. What is not secret stays byte for byte.
    pub fn line(&mut self, line: &str) -> String {
        if self.in_key {
            return self.keys(line);
        }
        if self.goes_on {
            let masked = whole(line);
            self.goes_on = masked.ends_with(GOES_ON);
            return masked;
        }
        if let Some(column) = self.block {
            if line.trim().is_empty() || indent(line) > column {
                return whole(line);
            }
            self.block = None;
        }
        if KEY_BEGINS.is_match(line) {
            return self.keys(line);
        }
        self.block =
            BLOCK.captures(line).filter(|key| is_secret(&key["name"])).map(|key| key["indent"].len());
        let masked = hide(&self.password(line));
        self.goes_on = masked.ends_with(GOES_ON);
        masked
    }

    /// A line in a key, or with marks of keys.
    fn keys(&mut self, line: &str) -> String {
        let (mut masked, mut rest) = (String::new(), line);
        loop {
            let (mark, hide): (&Regex, fn(&str) -> String) =
                if self.in_key { (&KEY_ENDS, whole) } else { (&KEY_BEGINS, hide) };
            let Some(found) = mark.find(rest) else { return masked + &hide(rest) };
            masked += &hide(&rest[..found.start()]);
            masked += found.as_str();
            rest = &rest[found.end()..];
            self.in_key = !self.in_key;
        }
    }

    fn password<'a>(&mut self, line: &'a str) -> Cow<'a, str> {
        if PASSWORDS_BEGIN.is_match(line) {
            self.passwords = true;
        } else if self.passwords && !line.trim().is_empty() {
            let found = PASSWORDS.captures(line);
            self.passwords = found.is_some();
            if let Some(value) = found.and_then(|found| found.name("value")) {
                return Cow::Owned(format!("{}{MASK}", &line[..value.start()]));
            }
        }
        Cow::Borrowed(line)
    }
}

/// A line of which only the indentation is shown, and that it goes on.
fn whole(line: &str) -> String {
    if line.trim().is_empty() {
        return line.to_owned();
    }
    let goes_on = if line.ends_with('\\') { "\\" } else { "" };
    format!("{}{MASK}{goes_on}", &line[..indent(line)])
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// A line that begins outside of any secret.
fn hide(line: &str) -> String {
    let mut line = line.to_owned();
    for _ in 0..ROUNDS {
        let masked = hide_once(&line);
        if masked == line {
            break;
        }
        line = masked;
    }
    line
}

fn hide_once(line: &str) -> String {
    let mut line = line.to_owned();
    for shape in SHAPES.iter() {
        line = shape.replace_all(&line, SHOWN).into_owned();
    }
    for command in COMMANDS.iter() {
        line = replace(&line, |line, at| {
            let found = command.captures_at(line, at)?;
            let begin = found.get(0)?.end();
            let quote = found.name("quote").and_then(|quote| quote.as_str().bytes().next());
            let end = quote.map_or(End::Word, End::Quote);
            let takes_next = !line[begin..].starts_with('-');
            Some((begin, takes_next.then(|| value(line, begin, end)).flatten()))
        });
    }
    let line = replace(&line, |line, at| {
        let begin = LOGIN.find_at(line, at)?.end();
        let login = value(line, begin, End::Word).unwrap_or(begin..begin);
        Some((login.end, Some(login).filter(|login| line[login.clone()].contains(':'))))
    });
    let line = replace(&line, |line, at| {
        let found = ELEMENT.captures_at(line, at)?;
        let inner = found.name("value")?.range();
        let secret = is_secret(&found["name"]) && !line[inner.clone()].trim().is_empty();
        Some((inner.end, secret.then_some(inner)))
    });
    let brace = line.find('{').unwrap_or(line.len());
    replace(&line, |line, at| {
        let name = NAME.find_at(line, at)?.range();
        Some((name.end, if is_secret(&line[name.clone()]) { setting(line, &name, brace) } else { None }))
    })
}

/// Masks what `find` finds from a position on: where to go on, and what to mask, if anything, after which it goes on.
fn replace(line: &str, find: impl Fn(&str, usize) -> Option<(usize, Option<Range<usize>>)>) -> String {
    let (mut masked, mut copied, mut at) = (String::new(), 0, 0);
    while let Some((next, value)) = find(line, at) {
        at = next;
        if let Some(value) = value {
            masked.push_str(&line[copied..value.start]);
            masked.push_str(MASK);
            (copied, at) = (value.end, value.end);
        }
    }
    masked + &line[copied..]
}

fn is_secret(name: &str) -> bool {
    SECRET.is_match(name) && SECRET.is_match(&HARMLESS.replace_all(name, "_"))
}

/// The value of the setting of this name, if it has one that can be secret. The line's first brace is at `brace`.
fn setting(line: &str, name: &Range<usize>, brace: usize) -> Option<Range<usize>> {
    let (before, rest) = (&line[..name.start], &line[name.end..]);
    let Some(found) = SEPARATOR.captures(rest) else {
        let begin = line.len() - rest.trim_start().len();
        let is_option = line[name.clone()].starts_with('-') && begin > name.end;
        let takes_next = is_option && !line[begin..].starts_with('-');
        return takes_next.then(|| value(line, begin, End::Word)).flatten();
    };
    let after = &rest[found[0].len()..];
    if &found["sign"] == ":" && (before.ends_with(['/', '$', '@']) || after.starts_with([':', '/'])) {
        return None;
    }
    let begin = line.len() - after.trim_start().len();
    let spaced = begin > line.len() - after.len();
    let quote =
        before.bytes().last().filter(|quote| matches!(quote, b'"' | b'\'') && found["close"].is_empty());
    let end = match quote {
        Some(quote) => End::Quote(quote),
        None if !spaced => End::Word,
        None if brace < name.start => End::Flow,
        None => End::Line,
    };
    value(line, begin, end)
}

/// What ends a value.
#[derive(Debug, Clone, Copy)]
enum End {
    /// A blank, or a sign that ends words.
    Word,
    /// The comma or brace of a collection.
    Flow,
    /// This quotation mark, which began before the value.
    Quote(u8),
    /// The end of the line, unless the value is quoted.
    Line,
}

/// The value that begins at `begin`, without a backslash at the line's end; `None` if it cannot be secret.
fn value(line: &str, begin: usize, end: End) -> Option<Range<usize>> {
    let rest = &line[begin..];
    if rest.starts_with('#') || (rest.starts_with('{') && !rest.starts_with("{{")) {
        return None;
    }
    let mut len = match end {
        End::Quote(quote) => rest.bytes().position(|byte| byte == quote).unwrap_or(rest.len()),
        End::Line if !(rest.starts_with(['"', '\'', '\\']) || rest.starts_with(MASK)) => {
            rest.trim_end().len()
        }
        End::Line | End::Word => word(rest, false),
        End::Flow => word(rest, true),
    };
    if len == rest.len() && rest.ends_with('\\') {
        let goes_on = rest.len() - 1;
        return Some(begin..begin + goes_on);
    }
    len = rest[..len].trim_end().len();
    can_be_secret(&rest[..len]).then(|| begin..begin + len)
}

fn can_be_secret(value: &str) -> bool {
    let bare = value.trim_matches(['"', '\'', '\\', ',', ';']);
    let says_nothing = ["true", "false", "yes", "no", "null", "~", "[", "(", "[]", "|", ">"]
        .iter()
        .any(|word| bare.eq_ignore_ascii_case(word));
    !(bare.is_empty() || says_nothing || BLOCK_SIGN.is_match(value))
}

/// Length of the word at the beginning, as a shell reads it: quotes, escapes and parentheses keep it together.
/// Blanks do not end it if it is `spaced`.
fn word(text: &str, spaced: bool) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' if at == 0 && matches!(bytes.get(1), Some(b'"' | b'\'')) => {
                at = text[2..].find(&text[..2]).map_or(text.len(), |len| len + 4);
                continue;
            }
            b'\\' => at += 1,
            b'(' => depth += 1,
            b')' if depth > 0 => depth -= 1,
            _ if depth > 0 => {}
            b'"' | b'\'' if at > 0 && ends_word(bytes, at) => return at,
            b'"' | b'\'' => at = closing(bytes, at),
            b';' | b'&' | b'|' | b',' | b')' | b']' | b'}' if ends_word(bytes, at) => return at,
            blank if blank.is_ascii_whitespace() && !spaced => return at,
            _ => {}
        }
        at += 1;
    }
    text.len()
}

/// Where the quotation that begins at `open` ends; the end of the text if nowhere.
fn closing(bytes: &[u8], open: usize) -> usize {
    let mut at = open + 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' if bytes[open] == b'"' => at += 1,
            byte if byte == bytes[open] => return at,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// Whether the sign at `at` stands at the end of a word, or before another setting, rather than in a value.
fn ends_word(bytes: &[u8], at: usize) -> bool {
    let rest = &bytes[at + 1..];
    match rest.first() {
        None => true,
        Some(next) if next.is_ascii_whitespace() || b"\"';&|,)]}\\<>".contains(next) => true,
        Some(_) => {
            let name =
                rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(byte)).count();
            matches!(bytes[at], b';' | b'&' | b',') && name > 0 && matches!(rest.get(name), Some(b'=' | b':'))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cases: &[(&str, &str)]) {
        for (given, shown) in cases {
            assert_eq!(text(given), *shown, "{given}");
            assert_eq!(text(shown), *shown, "again: {given}");
        }
    }

    #[test]
    fn values_are_masked_by_the_names_of_their_settings() {
        check(&[
            ("password: hunter2", "password: (masked)"),
            ("    hashed_passwd: abc", "    hashed_passwd: (masked)"),
            ("export DB_PASSWORD=\"a b\"", "export DB_PASSWORD=(masked)"),
            (
                "DB_PASS=x MYPASS=y smtp_pass='z z' run",
                "DB_PASS=(masked) MYPASS=(masked) smtp_pass=(masked) run",
            ),
            ("pass: x", "pass: (masked)"),
            ("password: correct horse battery", "password: (masked)"),
            ("PASSPHRASE=x", "PASSPHRASE=(masked)"),
            ("MYSQL_PWD=x mysql", "MYSQL_PWD=(masked) mysql"),
            ("uid=sa;pwd=x;host=h", "uid=sa;pwd=(masked);host=h"),
            ("pw=x", "pw=(masked)"),
            ("DB_PW = x", "DB_PW = (masked)"),
            ("GITHUB_PAT=x", "GITHUB_PAT=(masked)"),
            ("aws_access_key_id = x", "aws_access_key_id = (masked)"),
            ("AccountName=a;AccountKey=abc==;Suffix=s", "AccountName=a;AccountKey=(masked);Suffix=s"),
            ("wpa_passphrase=x", "wpa_passphrase=(masked)"),
            ("license_key: x", "license_key: (masked)"),
            ("apiKey=x api-key=y API_KEY=z", "apiKey=(masked) api-key=(masked) API_KEY=(masked)"),
            ("private_key = x", "private_key = (masked)"),
            ("credentials: x", "credentials: (masked)"),
            ("client.secret=x", "client.secret=(masked)"),
            ("auth=x", "auth=(masked)"),
            ("{\"api_key\": \"k\", \"n\": 1}", "{\"api_key\": (masked), \"n\": 1}"),
            ("{\"a\":{\"token\":123},\"b\":1}", "{\"a\":{\"token\":(masked)},\"b\":1}"),
            (r#"-d "{\"password\": \"a b\"}""#, r#"-d "{\"password\": (masked)}""#),
            ("- {name: db, password: x y, host: h}", "- {name: db, password: (masked), host: h}"),
            ("'token' => 'x',", "'token' => (masked),"),
            ("$password = 'x';", "$password = (masked);"),
            ("os.environ[\"TOKEN\"] = \"x\"", "os.environ[\"TOKEN\"] = (masked)"),
            ("<password>x</password><user>u</user>", "<password>(masked)</password><user>u</user>"),
            ("curl --token abc https://x", "curl --token (masked) https://x"),
            ("x --password=a -v --api-key 'b c' y", "x --password=(masked) -v --api-key (masked) y"),
            ("export GITHUB_TOKEN; GITHUB_TOKEN=x", "export GITHUB_TOKEN; GITHUB_TOKEN=(masked)"),
            ("TOKEN=$(cat a b) && run", "TOKEN=(masked) && run"),
            ("curl 'h/x?token=a&page=2'", "curl 'h/x?token=(masked)&page=2'"),
            ("-H \"X-Api-Key: a b\" https://h", "-H \"X-Api-Key: (masked)\" https://h"),
            ("docker run -e \"DB_PASS=a b\" i", "docker run -e \"DB_PASS=(masked)\" i"),
            ("sed -i s/password=.*/password=x/ f", "sed -i s/password=(masked) f"),
            ("openssl -passout pass:x -out f", "openssl -passout (masked) -out f"),
            ("pass=grün", "pass=(masked)"),
        ]);
    }

    #[test]
    fn harmless_text_stays_byte_for_byte() {
        for line in [
            "",
            "ü",
            "  \t ",
            "bypass: x",
            "compass=north",
            "author: me",
            "authors = me",
            "ssh_authorized_keys: [ssh-ed25519 AAAA]",
            "authorized_keys: x",
            "ssh_pwauth: false",
            "lock_passwd: true",
            "lock_passwd:",
            "password:",
            "password: \"\"",
            "PASS=",
            "PASS=; x=1",
            "PasswordAuthentication no",
            "PasswordAuthentication: no",
            "cat /etc/passwd",
            "-v /etc/passwd:/etc/passwd:ro",
            "passwd -l root",
            "# the password is set elsewhere",
            "echo tokens are fine",
            "sudo: ALL=(ALL) NOPASSWD:ALL",
            "adduser --disabled-password bob",
            "docker login --password-stdin h",
            "chpasswd: {expire: false}",
            "mkdir -p /srv/www",
            "apt-get install mysql-server && mkdir -p /srv",
            "cp -a a b",
            "ls -a",
            "redis-cli ping",
            "curl -u bob https://h",
            "curl https://h:80/x@y",
            "mysql -p -u root",
            "path=$HOME/x pattern_path=y",
            "echo $1$2",
            "  <password></password>",
            "Secret::of(x)",
            "a\r\nb\r\n",
        ] {
            assert_eq!(text(line), line);
        }
    }

    #[test]
    fn secrets_in_urls_and_headers_are_masked() {
        check(&[
            ("postgres://u:pw@h/db", "postgres://u:(masked)@h/db"),
            ("x=https://token:p@w@h y", "x=https://token:(masked)@h y"),
            ("Authorization: Bearer abc", "Authorization: (masked)"),
            ("curl -H 'Authorization: Basic abc=' h", "curl -H 'Authorization: (masked)' h"),
            ("send bearer abcdefghijklmnop now", "send bearer (masked) now"),
        ]);
    }

    #[test]
    fn secrets_given_to_commands_are_masked() {
        check(&[
            ("mysql -u root -phunter db", "mysql -u root -p(masked) db"),
            ("mysqldump -p hunter db", "mysqldump -p (masked) db"),
            ("mysqladmin -p'a b' ping", "mysqladmin -p(masked) ping"),
            ("sshpass -p x ssh -p 22 h", "sshpass -p (masked) ssh -p 22 h"),
            ("useradd -m -p 'x y' bob", "useradd -m -p (masked) bob"),
            ("usermod -p x bob", "usermod -p (masked) bob"),
            ("curl -u bob:pw https://h", "curl -u (masked) https://h"),
            ("curl -su 'bob:p w' 'https://h?a&b'", "curl -su (masked) 'https://h?a&b'"),
            ("wget -q -u bob:pw h", "wget -q -u (masked) h"),
            ("redis-cli -h h -a x ping", "redis-cli -h h -a (masked) ping"),
            (
                "kubectl --from-literal=k=x --from-literal='l=y z' a",
                "kubectl --from-literal=k=(masked) --from-literal='l=(masked)' a",
            ),
            ("CREATE USER u IDENTIFIED BY \"x\";", "CREATE USER u IDENTIFIED BY (masked);"),
            ("requirepass x", "requirepass (masked)"),
            ("masterauth x", "masterauth (masked)"),
            ("echo \"root:pw\" | chpasswd", "echo (masked) | chpasswd"),
            ("echo root:pw | sudo chpasswd -e", "echo (masked) | sudo chpasswd -e"),
            ("chpasswd <<< 'root:pw'", "chpasswd <<< (masked)"),
            ("machine h login u password p", "machine h login u password (masked)"),
        ]);
    }

    #[test]
    fn secrets_are_masked_by_their_shape() {
        for secret in [
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-_123",
            "ghp_0123456789abcdef",
            "gho_0123456789abcdef",
            "ghu_0123456789abcdef",
            "ghs_0123456789abcdef",
            "ghr_0123456789abcdef",
            "github_pat_0123456789_abcdef",
            "xoxb-123456-abcdef",
            "AKIAIOSFODNN7EXAMPLE",
            "$1$saltsalt$qjXMvbEw8oaL.CzflDtaK/",
            "$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy",
            "$5$salt$abcdef",
            "$6$rounds=5000$salt$abc./def",
            "$y$j9T$abc$def",
            "AGE-SECRET-KEY-1QQPQ",
        ] {
            check(&[(&format!("say '{secret}' loud"), "say '(masked)' loud")]);
        }
        check(&[(
            "https://hooks.slack.com/services/T0/B0/x y",
            "https://hooks.slack.com/services/(masked) y",
        )]);
    }

    #[test]
    fn private_keys_are_masked_between_their_marks() {
        check(&[
            (
                "a\n  -----BEGIN OPENSSH PRIVATE KEY-----\n  b3Blb\n\n  x\n  -----END OPENSSH PRIVATE KEY-----\nb",
                "a\n  -----BEGIN OPENSSH PRIVATE KEY-----\n  (masked)\n\n  (masked)\n  -----END OPENSSH PRIVATE KEY-----\nb",
            ),
            (
                r#"k = "-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----" x"#,
                r#"k = "-----BEGIN PRIVATE KEY-----(masked)-----END PRIVATE KEY-----" x"#,
            ),
            ("-----BEGIN CERTIFICATE-----\nabc", "-----BEGIN CERTIFICATE-----\nabc"),
        ]);
    }

    #[test]
    fn values_are_masked_over_several_lines() {
        check(&[
            ("PASS=ab\\\ncd\\\nef\nls", "PASS=(masked)\\\n(masked)\\\n(masked)\nls"),
            ("x --password \\\n  hunter\nls", "x --password (masked)\\\n  (masked)\nls"),
            ("x --password hunter \\\n  -v", "x --password (masked) \\\n  -v"),
            ("password: >-\n  a\n\n  b\nhost: h", "password: >-\n  (masked)\n\n  (masked)\nhost: h"),
            ("- token: |\n    a\n  host: h", "- token: |\n    (masked)\n  host: h"),
            ("text: |\n  a", "text: |\n  a"),
            (
                "chpasswd:\n  expire: false\n  list: |\n    root:a b\n    bob:c\nhost:x",
                "chpasswd:\n  expire: false\n  list: |\n    root:(masked)\n    bob:(masked)\nhost:(masked)",
            ),
            ("chpasswd <<EOF\nroot:pw\nEOF\na:b", "chpasswd <<EOF\nroot:(masked)\nEOF\na:b"),
        ]);
    }

    /// Text made of what the patterns look for, so that they meet in unforeseen ways.
    fn fragments() -> impl proptest::strategy::Strategy<Value = String> {
        let parts = [
            "password",
            "token",
            "by",
            "lock_",
            "PASS",
            "auth",
            "=",
            ":",
            ": ",
            " = ",
            "--",
            "-p",
            "\"",
            "'",
            "\\",
            "(",
            ")",
            "{",
            "}",
            ",",
            ";",
            "&",
            "|",
            " ",
            "\n",
            "  ",
            "ü",
            "x",
            "mysql ",
            "curl ",
            "-u ",
            "://",
            "@",
            "/",
            "$6$",
            "abcdefghijklmnop",
            "-----BEGIN PRIVATE KEY-----",
            "-----END PRIVATE KEY-----",
            "<",
            ">",
            "<pass>",
            "</",
            "echo ",
            "chpasswd",
            "AKIA0123456789ABCDEF",
            "ghp_0123456789",
            "(masked)",
            "$",
            "#",
            "-",
            ".",
            "_",
            "bearer ",
            "--from-literal=",
            "requirepass ",
            "eyJabcd.",
            "[",
            "]",
            "identified by ",
        ];
        proptest::strategy::Strategy::prop_map(
            proptest::collection::vec(proptest::sample::select(parts.to_vec()), 0..16),
            |parts| parts.concat(),
        )
    }

    #[test]
    fn long_lines_are_masked_to_their_end() {
        for part in
            ["pass: {", "--pass -(", "curl -u (", "pass= 'x' ", "mysql -p ( ", "a;b&", "<pass>", "echo x|"]
        {
            let masked = text(&(part.repeat(20_000) + " ghp_0123456789abcdef"));
            assert!(!masked.contains("ghp_"), "{part}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_the_mask(given in "(?s).*") {
            let masked = text(&given);
            assert_eq!(masked.matches('\n').count(), given.matches('\n').count());
        }

        #[test]
        fn masked_text_is_masked_already(given in fragments()) {
            let masked = text(&given);
            assert_eq!(text(&masked), masked, "{given:?}");
        }
    }
}
