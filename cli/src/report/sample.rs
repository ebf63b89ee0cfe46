//! Reports for tests: one that has everything, and one that says the same text everywhere.

use vmctl_planner::picture::{Picture, PictureEdge, PictureNode, Tone};

use super::{Report, ReportChange, ReportCheck, ReportCount, ReportDiff, ReportField, ReportInput};

/// Texts that mean something to HTML, Markdown, a browser or GitHub.
pub(super) const HOSTILE: [&str; 19] = [
    "<script>alert(1)</script>",
    "</script></style></title><img src=x onerror=alert(1)>",
    "\" autofocus onfocus=\"alert(1)",
    "<!-- ]]> -->",
    "&lt;b&gt; &#60;",
    "</details></summary>",
    "a | b \\| c \\",
    "`code` ``` ~~~",
    "two\n\n# lines\n\n```\n- three",
    "**bold** _em_ ~~gone~~ [link](javascript:alert(1)) ![image](x)",
    "1. one",
    "23) two",
    "+ three",
    "====",
    "- [ ] task",
    "---",
    "http://example.org www.example.org <http://example.org>",
    "\0\u{1b}[31m\u{202e}turned\u{2028}",
    "    indented",
];

fn texts<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).into()
}

fn change(symbol: &str, address: &str, action: &str, tone: Tone) -> ReportChange {
    ReportChange {
        address: address.to_owned(),
        action: action.to_owned(),
        symbol: symbol.to_owned(),
        tone,
        reasons: Vec::new(),
        losses: Vec::new(),
        drift: Vec::new(),
        fields: Vec::new(),
        diffs: Vec::new(),
        provision: Vec::new(),
        refused: None,
    }
}

fn field(name: &str, before: &str, after: &str) -> ReportField {
    ReportField { name: name.to_owned(), before: before.to_owned(), after: after.to_owned() }
}

fn count(number: usize, name: &str, tone: Tone) -> ReportCount {
    ReportCount { number, name: name.to_owned(), tone }
}

/// A report that has everything.
pub(super) fn sample() -> Report {
    let diff = ReportDiff {
        title: "provisioning step 1 (`setup.sh`)".to_owned(),
        text: "--- recorded\n+++ desired\n@@ -1,3 +1,3 @@\n #!/bin/sh\n--- old flag\n-echo one\n+echo two\n"
            .to_owned(),
    };
    let changes = vec![
        ReportChange {
            reasons: texts(["provisioning step 1 changed"]),
            drift: texts(["its process ended"]),
            diffs: vec![diff],
            provision: texts(["setup.sh", "upload site.conf"]),
            ..change("!", "vm.web", "restart", Tone::Change)
        },
        ReportChange {
            reasons: texts(["image changed", "cannot be done in place"]),
            losses: texts(["its disk (8 GiB) is removed with everything on it"]),
            fields: vec![
                field("image", "sha256:0123…", "sha256:4567…"),
                field("memory", "512 MiB", "1024 MiB"),
            ],
            ..change("-/+", "vm.db", "replace", Tone::Bad)
        },
        ReportChange {
            refused: Some("it is kept by `prevent-destroy`".to_owned()),
            losses: texts(["its disk (2 GiB) is removed with everything on it"]),
            ..change("-", "vm.vault", "destroy", Tone::Bad)
        },
        ReportChange {
            fields: vec![field("backend", "", "qemu"), field("vcpus", "", "2")],
            ..change("+", "vm.cache", "create", Tone::Good)
        },
    ];
    let check = |name: &str, verdict: &str, tone, detail: &str| ReportCheck {
        name: name.to_owned(),
        address: "vm.web".to_owned(),
        verdict: verdict.to_owned(),
        tone,
        detail: detail.to_owned(),
    };
    Report {
        title: "Plan for shop".to_owned(),
        project: "shop".to_owned(),
        mode: "plan".to_owned(),
        counts: vec![
            count(1, "to create", Tone::Good),
            count(1, "to update", Tone::Change),
            count(1, "to replace", Tone::Bad),
            count(1, "to destroy", Tone::Bad),
            count(0, "to forget", Tone::Muted),
        ],
        changes,
        drift: texts(["vm.queue: cannot be reached: no answer within 5s"]),
        notes: texts(["`vm.old` is now called `vm.db`"]),
        shortages: vec![(
            "memory".to_owned(),
            "`big` needs 64.2 GiB of memory, 22.9 GiB is available; apply refuses this without --overcommit"
                .to_owned(),
        )],
        strays: texts(["a process of QEMU (pid 4711) that no record names"]),
        checks: vec![
            check("page", "passed", Tone::Good, ""),
            check("disk", "failed", Tone::Bad, "df: 97% used"),
        ],
        steps: Some(steps(["vm.db: destroy", "vm.db: prepare", "vm.db: start", "vm.cache: prepare"])),
        inputs: vec![ReportInput {
            path: "/shop/VMFile.kdl".to_owned(), digest: "sha256:89ab…".to_owned()
        }],
        facts: vec![
            ("Made".to_owned(), "2025-01-02T03:04:05Z".to_owned()),
            ("By".to_owned(), "vmctl 0.1.0".to_owned()),
        ],
    }
}

fn steps(titles: [&str; 4]) -> Picture {
    let node =
        |title: &str| PictureNode { title: title.to_owned(), subtitle: String::new(), tone: Tone::Good };
    let edge = |(from, to)| PictureEdge { from, to, label: String::new() };
    Picture {
        title: "steps of the plan".to_owned(),
        nodes: titles.map(node).into(),
        edges: [(0, 1), (1, 2)].map(edge).into(),
    }
}

/// A report that says `text` wherever it says anything.
pub(super) fn filled(text: &str) -> Report {
    let change = ReportChange {
        reasons: texts([text, text]),
        losses: texts([text]),
        drift: texts([text]),
        fields: vec![field(text, text, text)],
        diffs: vec![ReportDiff { title: text.to_owned(), text: text.replace('`', "'") }],
        provision: texts([text]),
        refused: Some(text.to_owned()),
        ..change(text, text, text, Tone::Bad)
    };
    let check = ReportCheck {
        name: text.to_owned(),
        address: text.to_owned(),
        verdict: text.to_owned(),
        tone: Tone::Bad,
        detail: text.to_owned(),
    };
    Report {
        title: text.to_owned(),
        project: text.to_owned(),
        mode: text.to_owned(),
        counts: vec![count(1, text, Tone::Good)],
        changes: vec![change.clone(), change],
        drift: texts([text]),
        notes: texts([text]),
        shortages: vec![(text.to_owned(), text.to_owned())],
        strays: texts([text]),
        checks: vec![check],
        steps: Some(steps([text; 4])),
        inputs: vec![ReportInput { path: text.to_owned(), digest: text.to_owned() }],
        facts: vec![(text.to_owned(), text.to_owned())],
    }
}
