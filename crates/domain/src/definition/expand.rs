//! `${NAME}` and `${NAME:-default}` in a definition's texts.
//!
//! Definitions are kept and shown as they were written; the expanded form exists only in memory, where it is used.
//! The prompts are not expanded: what they hold goes to a model, and a secret has no business there.

use serde_json::Value;

use super::Definition;

/// The fields whose text is taken as it is.
const VERBATIM: [&str; 4] = [
    "system_prompt",
    "instructions",
    "description",
    "output_schema",
];

/// A variable that is not set and has no default.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: the variable {name} is not set; set it, or write ${{{name}:-default}}")]
pub struct MissingVariable {
    /// Which field.
    pub path: String,
    /// Which variable.
    pub name: String,
}

impl Definition {
    /// The definition with its references replaced; `lookup` answers a variable's value.
    ///
    /// # Errors
    /// The first variable that is not set and has no default, or a value that makes the definition unreadable.
    pub fn expanded(
        &self,
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, MissingVariable> {
        let Ok(Value::Object(mut fields)) = serde_json::to_value(self) else {
            return Ok(self.clone());
        };
        for (name, value) in &mut fields {
            if !VERBATIM.contains(&name.as_str()) {
                expand(value, name, lookup)?;
            }
        }
        serde_json::from_value(Value::Object(fields)).map_err(|error| MissingVariable {
            path: format!("after expansion: {error}"),
            name: String::new(),
        })
    }
}

fn expand(
    value: &mut Value,
    path: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<(), MissingVariable> {
    match value {
        Value::String(text) if text.contains("${") => {
            *text = expand_text(text, path, lookup)?;
            Ok(())
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                expand(item, &format!("{path}[{index}]"), lookup)?;
            }
            Ok(())
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                expand(field, &format!("{path}.{name}"), lookup)?;
            }
            Ok(())
        }
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

/// Replaces references in one text. What is put in is not looked at again, so a value cannot smuggle a reference.
///
/// # Errors
/// A variable that is not set and has no default.
pub fn expand_text(
    text: &str,
    path: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<String, MissingVariable> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, reference)) = rest.split_once("${") {
        out.push_str(before);
        let Some((inside, after)) = reference.split_once('}') else {
            out.push_str("${");
            rest = reference;
            continue;
        };
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        match lookup(name)
            .filter(|value| !value.is_empty())
            .or_else(|| default.map(str::to_owned))
        {
            Some(value) => out.push_str(&value),
            None => {
                return Err(MissingVariable {
                    path: path.to_owned(),
                    name: name.to_owned(),
                });
            }
        }
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "KEY" => Some("s3cret".to_owned()),
            "TRICK" => Some("${KEY}".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn references_are_replaced_once() {
        let expand = |text| expand_text(text, "x", &lookup);
        assert_eq!(expand("a ${KEY} b").unwrap(), "a s3cret b");
        assert_eq!(expand("${NONE:-d}").unwrap(), "d");
        assert_eq!(expand("${TRICK}").unwrap(), "${KEY}");
        assert_eq!(expand("${unclosed").unwrap(), "${unclosed");
        assert_eq!(expand("${NONE}").unwrap_err().name, "NONE");
    }
}
