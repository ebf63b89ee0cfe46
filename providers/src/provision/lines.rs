//! Output of a guest as lines.

/// Longest line that is passed on in one piece; a longer one comes in several.
pub(super) const MAX_LINE: usize = 64 * 1024;

/// Cuts a stream of bytes into lines, in constant memory.
#[derive(Debug, Default)]
pub(super) struct LineSplitter {
    pending: Vec<u8>,
}

impl LineSplitter {
    /// Takes `bytes` and hands every line that is now whole to `line`, without its end.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        while !bytes.is_empty() {
            let room = &bytes[..bytes.len().min(MAX_LINE - self.pending.len())];
            let end = room.iter().position(|byte| *byte == b'\n');
            let taken = end.unwrap_or(room.len());
            self.pending.extend_from_slice(&room[..taken]);
            bytes = &bytes[taken + usize::from(end.is_some())..];
            if end.is_some() || self.pending.len() == MAX_LINE {
                lines.push(self.take());
            }
        }
        lines
    }

    /// The last line, if the stream ended within one.
    pub(super) fn finish(&mut self) -> Option<String> {
        (!self.pending.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> String {
        let line = self.pending.strip_suffix(b"\r").unwrap_or(&self.pending);
        let text = String::from_utf8_lossy(line).into_owned();
        self.pending.clear();
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(pieces: &[&[u8]]) -> Vec<String> {
        let mut splitter = LineSplitter::default();
        let mut lines: Vec<String> = pieces.iter().flat_map(|piece| splitter.push(piece)).collect();
        lines.extend(splitter.finish());
        lines
    }

    #[test]
    fn lines_come_whole_however_the_stream_is_cut() {
        assert_eq!(split(&[b"on", b"e\ntw", b"o\r\n\nlast"]), ["one", "two", "", "last"]);
        assert_eq!(split(&[b"\xc3", b"\xa4\n"]), ["ä"]);
        assert_eq!(split(&[b"\xff\n"]), ["\u{fffd}"]);
        assert_eq!(split(&[]), [""; 0]);
    }

    #[test]
    fn endless_line_is_cut_and_does_not_grow() {
        let mut splitter = LineSplitter::default();
        let piece = vec![b'x'; MAX_LINE / 2 + 1];
        let lengths: Vec<usize> = (0..4).flat_map(|_| splitter.push(&piece)).map(|line| line.len()).collect();
        assert_eq!(lengths, [MAX_LINE, MAX_LINE]);
        assert_eq!(splitter.finish().map(|line| line.len()), Some(4));
        assert!(splitter.pending.capacity() <= 2 * MAX_LINE);
    }

    proptest! {
        #[test]
        fn lines_joined_are_the_stream(text in "[a-z\n]{0,200}", cut in 0usize..200) {
            let cut = cut.min(text.len());
            let lines = split(&[&text.as_bytes()[..cut], &text.as_bytes()[cut..]]);
            let expected: Vec<&str> = text.lines().collect();
            prop_assert_eq!(lines, expected);
        }
    }
}
