//! Two pieces of user-data as one MIME document, which is cloud-init's own form for that.
//!
//! Both parts are in base64, so that they come out as they went in, to the byte, whatever they hold.

use base64ct::{Base64, Encoding};
use sha2::{Digest as _, Sha256};

/// Letters of base64 in a line (RFC 2045, 6.8).
const LINE: usize = 76;

/// The document of the user's own part, whose kind cloud-init tells by its first line, and of ours, a cloud-config.
pub(super) fn joined(theirs: &[u8], ours: &[u8]) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(theirs);
    hash.update(ours);
    // No line of base64 has these signs, so that nothing in a part looks like the end of it.
    let boundary =
        format!("==vmctl-{}==", &Base64::encode_string(&hash.finalize())[..16].replace(['+', '/'], "0"));
    let mut document =
        format!("Content-Type: multipart/mixed; boundary=\"{boundary}\"\nMIME-Version: 1.0\n\n");
    for (kind, name, content) in
        [("text/plain", "user-data", theirs), ("text/cloud-config", "vmctl.cfg", ours)]
    {
        document.push_str(&format!(
            "--{boundary}\nContent-Type: {kind}; charset=\"utf-8\"\nMIME-Version: 1.0\n\
             Content-Transfer-Encoding: base64\nContent-Disposition: attachment; filename=\"{name}\"\n\n"
        ));
        let letters = Base64::encode_string(content);
        let mut rest = letters.as_str();
        while !rest.is_empty() {
            let (line, more) = rest.split_at(rest.len().min(LINE));
            document.push_str(line);
            document.push('\n');
            rest = more;
        }
    }
    document.push_str(&format!("--{boundary}--\n"));
    document.into_bytes()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Kinds and contents of the parts of a document.
    pub(in crate::seed) fn parts(document: &str) -> Vec<(String, String)> {
        let (head, body) = document.split_once("\n\n").unwrap();
        let boundary = head.split('"').nth(1).unwrap();
        let body = body.strip_suffix(&format!("--{boundary}--\n")).unwrap();
        body.split(&format!("--{boundary}\n"))
            .skip(1)
            .map(|part| {
                let (head, content) = part.split_once("\n\n").unwrap();
                let kind = head.strip_prefix("Content-Type: ").unwrap().split(';').next().unwrap();
                let bytes = Base64::decode_vec(&content.replace('\n', "")).unwrap();
                (kind.to_owned(), String::from_utf8(bytes).unwrap())
            })
            .collect()
    }

    #[test]
    fn lines_are_short_and_the_same_parts_give_the_same_document() {
        let theirs = "#!/bin/sh\n".repeat(100);
        let document = joined(theirs.as_bytes(), b"#cloud-config\n{}\n");
        assert_eq!(document, joined(theirs.as_bytes(), b"#cloud-config\n{}\n"));
        let document = String::from_utf8(document).unwrap();
        assert!(document.lines().all(|line| line.len() <= LINE));
        assert_eq!(parts(&document)[0], ("text/plain".to_owned(), theirs));
    }
}
