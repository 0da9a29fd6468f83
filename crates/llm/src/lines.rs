//! Cuts a body into lines or server-sent events as its bytes come, each byte looked at once, each event bounded.

use bytes::{Bytes, BytesMut};

/// The longest line, in bytes.
const LONGEST_LINE: usize = 4 << 20;
/// The largest event of several lines, in bytes.
const LARGEST_EVENT: usize = 4 << 20;

/// How a body is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Server-sent events; what counts is their data.
    Events,
    /// One JSON text on each line.
    Lines,
}

/// A line or an event that is longer than any honest one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

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
    fn with(self, line: &[u8]) -> Result<Self, TooLong> {
        let mut lines = match self {
            Self::One(first) => BytesMut::from(first.as_ref()),
            Self::Several(lines) => lines,
        };
        if lines.len() + line.len() >= LARGEST_EVENT {
            return Err(TooLong);
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
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, TooLong> {
        while let Some(line) = self.line()? {
            match self.framing {
                Framing::Lines if line.iter().all(u8::is_ascii_whitespace) => {}
                Framing::Lines => return Ok(Some(line)),
                Framing::Events => {
                    if let Some(event) = self.event_line(&line)? {
                        return Ok(Some(event));
                    }
                }
            }
        }
        Ok(None)
    }

    /// What is left when the body has ended: a last line without a line end, or an event without its blank line.
    pub(crate) fn rest(&mut self) -> Result<Option<Bytes>, TooLong> {
        let line = trimmed(self.buffer.split().freeze());
        self.scanned = 0;
        match self.framing {
            Framing::Lines => Ok(Some(line).filter(|line| !line.is_empty())),
            Framing::Events => {
                self.event_line(&line)?;
                Ok(self.event.take().map(Event::data))
            }
        }
    }

    fn line(&mut self) -> Result<Option<Bytes>, TooLong> {
        let unseen = self.buffer.get(self.scanned..).unwrap_or_default();
        let Some(found) = unseen.iter().position(|byte| *byte == b'\n') else {
            self.scanned = self.buffer.len();
            return if self.scanned > LONGEST_LINE {
                Err(TooLong)
            } else {
                Ok(None)
            };
        };
        let end = self.scanned + found;
        if end > LONGEST_LINE {
            return Err(TooLong);
        }
        let line = self.buffer.split_to(end + 1).freeze();
        self.scanned = 0;
        Ok(Some(trimmed(line)))
    }

    /// Takes in a line of an event. A blank line ends the event; one without data is none.
    fn event_line(&mut self, line: &Bytes) -> Result<Option<Bytes>, TooLong> {
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
            frames.next() == Err(TooLong)
        });
        assert_eq!(given_up, Some(4));
    }

    #[test]
    fn an_event_of_endless_lines_is_given_up() {
        let mut frames = Frames::new(Framing::Events);
        let line = format!("data: {}\n", "x".repeat(1 << 20));
        let given_up = (0..8).find(|_| {
            frames.push(line.as_bytes());
            frames.next() == Err(TooLong)
        });
        assert_eq!(given_up, Some(3));
    }

    proptest! {
        #[test]
        fn where_the_network_cuts_does_not_matter(size in 1usize..40) {
            let pieces: Vec<&[u8]> = STREAM.as_bytes().chunks(size).collect();
            prop_assert_eq!(cut(Framing::Events, &pieces), cut(Framing::Events, &[STREAM.as_bytes()]));
        }
    }
}
