//! AWS's binary frames: the length of all and of the headers, a checksum of both, headers, content, a checksum of all.

use bytes::Bytes;
use serde_json::{Value, json};

/// The type of a header that is text.
const TEXT: u8 = 7;

/// An event of a stream.
pub(super) fn event(name: &str, payload: &Value) -> Bytes {
    let headers = [
        (":event-type", name),
        (":content-type", "application/json"),
        (":message-type", "event"),
    ];
    frame(&headers, payload.to_string().as_bytes())
}

/// An error in the middle of a stream. Its name is that of the refusal, beginning with a small letter.
pub(super) fn exception(name: &str, message: &str) -> Bytes {
    let (first, rest) = name.split_at(1);
    let name = first.to_lowercase() + rest;
    let headers = [
        (":exception-type", name.as_str()),
        (":content-type", "application/json"),
        (":message-type", "exception"),
    ];
    let payload = json!({ "message": message });
    frame(&headers, payload.to_string().as_bytes())
}

/// How a frame of a gigabyte begins.
pub(super) fn opening() -> Bytes {
    prelude(1 << 30, 0).into()
}

fn frame(headers: &[(&str, &str)], payload: &[u8]) -> Bytes {
    let mut written = Vec::new();
    for (name, value) in headers {
        written.push(u8::try_from(name.len()).expect("a short name"));
        written.extend(name.as_bytes());
        written.push(TEXT);
        let length = u16::try_from(value.len()).expect("a short value");
        written.extend(length.to_be_bytes());
        written.extend(value.as_bytes());
    }
    let length = |bytes: usize| u32::try_from(bytes).expect("a frame of a test");
    let whole = 12 + written.len() + payload.len() + 4;
    let mut frame = prelude(length(whole), length(written.len()));
    frame.extend(written);
    frame.extend(payload);
    frame.extend(crc32fast::hash(&frame).to_be_bytes());
    frame.into()
}

fn prelude(whole: u32, headers: u32) -> Vec<u8> {
    let mut prelude = [whole.to_be_bytes(), headers.to_be_bytes()].concat();
    prelude.extend(crc32fast::hash(&prelude).to_be_bytes());
    prelude
}
