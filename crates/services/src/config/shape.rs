//! Fits a document to the schema of an agent's file and collects everything that does not fit, each with its place.
//!
//! serde would stop at the first mistake. What does not fit is left out of the value, so that the rest can still be
//! read and checked.

use domain::nearest::nearest;
use serde_json::{Map, Number, Value};

use super::document::{Entry, Flaw, Kind, Mark, Node};
use super::scalar;

/// What came of fitting a document.
pub(crate) struct Fitted {
    /// What fits.
    pub(crate) value: Value,
    /// What does not.
    pub(crate) flaws: Vec<Flaw>,
    /// The paths of fields that were left out.
    pub(crate) dropped: Vec<String>,
}

/// Fits `node` to `schema`.
pub(crate) fn fit(node: &Node, schema: &Value) -> Fitted {
    let mut fitting = Fitting {
        root: schema,
        flaws: Vec::new(),
        dropped: Vec::new(),
    };
    let value = fitting.fit(node, schema, node.mark, "");
    Fitted {
        value: value.unwrap_or_default(),
        flaws: fitting.flaws,
        dropped: fitting.dropped,
    }
}

struct Fitting<'a> {
    root: &'a Value,
    flaws: Vec<Flaw>,
    dropped: Vec<String>,
}

impl<'a> Fitting<'a> {
    /// The value, or none after noting why not. `key` is where the value's key stands: what is missing has no place
    /// of its own.
    fn fit(&mut self, node: &Node, schema: &'a Value, key: Mark, path: &str) -> Option<Value> {
        let schema = self.resolve(schema);
        let by_key = node.is_null() || matches!(node.kind, Kind::Map(_));
        let mark = if by_key { key } else { node.mark };
        let choices = self.choices(schema);
        let nullable = choices.iter().any(|choice| has_type(choice, "null"));
        if node.is_null() && nullable {
            return Some(Value::Null);
        }
        let choices: Vec<&Value> = choices
            .into_iter()
            .filter(|choice| choice["type"] != "null")
            .collect();
        let words: Vec<&str> = choices.iter().filter_map(|c| c["const"].as_str()).collect();
        if !words.is_empty() && words.len() == choices.len() {
            return self.word(node, mark, path, &words);
        }
        let choice = match choices.as_slice() {
            [only] => *only,
            _ => self.choose(node, &choices, mark, path)?,
        };
        self.fit_one(node, choice, mark, path)
    }

    fn fit_one(&mut self, node: &Node, schema: &'a Value, mark: Mark, path: &str) -> Option<Value> {
        if has_type(schema, "object") {
            return self.map(node, schema, mark, path);
        }
        if has_type(schema, "array") {
            return self.list(node, schema, mark, path);
        }
        if has_type(schema, "string") {
            return self.text(node, schema, mark, path);
        }
        if has_type(schema, "boolean") {
            return self.truth(node, mark, path);
        }
        if has_type(schema, "integer") || has_type(schema, "number") {
            return self.number(node, schema, mark, path);
        }
        Some(node.to_json())
    }

    /// Follows references, and `allOf` around a single one.
    fn resolve(&self, mut schema: &'a Value) -> &'a Value {
        for _ in 0..8 {
            schema = match (
                &schema["$ref"],
                schema["allOf"].as_array().map(Vec::as_slice),
            ) {
                (Value::String(reference), _) => {
                    let pointer = reference.trim_start_matches('#');
                    self.root.pointer(pointer).unwrap_or(&Value::Null)
                }
                (_, Some([only])) => only,
                _ => break,
            };
        }
        schema
    }

    fn choices(&self, schema: &'a Value) -> Vec<&'a Value> {
        let alternatives = schema["anyOf"]
            .as_array()
            .or_else(|| schema["oneOf"].as_array());
        match alternatives {
            Some(alternatives) => alternatives
                .iter()
                .flat_map(|choice| self.choices(self.resolve(choice)))
                .collect(),
            None => vec![schema],
        }
    }

    /// The one of several alternatives that the author probably meant.
    fn choose(
        &mut self,
        node: &Node,
        choices: &[&'a Value],
        mark: Mark,
        path: &str,
    ) -> Option<&'a Value> {
        if let Some(tag) = tag_of(choices) {
            let words: Vec<&str> = choices
                .iter()
                .filter_map(|choice| field(choice, tag)["const"].as_str())
                .collect();
            let Some(entry) = node.get(tag) else {
                let hint = format!("say {tag}: with one of {}", words.join(", "));
                return self.wrong(mark, path, format!("the field {tag} is missing"), hint);
            };
            let inner = join(path, tag);
            let word = self.word(&entry.value, entry.value.mark, &inner, &words);
            let Some(Value::String(word)) = word else {
                self.dropped.push(path.to_owned());
                return None;
            };
            return choices
                .iter()
                .find(|choice| field(choice, tag)["const"] == word.as_str())
                .copied();
        }
        let fits = |choice: &&&Value| match &node.kind {
            Kind::Map(_) => has_type(choice, "object"),
            Kind::List(_) => has_type(choice, "array"),
            Kind::Scalar { text, plain } => {
                if has_type(choice, "boolean") {
                    *plain && scalar::truth(text).is_some()
                } else {
                    !has_type(choice, "object") && !has_type(choice, "array")
                }
            }
        };
        let found = choices.iter().find(fits).copied();
        if found.is_none() {
            let kinds: Vec<&str> = choices.iter().map(|choice| type_name(choice)).collect();
            let message = format!("expected {}, found {}", kinds.join(" or "), node.describe());
            return self.wrong(mark, path, message, "");
        }
        found
    }

    fn map(&mut self, node: &Node, schema: &'a Value, mark: Mark, path: &str) -> Option<Value> {
        let Kind::Map(entries) = &node.kind else {
            let message = format!("expected a map of fields, found {}", node.describe());
            let known = schema["properties"].as_object();
            let hint = known.map_or_else(String::new, |known| {
                let names: Vec<&str> = known.keys().take(8).map(String::as_str).collect();
                format!("indent its fields below it: {}", names.join(", "))
            });
            return self.wrong(mark, path, message, hint);
        };
        let mut fields = Map::new();
        for entry in entries {
            let inner = join(path, &entry.key);
            if let Some(field) = schema["properties"].get(entry.key.as_str()) {
                if let Some(value) = self.fit(&entry.value, field, entry.key_mark, &inner) {
                    fields.insert(entry.key.clone(), value);
                }
            } else if schema["additionalProperties"] == false {
                self.unknown_field(entry, schema, &inner);
            } else if let Some(value) = self.fit(
                &entry.value,
                &schema["additionalProperties"],
                entry.key_mark,
                &inner,
            ) {
                fields.insert(entry.key.clone(), value);
            }
        }
        for required in schema["required"].as_array().into_iter().flatten() {
            if let Some(name) = required.as_str().filter(|name| node.get(name).is_none()) {
                self.missing(node, schema, name, mark, path);
            }
        }
        Some(Value::Object(fields))
    }

    fn unknown_field(&mut self, entry: &Entry, schema: &Value, path: &str) {
        let known = schema["properties"].as_object();
        let names = || {
            known
                .into_iter()
                .flat_map(|known| known.keys().map(String::as_str))
        };
        let hint = nearest(&entry.key, names()).map_or_else(
            || {
                format!(
                    "the fields here are {}",
                    names().collect::<Vec<_>>().join(", ")
                )
            },
            |name| format!("did you mean {name}?"),
        );
        self.flaws
            .push(Flaw::new(entry.key_mark, path, "unknown field", hint));
    }

    fn missing(&mut self, node: &Node, schema: &Value, name: &str, mark: Mark, path: &str) {
        let what = self.resolve_in(schema, name);
        let description = what.split('.').next().unwrap_or_default();
        // A key that is nearly right is the better place to point at.
        let Kind::Map(entries) = &node.kind else {
            return;
        };
        let typo = entries
            .iter()
            .filter(|entry| schema["properties"].get(entry.key.as_str()).is_none())
            .find(|entry| nearest(&entry.key, [name]).is_some());
        if typo.is_none() {
            let hint = format!("add {name}: {}", description.to_lowercase());
            self.flaws.push(Flaw::new(
                mark,
                join(path, name),
                "the field is missing",
                hint,
            ));
        }
        self.dropped.push(join(path, name));
    }

    fn resolve_in(&self, schema: &Value, name: &str) -> String {
        field(schema, name)["description"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    fn list(&mut self, node: &Node, schema: &'a Value, mark: Mark, path: &str) -> Option<Value> {
        let Kind::List(items) = &node.kind else {
            let message = format!("expected a list, found {}", node.describe());
            return self.wrong(
                mark,
                path,
                message,
                "write each item on a line with '- ', or [a, b]",
            );
        };
        // All are looked at; one that does not fit takes the list with it, so that no index ever shifts.
        let fitted: Vec<Option<Value>> = items
            .iter()
            .enumerate()
            .map(|(index, item)| {
                self.fit(
                    item,
                    &schema["items"],
                    item.mark,
                    &format!("{path}[{index}]"),
                )
            })
            .collect();
        fitted
            .into_iter()
            .collect::<Option<Vec<_>>>()
            .map(Value::Array)
    }

    fn text(&mut self, node: &Node, schema: &Value, mark: Mark, path: &str) -> Option<Value> {
        if let Some(word) = schema["const"].as_str() {
            return self.word(node, mark, path, &[word]);
        }
        match &node.kind {
            _ if node.is_null() => {
                let hint = "give it a text (in quotes if it is to be empty), or remove the line";
                self.wrong(mark, path, "it has no value", hint)
            }
            Kind::Scalar { text, .. } => Some(Value::String(text.clone())),
            Kind::List(_) | Kind::Map(_) => {
                let message = format!("expected text, found {}", node.describe());
                let hint =
                    "put it in quotes if it is text that begins with '[' or '{', or contains ': '";
                self.wrong(mark, path, message, hint)
            }
        }
    }

    fn word(&mut self, node: &Node, mark: Mark, path: &str, words: &[&str]) -> Option<Value> {
        let text = match &node.kind {
            Kind::Scalar { text, .. } if !node.is_null() => text.as_str(),
            _ => {
                let message = format!("expected one word, found {}", node.describe());
                let hint = format!("it is one of {}", words.join(", "));
                return self.wrong(mark, path, message, hint);
            }
        };
        if words.contains(&text) {
            return Some(Value::String(text.to_owned()));
        }
        let allowed = words.join(", ");
        let hint = nearest(text, words.iter().copied()).map_or_else(
            || format!("it is one of {allowed}"),
            |word| format!("did you mean {word}? It is one of {allowed}"),
        );
        let shown: String = text.chars().take(80).collect();
        self.wrong(mark, path, format!("{shown:?} is not known here"), hint)
    }

    fn truth(&mut self, node: &Node, mark: Mark, path: &str) -> Option<Value> {
        if let Kind::Scalar { text, plain: true } = &node.kind
            && let Some(value) = scalar::truth(text)
        {
            return Some(Value::Bool(value));
        }
        let message = format!("expected true or false, found {}", node.describe());
        let quoted = matches!(&node.kind, Kind::Scalar { text, plain: false } if scalar::truth(text).is_some());
        let hint = if quoted { "remove the quotes" } else { "" };
        self.wrong(mark, path, message, hint)
    }

    fn number(&mut self, node: &Node, schema: &Value, mark: Mark, path: &str) -> Option<Value> {
        let whole = has_type(schema, "integer");
        let expected = if whole { "a whole number" } else { "a number" };
        let number = match &node.kind {
            Kind::Scalar { text, plain: true } => scalar::number(text),
            _ => None,
        };
        let Some(number) = number else {
            let hint = match &node.kind {
                Kind::Scalar { text, .. } if text.contains("${") => {
                    "variables are replaced in texts only; write the number itself"
                }
                Kind::Scalar { text, plain: false } if scalar::number(text).is_some() => {
                    "remove the quotes"
                }
                _ => "",
            };
            let message = format!("expected {expected}, found {}", node.describe());
            return self.wrong(mark, path, message, hint);
        };
        if !whole {
            return Some(Value::Number(number));
        }
        let (low, high) = bounds(schema);
        match whole_number(&number) {
            Some(value) if (low..=high).contains(&value) => {
                Some(i64::try_from(value).map_or_else(|_| Value::from(value as u64), Value::from))
            }
            Some(_) => {
                let hint = format!("it is between {low} and {high}");
                self.wrong(mark, path, format!("{number} is out of range"), hint)
            }
            None => {
                let message = format!("expected {expected}, found {number}");
                self.wrong(mark, path, message, "leave the fraction out")
            }
        }
    }

    fn wrong<T>(
        &mut self,
        mark: Mark,
        path: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Option<T> {
        self.flaws.push(Flaw::new(mark, path, message, hint));
        self.dropped.push(path.to_owned());
        None
    }
}

/// Joins a field's name to the path of what it is in.
pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// The schema of a field; null when there is none.
fn field<'a>(schema: &'a Value, name: &str) -> &'a Value {
    schema["properties"].get(name).unwrap_or(&Value::Null)
}

fn has_type(schema: &Value, name: &str) -> bool {
    match &schema["type"] {
        Value::String(one) => one == name,
        Value::Array(several) => several.iter().any(|one| one == name),
        _ => false,
    }
}

fn type_name(schema: &Value) -> &'static str {
    [
        ("object", "a map"),
        ("array", "a list"),
        ("boolean", "true or false"),
        ("string", "text"),
        ("integer", "a whole number"),
        ("number", "a number"),
    ]
    .into_iter()
    .find(|(name, _)| has_type(schema, name))
    .map_or("a value", |(_, words)| words)
}

/// The field by whose value alternatives that are all objects are told apart.
fn tag_of<'a>(choices: &[&'a Value]) -> Option<&'a str> {
    let first = choices.first()?["properties"].as_object()?;
    first
        .iter()
        .find(|(name, own)| {
            own.get("const").is_some()
                && choices
                    .iter()
                    .all(|choice| field(choice, name).get("const").is_some())
        })
        .map(|(name, _)| name.as_str())
}

fn bounds(schema: &Value) -> (i128, i128) {
    match schema["format"].as_str() {
        Some("uint16") => (0, u16::MAX.into()),
        Some("uint32") => (0, u32::MAX.into()),
        Some("uint64" | "uint") => (0, u64::MAX.into()),
        Some("int32") => (i32::MIN.into(), i32::MAX.into()),
        _ => (i64::MIN.into(), i64::MAX.into()),
    }
}

fn whole_number(number: &Number) -> Option<i128> {
    if let Some(value) = number.as_u64() {
        return Some(value.into());
    }
    if let Some(value) = number.as_i64() {
        return Some(value.into());
    }
    // 1e6 and 60.0 are whole numbers to a person.
    let value = number.as_f64()?;
    (value.fract() == 0.0 && value.abs() < 9e15).then_some(value as i128)
}
