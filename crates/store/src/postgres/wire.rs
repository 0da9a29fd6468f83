//! Values of a copy in PostgreSQL's own form: what the catalogue says of a column decides how a value is written, and a
//! value that does not fit is refused.

use std::error::Error as StdError;

use bytes::BytesMut;
use chrono::NaiveDate;
use domain::Time;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use uuid::Uuid;

use crate::copying::Cell;

type Boxed = Box<dyn StdError + Sync + Send>;

/// How days are written.
const DAY: &str = "%Y-%m-%d";

fn is_known(ty: &Type) -> bool {
    [
        Type::BOOL,
        Type::BYTEA,
        Type::DATE,
        Type::FLOAT8,
        Type::INT2,
        Type::INT4,
        Type::INT8,
        Type::TEXT,
        Type::TIMESTAMPTZ,
        Type::UUID,
        Type::VARCHAR,
    ]
    .contains(ty)
}

impl<'a> FromSql<'a> for Cell {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Boxed> {
        Ok(match *ty {
            Type::BOOL => Self::Int(bool::from_sql(ty, raw)?.into()),
            Type::BYTEA => Self::Bytes(raw.to_vec()),
            Type::DATE => Self::Text(NaiveDate::from_sql(ty, raw)?.format(DAY).to_string()),
            Type::FLOAT8 => Self::Real(f64::from_sql(ty, raw)?),
            Type::INT2 => Self::Int(i16::from_sql(ty, raw)?.into()),
            Type::INT4 => Self::Int(i32::from_sql(ty, raw)?.into()),
            Type::INT8 => Self::Int(i64::from_sql(ty, raw)?),
            Type::TIMESTAMPTZ => Self::Int(Time::from_sql(ty, raw)?.timestamp_micros()),
            Type::UUID => Self::Bytes(Uuid::from_sql(ty, raw)?.into_bytes().to_vec()),
            _ => Self::Text(String::from_sql(ty, raw)?),
        })
    }

    fn from_sql_null(_: &Type) -> Result<Self, Boxed> {
        Ok(Self::Null)
    }

    fn accepts(ty: &Type) -> bool {
        is_known(ty)
    }
}

impl ToSql for Cell {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Boxed> {
        match (self, ty.clone()) {
            (Self::Null, _) => Ok(IsNull::Yes),
            (Self::Int(n), Type::BOOL) => (*n != 0).to_sql(ty, out),
            (Self::Int(n), Type::INT2) => i16::try_from(*n)?.to_sql(ty, out),
            (Self::Int(n), Type::INT4) => i32::try_from(*n)?.to_sql(ty, out),
            (Self::Int(n), Type::INT8) => n.to_sql(ty, out),
            (Self::Int(n), Type::TIMESTAMPTZ) => Time::from_timestamp_micros(*n)
                .ok_or("a time is out of range")?
                .to_sql(ty, out),
            (Self::Real(n), Type::FLOAT8) => n.to_sql(ty, out),
            (Self::Text(text), Type::DATE) => NaiveDate::parse_from_str(text, DAY)?.to_sql(ty, out),
            (Self::Text(text), Type::TEXT | Type::VARCHAR) => text.as_str().to_sql(ty, out),
            (Self::Bytes(bytes), Type::BYTEA) => bytes.as_slice().to_sql(ty, out),
            (Self::Bytes(bytes), Type::UUID) => Uuid::from_slice(bytes)?.to_sql(ty, out),
            (other, _) => Err(format!("a column of type {ty} can't hold {}", kind(other)).into()),
        }
    }

    fn accepts(ty: &Type) -> bool {
        is_known(ty)
    }

    to_sql_checked!();
}

const fn kind(cell: &Cell) -> &'static str {
    match cell {
        Cell::Null => "nothing",
        Cell::Int(_) => "a whole number",
        Cell::Real(_) => "a number with a fraction",
        Cell::Text(_) => "a text",
        Cell::Bytes(_) => "bytes",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_back_as_it_was() {
        let text = |text: &str| Cell::Text(text.to_owned());
        for (cell, ty) in [
            (Cell::Int(1), Type::BOOL),
            (Cell::Int(-3), Type::INT2),
            (Cell::Int(70_000), Type::INT4),
            (Cell::Int(i64::MIN), Type::INT8),
            (Cell::Int(1_800_000_000_123_456), Type::TIMESTAMPTZ),
            (Cell::Real(0.125), Type::FLOAT8),
            (text("2026-02-28"), Type::DATE),
            (text("grüße\n"), Type::TEXT),
            (Cell::Bytes(vec![0, 255, 7]), Type::BYTEA),
            (Cell::Bytes((0..16).collect()), Type::UUID),
        ] {
            let mut out = BytesMut::new();
            assert!(matches!(cell.to_sql(&ty, &mut out), Ok(IsNull::No)), "{ty}");
            assert_eq!(Cell::from_sql(&ty, &out).unwrap(), cell, "{ty}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (cell, ty) in [
            (Cell::Int(40_000), Type::INT2),
            (Cell::Int(i64::MAX), Type::TIMESTAMPTZ),
            (Cell::Text("2026-02-30".to_owned()), Type::DATE),
            (Cell::Bytes(vec![1; 15]), Type::UUID),
            (Cell::Bytes(vec![1]), Type::TEXT),
            (Cell::Real(0.5), Type::INT8),
        ] {
            assert!(cell.to_sql(&ty, &mut BytesMut::new()).is_err(), "{ty}");
        }
    }
}
