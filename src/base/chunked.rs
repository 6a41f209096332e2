//! Chunked coding (RFC 9112 §7.1): in, bytes as they arrive; out, where the data in them lies; and in, a piece of a
//! body; out, a chunk.
//!
//! Reading is strict on purpose: what one side reads leniently and the other does not is how requests are
//! smuggled. Line ends are CRLF, sizes are 1 to 15 hex digits, extensions and trailers are bounded
//! and dropped.

/// Bytes of extension allowed per chunk.
const MAX_EXTENSION: u32 = 256;
/// Bytes of trailer section allowed.
const MAX_TRAILERS: u32 = 8 * 1024;

/// Decodes one chunked body.
#[derive(Debug, Clone, Copy)]
pub struct ChunkDecoder {
    state: State,
    left: u64,
    count: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    Trailer,
    TrailerLf,
    EndLf,
    Done,
}

/// What the next bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// All input was framing; more is needed. The input can be dropped.
    Need,
    /// After `skip` bytes of framing come `len` bytes of data.
    Data {
        /// Framing bytes before the data.
        skip: usize,
        /// Bytes of data, at least one.
        len: usize,
    },
    /// The body ended after this many bytes of the input.
    End(usize),
}

/// The bytes are not chunked coding as RFC 9112 has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadChunk;

/// A piece as one chunk, unless it is empty, and the last chunk behind it if it is the last piece.
pub fn chunk(piece: &[u8], last: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(piece.len() + 24);
    if !piece.is_empty() {
        out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
    if last {
        out.extend_from_slice(b"0\r\n\r\n");
    }
    out
}

impl Default for ChunkDecoder {
    fn default() -> Self {
        Self { state: State::Size, left: 0, count: 0 }
    }
}

impl ChunkDecoder {
    /// Looks at `input`, which starts where the last step ended.
    ///
    /// # Errors
    /// [`BadChunk`] at the first byte that does not belong there.
    pub fn step(&mut self, input: &[u8]) -> Result<Step, BadChunk> {
        for (at, &byte) in input.iter().enumerate() {
            if self.state == State::Data {
                return Ok(self.data(at, input.len() - at));
            }
            if self.state == State::Done {
                return Ok(Step::End(at));
            }
            self.framing(byte)?;
        }
        Ok(if self.state == State::Done { Step::End(input.len()) } else { Step::Need })
    }

    /// Bytes of the current chunk that are still to come.
    pub fn announced(&self) -> u64 {
        if self.state == State::Data { self.left } else { 0 }
    }

    /// Whether the last chunk and the trailers have been read.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    fn data(&mut self, skip: usize, available: usize) -> Step {
        let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(available);
        self.left -= len as u64;
        if self.left == 0 {
            self.state = State::DataCr;
        }
        Step::Data { skip, len }
    }

    fn framing(&mut self, byte: u8) -> Result<(), BadChunk> {
        self.state = match (self.state, byte) {
            (State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => self.digit(byte)?,
            (State::Size, b';') if self.count > 0 => self.restart(State::Extension),
            (State::Size, b'\r') if self.count > 0 => State::SizeLf,
            (State::Extension, b'\r') => State::SizeLf,
            (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => {
                self.bounded(MAX_EXTENSION, State::Extension)?
            }
            (State::SizeLf, b'\n') => {
                self.restart(if self.left == 0 { State::TrailerStart } else { State::Data })
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => self.restart(State::Size),
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::TrailerName, b':') => self.bounded(MAX_TRAILERS, State::Trailer)?,
            (State::TrailerStart | State::TrailerName, _) if is_token(byte) => {
                self.bounded(MAX_TRAILERS, State::TrailerName)?
            }
            (State::Trailer, b'\t' | b' '..=b'~' | 0x80..) => {
                self.bounded(MAX_TRAILERS, State::Trailer)?
            }
            (State::Trailer, b'\r') => State::TrailerLf,
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::EndLf, b'\n') => State::Done,
            _ => return Err(BadChunk),
        };
        Ok(())
    }

    fn digit(&mut self, byte: u8) -> Result<State, BadChunk> {
        self.count += 1;
        // 15 digits stay far below the sign bit, whatever a backend stores sizes in
        if self.count > 15 {
            return Err(BadChunk);
        }
        let value = char::from(byte).to_digit(16).ok_or(BadChunk)?;
        self.left = self.left << 4 | u64::from(value);
        Ok(State::Size)
    }

    fn bounded(&mut self, max: u32, next: State) -> Result<State, BadChunk> {
        self.count += 1;
        if self.count > max { Err(BadChunk) } else { Ok(next) }
    }

    fn restart(&mut self, next: State) -> State {
        self.count = 0;
        next
    }
}

/// RFC 9110 §5.6.2.
pub fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(pieces: &[&[u8]]) -> Result<(Vec<u8>, bool, Vec<u8>), BadChunk> {
        let (mut decoder, mut out, mut rest) = (ChunkDecoder::default(), Vec::new(), Vec::new());
        for piece in pieces {
            let mut input = *piece;
            while !input.is_empty() {
                match decoder.step(input)? {
                    Step::Need => break,
                    Step::Data { skip, len } => {
                        out.extend_from_slice(&input[skip..skip + len]);
                        input = &input[skip + len..];
                    }
                    Step::End(at) => {
                        rest.extend_from_slice(&input[at..]);
                        break;
                    }
                }
            }
        }
        Ok((out, decoder.is_done(), rest))
    }

    #[test]
    fn reads_chunks_extensions_and_trailers() {
        let body = b"3;a=b\r\nabc\r\n0A\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\nGET";
        assert_eq!(decode(&[body]), Ok((b"abc0123456789".to_vec(), true, b"GET".to_vec())));
    }

    #[test]
    fn refuses_what_others_read_differently() {
        for bad in [
            &b"0x3\r\nabc\r\n0\r\n\r\n"[..],
            b"-1\r\n",
            b"+3\r\n",
            b"\r\n",
            b" 3\r\nabc",
            b"3 \r\nabc",
            b"3\nabc\r\n",
            b"3\r\nabcX",
            b"3\r\nabc\n0\r\n\r\n",
            b"3\r\nabc\r\n0\n\r\n",
            b"0\r\nX: 1\n\r\n",
            b"0\r\nX: 1\r\n folded\r\n\r\n",
            b"0\r\nnonsense\r\n\r\n",
            b"0\r\n: x\r\n\r\n",
            b"0000000000000003\r\nabc",
            b"3;a=\x00\r\nabc",
            b"3;a\n\r\nabc",
            b";a\r\n",
        ] {
            assert_eq!(decode(&[bad]), Err(BadChunk), "{:?}", String::from_utf8_lossy(bad));
        }
        let long = [b"3;".to_vec(), vec![b'a'; 300], b"\r\n".to_vec()].concat();
        assert_eq!(decode(&[&long]), Err(BadChunk));
    }

    #[test]
    fn reads_what_it_writes() {
        let long = [b'x'; 300];
        let pieces =
            [chunk(b"abc", false), chunk(b"", false), chunk(&long, false), chunk(b"d", true)];
        let body = pieces.concat();
        assert!(body.starts_with(b"3\r\nabc\r\n12c\r\nxx") && body.ends_with(b"d\r\n0\r\n\r\n"));
        let whole = [b"abc", &long[..], b"d"].concat();
        assert_eq!(decode(&[&body]), Ok((whole, true, Vec::new())));
        assert_eq!(chunk(b"", true), b"0\r\n\r\n");
    }

    proptest! {
        #[test]
        fn any_split_reads_the_same(data in proptest::collection::vec(any::<u8>(), 0..300), cuts in proptest::collection::vec(1usize..20, 0..40), size in 1usize..50) {
            let mut body = Vec::new();
            for chunk in data.chunks(size) {
                body.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                body.extend_from_slice(chunk);
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(b"0\r\n\r\n");
            let (mut pieces, mut rest) = (Vec::new(), &body[..]);
            for cut in cuts {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                pieces.push(head);
                rest = tail;
            }
            pieces.push(rest);
            prop_assert_eq!(decode(&pieces), Ok((data, true, Vec::new())));
        }
    }
}
