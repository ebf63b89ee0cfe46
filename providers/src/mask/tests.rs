//! What is hidden, and what is not.

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
        ("DB_PASS=x MYPASS=y smtp_pass='z z' run", "DB_PASS=(masked) MYPASS=(masked) smtp_pass=(masked) run"),
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
    check(&[("https://hooks.slack.com/services/T0/B0/x y", "https://hooks.slack.com/services/(masked) y")]);
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
