//! Cuts a body into lines, server-sent events or binary frames as its bytes come, each byte looked at once, each event
//! bounded.

use bytes::{Bytes, BytesMut};

/// The longest line, in bytes.
const LONGEST_LINE: usize = 4 << 20;
/// The largest event of several lines, in bytes.
const LARGEST_EVENT: usize = 4 << 20;
/// The lengths of a frame and their checksum, in bytes.
#[cfg(feature = "bedrock")]
const PRELUDE: usize = 12;

/// How a body is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Server-sent events; what counts is their data.
    Events,
    /// One JSON text on each line.
    Lines,
    /// AWS's binary frames: two lengths with their checksum, headers, content, a checksum of it all.
    #[cfg(feature = "bedrock")]
    Frames,
}

/// What can't be cut.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Uncut {
    /// A line or an event that is longer than any honest one.
    TooLong,
    /// Bytes that are no frame.
    #[cfg(feature = "bedrock")]
    NoFrame,
}

/// A body on its way into pieces.
#[derive(Debug)]
pub(crate) struct Frames {
    framing: Framing,
    buffer: BytesMut,
    /// How much of the buffer is known to hold no line end.
    scanned: usize,
    /// The data of the event so far.
    event: Option<Event>,
    is_first_line: bool,
}

/// The data of an event so far. One line is the rule, and is not copied.
#[derive(Debug)]
enum Event {
    One(Bytes),
    Several(BytesMut),
}

impl Event {
    fn with(self, line: &[u8]) -> Result<Self, Uncut> {
        let mut lines = match self {
            Self::One(first) => BytesMut::from(first.as_ref()),
            Self::Several(lines) => lines,
        };
        if lines.len() + line.len() >= LARGEST_EVENT {
            return Err(Uncut::TooLong);
        }
        lines.extend_from_slice(b"\n");
        lines.extend_from_slice(line);
        Ok(Self::Several(lines))
    }

    fn data(self) -> Bytes {
        match self {
            Self::One(data) => data,
            Self::Several(lines) => lines.freeze(),
        }
    }
}

impl Frames {
    pub(crate) fn new(framing: Framing) -> Self {
        Self {
            framing,
            buffer: BytesMut::new(),
            scanned: 0,
            event: None,
            is_first_line: true,
        }
    }

    /// Takes in more of the body.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole piece, if there is one.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, Uncut> {
        #[cfg(feature = "bedrock")]
        if self.framing == Framing::Frames {
            return self.frame();
        }
        while let Some(line) = self.line()? {
            match self.framing {
                Framing::Lines if line.iter().all(u8::is_ascii_whitespace) => {}
                Framing::Lines => return Ok(Some(line)),
                Framing::Events => {
                    if let Some(event) = self.event_line(&line)? {
                        return Ok(Some(event));
                    }
                }
                #[cfg(feature = "bedrock")]
                Framing::Frames => {}
            }
        }
        Ok(None)
    }

    /// The next whole frame. Its lengths are believed once their checksum is right, and no further than an honest
    /// frame goes: until then nothing is waited for and nothing is set aside.
    #[cfg(feature = "bedrock")]
    fn frame(&mut self) -> Result<Option<Bytes>, Uncut> {
        let Some((lengths, checksum)) = self.buffer.get(..PRELUDE).map(|all| all.split_at(8))
        else {
            return Ok(None);
        };
        if checksum != crc32fast::hash(lengths).to_be_bytes() {
            return Err(Uncut::NoFrame);
        }
        let (whole, headers) = lengths.split_at(4);
        let (whole, headers) = (length(whole), length(headers));
        if whole > LARGEST_EVENT {
            return Err(Uncut::TooLong);
        }
        // The last four bytes are the checksum of all.
        if headers.saturating_add(PRELUDE + 4) > whole {
            return Err(Uncut::NoFrame);
        }
        Ok((self.buffer.len() >= whole).then(|| self.buffer.split_to(whole).freeze()))
    }

    /// What is left when the body has ended: a last line without a line end, or an event without its blank line.
    pub(crate) fn rest(&mut self) -> Result<Option<Bytes>, Uncut> {
        #[cfg(feature = "bedrock")]
        if self.framing == Framing::Frames {
            let cut_short = self.buffer.split().freeze();
            return Ok(Some(cut_short).filter(|bytes| !bytes.is_empty()));
        }
        let line = trimmed(self.buffer.split().freeze());
        self.scanned = 0;
        match self.framing {
            Framing::Lines => Ok(Some(line).filter(|line| !line.is_empty())),
            Framing::Events => {
                self.event_line(&line)?;
                Ok(self.event.take().map(Event::data))
            }
            #[cfg(feature = "bedrock")]
            Framing::Frames => Ok(None),
        }
    }

    fn line(&mut self) -> Result<Option<Bytes>, Uncut> {
        let unseen = self.buffer.get(self.scanned..).unwrap_or_default();
        let Some(found) = unseen.iter().position(|byte| *byte == b'\n') else {
            self.scanned = self.buffer.len();
            return if self.scanned > LONGEST_LINE {
                Err(Uncut::TooLong)
            } else {
                Ok(None)
            };
        };
        let end = self.scanned + found;
        if end > LONGEST_LINE {
            return Err(Uncut::TooLong);
        }
        let line = self.buffer.split_to(end + 1).freeze();
        self.scanned = 0;
        Ok(Some(trimmed(line)))
    }

    /// Takes in a line of an event. A blank line ends the event; one without data is none.
    fn event_line(&mut self, line: &Bytes) -> Result<Option<Bytes>, Uncut> {
        let is_first = std::mem::replace(&mut self.is_first_line, false);
        let mark = b"\xef\xbb\xbf".as_slice();
        let line = match line.strip_prefix(mark) {
            Some(text) if is_first => line.slice_ref(text),
            _ => line.clone(),
        };
        if line.is_empty() {
            return Ok(self.event.take().map(Event::data));
        }
        let Some(value) = line.strip_prefix(b"data".as_slice()) else {
            return Ok(None);
        };
        let Some(value) = value.strip_prefix(b":".as_slice()) else {
            return Ok(None);
        };
        let value = value.strip_prefix(b" ".as_slice()).unwrap_or(value);
        let data = line.slice_ref(value);
        self.event = Some(match self.event.take() {
            None => Event::One(data),
            Some(before) => before.with(&data)?,
        });
        Ok(None)
    }
}

/// A length of four bytes.
#[cfg(feature = "bedrock")]
fn length(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .fold(0, |sum, byte| (sum << 8) | usize::from(*byte))
}

/// A line without its line end.
fn trimmed(line: Bytes) -> Bytes {
    let text = line.strip_suffix(b"\n".as_slice()).unwrap_or(&line);
    let text = text.strip_suffix(b"\r".as_slice()).unwrap_or(text);
    line.slice_ref(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(framing: Framing, pieces: &[&[u8]]) -> Vec<String> {
        let mut frames = Frames::new(framing);
        let mut found = Vec::new();
        for piece in pieces {
            frames.push(piece);
            while let Some(frame) = frames.next().unwrap() {
                found.push(String::from_utf8(frame.to_vec()).unwrap());
            }
        }
        if let Some(frame) = frames.rest().unwrap() {
            found.push(String::from_utf8(frame.to_vec()).unwrap());
        }
        found
    }

    const STREAM: &str = "\u{feff}data: {\"a\":1}\r\n\r\n: comment\nevent: x\ndata:two\ndata: lines é\n\nid: 1\n\n\
                          data: [DONE]";

    #[test]
    fn events_are_their_data() {
        let found = cut(Framing::Events, &[STREAM.as_bytes()]);
        assert_eq!(found, ["{\"a\":1}", "two\nlines é", "[DONE]"]);
    }

    #[test]
    fn lines_may_end_in_any_way() {
        let found = cut(Framing::Lines, &[b"{}\r\n\n  \n{\"a\":1}\n{\"b\"", b":2}"]);
        assert_eq!(found, ["{}", "{\"a\":1}", "{\"b\":2}"]);
    }

    #[test]
    fn a_line_without_end_is_given_up() {
        let mut frames = Frames::new(Framing::Lines);
        let piece = vec![b'x'; 1 << 20];
        let given_up = (0..8).find(|_| {
            frames.push(&piece);
            frames.next() == Err(Uncut::TooLong)
        });
        assert_eq!(given_up, Some(4));
    }

    #[test]
    fn an_event_of_endless_lines_is_given_up() {
        let mut frames = Frames::new(Framing::Events);
        let line = format!("data: {}\n", "x".repeat(1 << 20));
        let given_up = (0..8).find(|_| {
            frames.push(line.as_bytes());
            frames.next() == Err(Uncut::TooLong)
        });
        assert_eq!(given_up, Some(3));
    }

    /// A frame with these lengths in its head, whatever it holds.
    #[cfg(feature = "bedrock")]
    fn frame(whole: u32, headers: u32, rest: &[u8]) -> Vec<u8> {
        let mut frame = [whole.to_be_bytes(), headers.to_be_bytes()].concat();
        frame.extend(crc32fast::hash(&frame).to_be_bytes());
        frame.extend(rest);
        frame
    }

    #[cfg(feature = "bedrock")]
    #[test]
    fn frames_are_cut_by_lengths_that_can_be_believed() {
        let both = [frame(18, 0, b"ab1234"), frame(16, 0, b"1234")].concat();
        for size in [1, 5, 100] {
            let mut frames = Frames::new(Framing::Frames);
            let mut found = Vec::new();
            for piece in both.chunks(size) {
                frames.push(piece);
                while let Some(frame) = frames.next().unwrap() {
                    found.push(frame.len());
                }
            }
            assert_eq!(found, [18, 16], "{size}");
            assert_eq!(frames.rest(), Ok(None));
        }
        let refused = |bytes: &[u8]| {
            let mut frames = Frames::new(Framing::Frames);
            frames.push(bytes);
            frames.next().unwrap_err()
        };
        let at_its_head = frame(1 << 30, 0, b"");
        assert_eq!(refused(&at_its_head), Uncut::TooLong);
        assert_eq!(refused(&frame(15, 0, b"")), Uncut::NoFrame);
        assert_eq!(refused(&frame(20, 5, b"")), Uncut::NoFrame);
        assert_eq!(refused(&frame(20, u32::MAX, b"")), Uncut::NoFrame);
        let mut changed = frame(18, 0, b"ab1234");
        changed[3] ^= 1;
        assert_eq!(refused(&changed), Uncut::NoFrame);
        let mut frames = Frames::new(Framing::Frames);
        frames.push(&both[..30]);
        assert_eq!(frames.next().unwrap().unwrap().len(), 18);
        assert_eq!(frames.next(), Ok(None));
        assert_eq!(frames.rest().unwrap().unwrap().len(), 12, "cut short");
    }

    proptest! {
        #[test]
        fn where_the_network_cuts_does_not_matter(size in 1usize..40) {
            let pieces: Vec<&[u8]> = STREAM.as_bytes().chunks(size).collect();
            prop_assert_eq!(cut(Framing::Events, &pieces), cut(Framing::Events, &[STREAM.as_bytes()]));
        }
    }
}
