//! `{name}` in texts: finding placeholders and putting arguments in their place.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// A piece of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece<'a> {
    Literal(&'a str),
    Placeholder(&'a str),
}

/// The arguments of a call, and which of them have found a place.
#[derive(Debug)]
pub(super) struct Arguments<'a> {
    values: &'a Map<String, Value>,
    used: BTreeSet<String>,
}

impl<'a> Arguments<'a> {
    pub(super) const fn new(values: &'a Map<String, Value>) -> Self {
        Self {
            values,
            used: BTreeSet::new(),
        }
    }

    /// An argument as text; `None` when it is absent or null.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        self.value(name).map(as_text)
    }

    /// The arguments that found no place.
    pub(super) fn rest(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.values
            .iter()
            .filter(|(name, value)| !self.used.contains(*name) && !value.is_null())
    }

    fn value(&mut self, name: &str) -> Option<&'a Value> {
        self.used.insert(name.to_owned());
        self.values.get(name).filter(|value| !value.is_null())
    }
}

/// A value as text: a string as it is, everything else as JSON.
pub(super) fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The names of the placeholders in a text.
pub(super) fn placeholders(text: &str) -> impl Iterator<Item = &str> {
    pieces(text).into_iter().filter_map(|piece| match piece {
        Piece::Placeholder(name) => Some(name),
        Piece::Literal(_) => None,
    })
}

/// All texts inside a JSON value.
pub(super) fn texts<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => found.push(text),
        Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
        Value::Object(fields) => fields.values().for_each(|field| texts(field, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Puts arguments into a text, each as `encode` writes it; `None` when one is absent.
pub(super) fn fill(
    text: &str,
    arguments: &mut Arguments<'_>,
    encode: fn(&str) -> String,
) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    for piece in pieces(text) {
        match piece {
            Piece::Literal(literal) => out.push_str(literal),
            Piece::Placeholder(name) => out.push_str(&encode(&arguments.text(name)?)),
        }
    }
    Some(out)
}

/// Puts arguments into all texts of a JSON value. A text that is just a placeholder becomes the argument as it is;
/// a field or item whose argument is absent is left out.
pub(super) fn fill_json(value: &Value, arguments: &mut Arguments<'_>) -> Option<Value> {
    match value {
        Value::String(text) => match pieces(text).as_slice() {
            [Piece::Placeholder(name)] => arguments.value(name).cloned(),
            _ => fill(text, arguments, str::to_owned).map(Value::String),
        },
        Value::Array(items) => Some(
            items
                .iter()
                .filter_map(|item| fill_json(item, arguments))
                .collect(),
        ),
        Value::Object(fields) => Some(Value::Object(
            fields
                .iter()
                .filter_map(|(name, field)| Some((name.clone(), fill_json(field, arguments)?)))
                .collect(),
        )),
        other => Some(other.clone()),
    }
}

/// Splits a text; braces that hold no name are literal.
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let (mut literal_from, mut at) = (0, 0);
    let slice = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
    while let Some(open) = text.get(at..).and_then(|rest| rest.find('{')) {
        let open = at + open;
        let close = text.get(open..).and_then(|rest| rest.find('}'));
        let Some(close) = close.map(|close| open + close) else {
            break;
        };
        let name = slice(open + 1, close);
        if is_name(name) {
            if literal_from < open {
                pieces.push(Piece::Literal(slice(literal_from, open)));
            }
            pieces.push(Piece::Placeholder(name));
            at = close + 1;
            literal_from = at;
        } else {
            at = open + 1;
        }
    }
    if literal_from < text.len() {
        pieces.push(Piece::Literal(slice(literal_from, text.len())));
    }
    pieces
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn braces_without_a_name_are_literal() {
        let names = |text| placeholders(text).collect::<Vec<_>>();
        assert_eq!(names("a{b}c{d_1}"), ["b", "d_1"]);
        assert_eq!(names("{} {1} {{x}} {a b} {open"), ["x"]);
    }

    #[test]
    fn json_keeps_types_and_drops_what_is_absent() {
        let values = json!({"n": 3, "list": [1, 2], "name": "Ann"});
        let mut arguments = Arguments::new(values.as_object().unwrap());
        let body = json!({"n": "{n}", "list": "{list}", "hi": "Hi {name}!", "gone": "{x}", "all": ["{x}", "{n}"]});
        assert_eq!(
            fill_json(&body, &mut arguments),
            Some(json!({"n": 3, "list": [1, 2], "hi": "Hi Ann!", "all": [3]}))
        );
        assert_eq!(arguments.rest().count(), 0);
    }

    #[test]
    fn what_is_put_in_is_not_looked_at_again() {
        let values = json!({"a": "{b}", "b": "secret"});
        let mut arguments = Arguments::new(values.as_object().unwrap());
        let filled = fill("<{a}>", &mut arguments, str::to_owned);
        assert_eq!(filled.as_deref(), Some("<{b}>"));
    }
}
