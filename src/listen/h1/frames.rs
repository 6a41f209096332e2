//! Frames of WebSocket as they pass (RFC 6455 §5.2): in, bytes in any pieces; out, whether one is under way.

/// How far the stream has come in a frame. Nothing of it is kept.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// Whether the first of its two fixed bytes is here.
    begun: bool,
    /// Bytes of its long length that are still to come.
    length: u8,
    /// Bytes of its mask that are still to come.
    mask: u8,
    /// Bytes of its payload that are still to come.
    left: u64,
    /// Whether a close frame has begun: no other may follow (§5.5.1).
    closing: bool,
}

impl Frames {
    /// Goes on by what was passed on.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            bytes = rest;
            if self.length > 0 {
                self.length -= 1;
                self.left = self.left << 8 | u64::from(byte);
            } else if self.mask > 0 {
                self.mask -= 1;
            } else if self.left > 0 {
                let skipped = rest.len().min(usize::try_from(self.left - 1).unwrap_or(usize::MAX));
                self.left -= 1 + skipped as u64;
                bytes = rest.get(skipped..).unwrap_or_default();
            } else if self.begun {
                self.begun = false;
                (self.length, self.left) = match byte & 0x7f {
                    126 => (2, 0),
                    127 => (8, 0),
                    short => (0, short.into()),
                };
                self.mask = if byte & 0x80 == 0 { 0 } else { 4 };
            } else {
                self.begun = true;
                self.closing |= byte & 0x0f == 8;
            }
        }
    }

    /// Whether no frame is under way: control frames may stand between any two, also within a message (§5.4).
    pub(super) fn at_border(&self) -> bool {
        !self.begun && self.length == 0 && self.mask == 0 && self.left == 0
    }

    /// Whether the other side has closed by itself.
    pub(super) fn is_closing(&self) -> bool {
        self.closing
    }
}

/// A close frame of a server, with no mask (§5.5.1).
pub(super) fn close(code: u16) -> [u8; 4] {
    let [high, low] = code.to_be_bytes();
    [0x88, 2, high, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where borders are, as a text: `|` behind each byte that ends a frame.
    fn borders(bytes: &[u8]) -> String {
        let mut frames = Frames::default();
        let border = |byte: &u8| {
            frames.pass(&[*byte]);
            if frames.at_border() { '|' } else { '.' }
        };
        bytes.iter().map(border).collect()
    }

    #[test]
    fn a_border_is_where_a_frame_ends() {
        assert!(Frames::default().at_border());
        assert_eq!(borders(b"\x81\x03abc\x8a\0\x82\x01x"), "....|.|..|");
        assert_eq!(borders(b"\x01\x81masky\x80\x80mask"), "......|.....|");
        let mut long = b"\x82\x7e\x01\x00".to_vec();
        long.extend([b'\x81'; 256]);
        assert_eq!(borders(&long).find('|'), Some(259));
        let mut longer = b"\x82\x7f\0\0\0\0\0\x01\0\0".to_vec();
        longer.extend([0; 65536]);
        assert_eq!(borders(&longer).find('|'), Some(65545));
        for size in [1, 2, 3, 7, 1000] {
            let mut frames = Frames::default();
            let mut seen = 0;
            for piece in longer.chunks(size) {
                assert!(!frames.at_border() || seen == 0, "{size}: {seen}");
                frames.pass(piece);
                seen += piece.len();
            }
            assert!(frames.at_border(), "{size}");
        }
        // none that is as long as it says: 2^64 - 1 bytes
        let mut frames = Frames::default();
        frames.pass(b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xffabc");
        assert!(!frames.at_border());
    }

    #[test]
    fn a_close_frame_is_seen_and_made() {
        let mut frames = Frames::default();
        frames.pass(b"\x81\x01\x88");
        assert!(!frames.is_closing(), "a payload");
        frames.pass(&close(1001));
        assert!(frames.is_closing() && frames.at_border());
        assert_eq!(close(1001), *b"\x88\x02\x03\xe9");
    }
}
