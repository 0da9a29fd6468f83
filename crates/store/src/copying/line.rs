//! A row as a line: a JSON list of its values. Bytes are `{"b64":"…"}`; nothing else is nested.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::Result;
use crate::error::corrupt;

/// The longest line, in bytes. A step or a state may be long; nothing that this program writes comes near.
const LONGEST: usize = 256 << 20;

/// A value of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// None.
    Null,
    /// A number, a time in microseconds since 1970, or 0 and 1 for no and yes.
    Int(i64),
    /// A number with a fraction.
    Real(f64),
    /// Text, JSON among it; a day as `YYYY-MM-DD`.
    Text(String),
    /// Bytes; a UUID's 16.
    Bytes(Vec<u8>),
}

impl Cell {
    /// The bytes of an id.
    pub(crate) fn id(&self) -> Option<[u8; 16]> {
        match self {
            Self::Bytes(bytes) => bytes.as_slice().try_into().ok(),
            Self::Null | Self::Int(_) | Self::Real(_) | Self::Text(_) => None,
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Null | Self::Int(_) | Self::Real(_) | Self::Bytes(_) => None,
        }
    }

    pub(crate) const fn int(&self) -> Option<i64> {
        match self {
            Self::Int(n) => Some(*n),
            Self::Null | Self::Real(_) | Self::Text(_) | Self::Bytes(_) => None,
        }
    }
}

/// Lines that are gathered for a piece.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    pub(crate) bytes: Vec<u8>,
    pub(crate) count: u64,
}

impl Lines {
    /// Adds a row; tells whether there is enough for a piece.
    pub(crate) fn add(&mut self, row: &[Cell]) -> Result<bool> {
        write_line(&mut self.bytes, row)?;
        self.count += 1;
        Ok(self.bytes.len() >= super::PIECE)
    }
}

/// Writes a row as a line.
pub(crate) fn write_line(out: &mut Vec<u8>, row: &[Cell]) -> Result<()> {
    out.push(b'[');
    for (n, cell) in row.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        write_cell(out, cell)?;
    }
    out.extend_from_slice(b"]\n");
    Ok(())
}

fn write_cell(out: &mut Vec<u8>, cell: &Cell) -> Result<()> {
    let refused = |error: serde_json::Error| corrupt("a value", error);
    match cell {
        Cell::Null => out.extend_from_slice(b"null"),
        Cell::Int(n) => serde_json::to_writer(&mut *out, n).map_err(refused)?,
        Cell::Real(n) if n.is_finite() => serde_json::to_writer(&mut *out, n).map_err(refused)?,
        Cell::Real(_) => return Err(corrupt("a value", "it is no number")),
        // The neutral form has no zero character, since one of the databases has none. JSON is safe: it is escaped there.
        Cell::Text(text) if text.contains('\0') => {
            serde_json::to_writer(&mut *out, &text.replace('\0', "\u{fffd}")).map_err(refused)?;
        }
        Cell::Text(text) => serde_json::to_writer(&mut *out, text).map_err(refused)?,
        Cell::Bytes(bytes) => {
            out.extend_from_slice(b"{\"b64\":\"");
            out.extend_from_slice(BASE64.encode(bytes).as_bytes());
            out.extend_from_slice(b"\"}");
        }
    }
    Ok(())
}

/// Reads a line of so many values.
///
/// # Errors
/// It is no such line.
pub fn read_line(line: &[u8], columns: usize) -> Result<Vec<Cell>> {
    let what = "a row of the copy";
    if line.len() > LONGEST {
        return Err(corrupt(what, "it is too long"));
    }
    let row: Vec<Cell> = serde_json::from_slice(line).map_err(|error| corrupt(what, error))?;
    if row.len() != columns {
        let message = format!(
            "it has {} values, and there are {columns} columns",
            row.len()
        );
        return Err(corrupt(what, message));
    }
    Ok(row)
}

/// Reads lines of so many values each, and hands over each row; answers how many there were.
pub(crate) fn each_line<E: From<crate::Error>>(
    lines: &[u8],
    columns: usize,
    mut take: impl FnMut(Vec<Cell>) -> std::result::Result<(), E>,
) -> std::result::Result<u64, E> {
    let Some((b'\n', lines)) = lines.split_last() else {
        return match lines {
            [] => Ok(0),
            _ => Err(corrupt("a piece of the copy", "its last line has no end").into()),
        };
    };
    let mut count = 0;
    for line in lines.split(|byte| *byte == b'\n') {
        take(read_line(line, columns)?)?;
        count += 1;
    }
    Ok(count)
}

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(CellVisitor)
    }
}

struct CellVisitor;

impl<'de> Visitor<'de> for CellVisitor {
    type Value = Cell;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("null, a number, a text or {\"b64\": …}")
    }

    fn visit_unit<E>(self) -> std::result::Result<Cell, E> {
        Ok(Cell::Null)
    }

    fn visit_i64<E>(self, n: i64) -> std::result::Result<Cell, E> {
        Ok(Cell::Int(n))
    }

    fn visit_u64<E: serde::de::Error>(self, n: u64) -> std::result::Result<Cell, E> {
        i64::try_from(n).map(Cell::Int).map_err(E::custom)
    }

    fn visit_f64<E>(self, n: f64) -> std::result::Result<Cell, E> {
        Ok(Cell::Real(n))
    }

    fn visit_str<E>(self, text: &str) -> std::result::Result<Cell, E> {
        Ok(Cell::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> std::result::Result<Cell, E> {
        Ok(Cell::Text(text))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Cell, A::Error> {
        let bytes = match map.next_entry::<String, String>()? {
            Some((name, value)) if name == "b64" => BASE64.decode(value).ok(),
            _ => None,
        };
        match (bytes, map.next_entry::<String, String>()?) {
            (Some(bytes), None) => Ok(Cell::Bytes(bytes)),
            _ => Err(A::Error::custom("it is not {\"b64\": …}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cell() -> impl Strategy<Value = Cell> {
        prop_oneof![
            Just(Cell::Null),
            any::<i64>().prop_map(Cell::Int),
            (-1.0e9..1.0e9f64).prop_map(|n| Cell::Real(n.round() / 8.0)),
            "\\PC{0,20}|[\n\r\t\"\\\\\u{1}-\u{1f}]{0,5}".prop_map(Cell::Text),
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(Cell::Bytes),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(rows in proptest::collection::vec(proptest::collection::vec(cell(), 3), 0..8)) {
            let mut lines = Lines::default();
            for row in &rows {
                lines.add(row).unwrap();
            }
            let mut read = Vec::new();
            let count = each_line(&lines.bytes, 3, |row| -> Result<()> { read.push(row); Ok(()) }).unwrap();
            prop_assert_eq!(count, lines.count);
            prop_assert_eq!(read, rows);
        }
    }

    #[test]
    fn what_is_no_row_is_refused() {
        for bad in [
            "",
            "{}",
            "[1]",
            "[1,2,3]",
            "[true,1]",
            "[[1],2]",
            "[{\"b64\":\"!\"},1]",
            "[{\"b64\":\"\",\"more\":\"\"},1]",
            "[18446744073709551615,1]",
            "[1,2] [3,4]",
        ] {
            assert!(read_line(bad.as_bytes(), 2).is_err(), "{bad}");
        }
        let take = |_| -> Result<()> { Ok(()) };
        assert!(each_line(b"[1,2]\n[1,2]", 2, take).is_err());
        assert_eq!(each_line(b"", 2, take).unwrap(), 0);
    }

    #[test]
    fn zero_characters_become_what_stands_for_them() {
        let mut out = Vec::new();
        write_line(&mut out, &[Cell::Text("a\0b".to_owned())]).unwrap();
        let row = read_line(out.trim_ascii_end(), 1).unwrap();
        assert_eq!(row, [Cell::Text("a\u{fffd}b".to_owned())]);
    }
}
