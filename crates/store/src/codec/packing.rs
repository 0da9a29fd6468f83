//! Long JSON, packed: what lies in a row in place of a text that is longer than the operator wants there.
//!
//! A packed text is `~deflate:<length>:<base64>`, where the length is that of the JSON in bytes. No JSON begins with
//! `~`, so packed and plain rows lie side by side, and rows from before the threshold was changed stay readable. Text
//! rather than bytes: it fits the columns of both databases and passes through a dump as it is. Of the third that
//! base64 costs, JSON wins back a multiple.

use std::borrow::Cow;
use std::io::{Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use base64::read::DecoderReader;
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;

/// How a packed text begins.
const MARK: &str = "~deflate:";
/// The longest text that is packed, and so the longest that a packed one may claim to be, in bytes. Whoever writes a row
/// by hand can make a process hold this much and no more.
const LONGEST: usize = 64 << 20;
/// Shorter texts would not become shorter.
const SHORTEST: usize = 128;

/// From which length on texts are packed, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packing {
    above: usize,
}

impl Packing {
    /// Packs what is longer than `above` bytes.
    pub(crate) const fn above(above: usize) -> Self {
        Self { above }
    }

    /// The text as it is stored.
    pub(super) fn pack(self, json: String) -> String {
        let is_long = json.len() > self.above.max(SHORTEST);
        if !is_long || json.len() > LONGEST {
            return json;
        }
        match packed(&json) {
            Some(packed) if packed.len() < json.len() => packed,
            // What does not become shorter stays readable.
            _ => json,
        }
    }
}

fn packed(json: &str) -> Option<String> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    // Writing to memory does not fail; should it all the same, the text is stored as it is.
    encoder.write_all(json.as_bytes()).ok()?;
    let bytes = encoder.finish().ok()?;
    let mut text = format!("{MARK}{}:", json.len());
    BASE64.encode_string(bytes, &mut text);
    Some(text)
}

/// The JSON that a stored text stands for, or what is wrong with it.
pub(super) fn unpack(stored: &str) -> Result<Cow<'_, str>, String> {
    let Some(packed) = stored.strip_prefix(MARK) else {
        return Ok(Cow::Borrowed(stored));
    };
    let (length, body) = packed
        .split_once(':')
        .ok_or("it is packed without a length")?;
    let length: usize = length
        .parse()
        .map_err(|_| "it is packed without a length")?;
    if length > LONGEST {
        return Err(format!(
            "it is packed and claims {length} bytes; {LONGEST} is the most"
        ));
    }
    let bytes = DecoderReader::new(body.as_bytes(), &BASE64);
    // One more than it may have, to see whether it has.
    let mut inflated = DeflateDecoder::new(bytes).take(length as u64 + 1);
    let mut json = Vec::new();
    inflated
        .read_to_end(&mut json)
        .map_err(|error| format!("it can't be unpacked: {error}"))?;
    if json.len() != length {
        return Err(format!(
            "it does not unpack to the {length} bytes that it claims"
        ));
    }
    let json = String::from_utf8(json).map_err(|_| "what was packed is no text")?;
    Ok(Cow::Owned(json))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: Packing = Packing::above(0);

    fn bomb(length: usize, claims: usize) -> String {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
        let zeros = vec![b'0'; 1 << 20];
        for _ in 0..length >> 20 {
            encoder.write_all(&zeros).unwrap();
        }
        format!(
            "{MARK}{claims}:{}",
            BASE64.encode(encoder.finish().unwrap())
        )
    }

    #[test]
    fn only_what_is_long_is_packed() {
        let long = format!("\"{}\"", "word ".repeat(1000));
        assert_eq!(Packing::above(long.len()).pack(long.clone()), long);
        let packed = Packing::above(long.len() - 1).pack(long.clone());
        assert!(packed.starts_with(MARK) && packed.len() < long.len() / 10);
        assert_eq!(unpack(&packed).unwrap(), long);
        assert_eq!(ALL.pack("{}".to_owned()), "{}");
    }

    #[test]
    fn what_would_not_become_shorter_stays_as_it_is() {
        let noise: String = (0..2000u64)
            .map(|n| char::from(33 + (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 57) as u8 % 90))
            .collect();
        let stored = ALL.pack(noise.clone());
        assert!(stored.len() <= noise.len());
        assert_eq!(unpack(&stored).unwrap(), noise);
    }

    #[test]
    fn a_bomb_is_told_before_it_goes_off() {
        for (bomb, wanted) in [
            (bomb(8 << 20, 1000), "1000 bytes that it claims"),
            (bomb(1 << 20, 512 << 20), "67108864 is the most"),
        ] {
            assert!(bomb.len() < 1 << 20);
            let error = unpack(&bomb).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn nonsense_is_told() {
        for (stored, wanted) in [
            ("~deflate:", "without a length"),
            ("~deflate:-1:AA", "without a length"),
            ("~deflate:10:&&&&", "can't be unpacked"),
            ("~deflate:10:AAAAAAAA", "can't be unpacked"),
            ("~deflate:10:", "can't be unpacked"),
            (&bomb(1 << 20, (1 << 20) + 1), "does not unpack"),
        ] {
            let error = unpack(stored).unwrap_err();
            assert!(error.contains(wanted), "{stored}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_packed_is_what_is_read(text in "\\PC{0,400}", times in 1usize..40) {
            let json = serde_json::to_string(&text.repeat(times)).unwrap();
            let stored = ALL.pack(json.clone());
            prop_assert_eq!(unpack(&stored).unwrap(), json);
        }
    }
}
