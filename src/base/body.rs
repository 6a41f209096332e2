//! HTTP/1.1 body framing, for both sides: in, bytes read ahead; out, pieces of the body.

use bytes::{Buf, Bytes, BytesMut};

use super::chunked::{BadChunk, ChunkDecoder, Step};

/// Where in a body we are (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy)]
pub enum BodyReader {
    /// Nothing (more) belongs to the body.
    Done,
    /// This many bytes are left; more than 0.
    Length(u64),
    /// Chunks.
    Chunked(ChunkDecoder),
    /// All until the connection ends: answers only.
    UntilClose,
}

/// What the bytes at hand give.
#[derive(Debug, PartialEq, Eq)]
pub enum Buffered {
    /// A piece, not empty.
    Piece(Bytes),
    /// The body is complete.
    End,
    /// More bytes must be read.
    More,
}

/// A body as it gathers. One that comes in one piece is never copied.
#[derive(Debug, Default)]
pub struct Pieces {
    first: Bytes,
    more: BytesMut,
}

impl Pieces {
    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.first.len() + self.more.len()
    }

    /// Whether there are none yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a piece.
    pub fn push(&mut self, piece: Bytes) {
        if self.is_empty() {
            self.first = piece;
            return;
        }
        if self.more.is_empty() {
            self.more = BytesMut::from(std::mem::take(&mut self.first));
        }
        self.more.extend_from_slice(&piece);
    }

    /// All of it.
    pub fn joined(self) -> Bytes {
        if self.more.is_empty() { self.first } else { self.more.freeze() }
    }
}

impl BodyReader {
    /// A body of `n` bytes.
    pub fn length(n: u64) -> Self {
        if n == 0 { Self::Done } else { Self::Length(n) }
    }

    /// Bytes that are known to follow.
    pub fn announced(&self) -> u64 {
        match self {
            Self::Length(left) => *left,
            Self::Chunked(decoder) => decoder.announced(),
            Self::Done | Self::UntilClose => 0,
        }
    }

    /// Whether the body is complete.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Takes the next piece out of `ahead`.
    ///
    /// # Errors
    /// Broken chunked coding.
    pub fn next(&mut self, ahead: &mut BytesMut) -> Result<Buffered, BadChunk> {
        match self {
            Self::Done => Ok(Buffered::End),
            _ if ahead.is_empty() => Ok(Buffered::More),
            Self::UntilClose => Ok(Buffered::Piece(take(ahead, usize::MAX))),
            Self::Length(left) => {
                let piece = take(ahead, usize::try_from(*left).unwrap_or(usize::MAX));
                *self = Self::length(left.saturating_sub(piece.len() as u64));
                Ok(Buffered::Piece(piece))
            }
            Self::Chunked(decoder) => match decoder.step(ahead)? {
                Step::Need => {
                    *ahead = BytesMut::new();
                    Ok(Buffered::More)
                }
                Step::Data { skip, len } => {
                    ahead.advance(skip);
                    Ok(Buffered::Piece(take(ahead, len)))
                }
                Step::End(at) => {
                    ahead.advance(at);
                    *self = Self::Done;
                    Ok(Buffered::End)
                }
            },
        }
    }

    /// What the end of the connection means here: a complete body or a broken one.
    pub fn ends_with_connection(&mut self) -> bool {
        let complete = matches!(self, Self::UntilClose | Self::Done);
        if complete {
            *self = Self::Done;
        }
        complete
    }
}

/// Takes at most `n` bytes; an emptied buffer lets go of its memory.
fn take(ahead: &mut BytesMut, n: usize) -> Bytes {
    if n >= ahead.len() {
        return std::mem::take(ahead).freeze();
    }
    ahead.split_to(n).freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_leaves_what_follows() {
        let mut ahead = BytesMut::from(&b"abcGET"[..]);
        let mut body = BodyReader::length(3);
        assert_eq!(body.next(&mut ahead), Ok(Buffered::Piece(Bytes::from_static(b"abc"))));
        assert_eq!(body.next(&mut ahead), Ok(Buffered::End));
        assert_eq!(&ahead[..], b"GET");
    }

    #[test]
    fn pieces_join_in_order() {
        let mut body = Pieces::default();
        assert_eq!(body.joined(), "");
        body = Pieces::default();
        for piece in ["", "ab", "c", "", "def"] {
            body.push(Bytes::from_static(piece.as_bytes()));
        }
        assert_eq!((body.len(), body.joined()), (6, Bytes::from_static(b"abcdef")));
    }

    #[test]
    fn only_a_body_until_close_ends_with_the_connection() {
        assert!(BodyReader::UntilClose.ends_with_connection());
        assert!(!BodyReader::length(1).ends_with_connection());
        assert!(!BodyReader::Chunked(ChunkDecoder::default()).ends_with_connection());
    }
}
