//! From the text of a file to a definition, or to everything that is wrong with it.

use std::cell::RefCell;
use std::collections::BTreeSet;

use domain::definition::{Severity, ToolKind};
use domain::{AgentName, Definition};
use serde_json::Value;

use super::diagnostic::Diagnostic;
use super::document::{self, Flaw, Kind, Mark, Node};
use super::schema::schema;
use super::shape::{self, join};

/// Answers the value of an environment variable.
pub type Lookup = dyn Fn(&str) -> Option<String> + Send + Sync;

/// A definition that can be worked with.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// As it is written: `${NAME}` is not expanded.
    pub definition: Definition,
    /// What its author should know nevertheless.
    pub warnings: Vec<Diagnostic>,
    /// The line of its `name`.
    pub name_line: usize,
}

/// Reads an agent's file, YAML or JSON. `lookup` answers the variables that it refers to; they are looked up to see
/// that they are there, never put into the answer.
///
/// # Errors
/// Everything that is wrong with it, in the order of the file, as far as the first mistakes let one see.
pub fn parse(text: &str, file: &str, lookup: &Lookup) -> Result<Parsed, Vec<Diagnostic>> {
    let (node, flaws) = document::read(text);
    let mut findings = Findings {
        file,
        text,
        found: Vec::new(),
    };
    findings.add(flaws, Severity::Error);
    let Some(node) = node else {
        return Err(findings.found);
    };
    let definition = read(&node, &mut findings);
    if let Some((definition, dropped)) = &definition {
        check(definition, &node, dropped, lookup, &mut findings);
    }
    let mut found = findings.found;
    found.sort_by_key(|diagnostic| (!diagnostic.is_error(), diagnostic.line, diagnostic.column));
    match definition {
        Some((definition, _)) if !found.iter().any(Diagnostic::is_error) => Ok(Parsed {
            definition,
            warnings: found,
            name_line: node.locate("name").line,
        }),
        _ => Err(found),
    }
}

/// Reads bytes as UTF-8.
///
/// # Errors
/// Where the first byte is that is not UTF-8.
pub fn decode<'a>(bytes: &'a [u8], file: &str) -> Result<&'a str, Box<Diagnostic>> {
    std::str::from_utf8(bytes).map_err(|error| {
        let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let good = std::str::from_utf8(good).unwrap_or_default();
        let last = good.rsplit('\n').next().unwrap_or_default();
        let mark = Mark {
            line: good.matches('\n').count() + 1,
            column: last.chars().count() + 1,
        };
        let message = "a byte here is not UTF-8";
        let flaw = Flaw::new(mark, "", message, "save the file with the encoding UTF-8");
        Box::new(Diagnostic::new(file, "", flaw, Severity::Error))
    })
}

/// The agent's name in a file that may be broken, to tell whose last good version is kept.
pub(crate) fn name_in(text: &str) -> Option<AgentName> {
    let from_tree = document::read(text)
        .0
        .and_then(|node| match &node.get("name")?.value.kind {
            Kind::Scalar { text, .. } => text.parse().ok(),
            Kind::List(_) | Kind::Map(_) => None,
        });
    from_tree.or_else(|| {
        let line = text.lines().find_map(|line| line.strip_prefix("name:"))?;
        let word = line.split('#').next().unwrap_or_default();
        word.trim().trim_matches(['"', '\'']).parse().ok()
    })
}

struct Findings<'a> {
    file: &'a str,
    text: &'a str,
    found: Vec<Diagnostic>,
}

impl Findings<'_> {
    fn add(&mut self, flaws: impl IntoIterator<Item = Flaw>, severity: Severity) {
        for flaw in flaws {
            let diagnostic = Diagnostic::new(self.file, self.text, flaw, severity);
            self.found.push(diagnostic);
        }
    }
}

/// The definition as far as it can be read, and the paths of what had to be left out.
fn read(node: &Node, findings: &mut Findings<'_>) -> Option<(Definition, Vec<String>)> {
    let fitted = shape::fit(node, schema());
    findings.add(fitted.flaws, Severity::Error);
    let mut dropped = fitted.dropped;
    let mut value = fitted.value;
    // serde tells one mistake at a time: what it complains about is taken out, and it is asked again.
    for _ in 0..32 {
        match serde_path_to_error::deserialize::<_, Definition>(value.clone()) {
            Ok(definition) => return Some((definition, dropped)),
            Err(error) => {
                let path = match error.path().to_string() {
                    root if root == "." => String::new(),
                    path => path,
                };
                let already = dropped
                    .iter()
                    .any(|gone| gone.starts_with(path.as_str()) || path.starts_with(gone.as_str()));
                if !already {
                    let message = error.inner().to_string();
                    findings.add(
                        [Flaw::new(node.locate(&path), &path, message, "")],
                        Severity::Error,
                    );
                }
                let top = path.split(['.', '[']).next().unwrap_or_default();
                if !take_out(&mut value, top) {
                    return None;
                }
                dropped.push(top.to_owned());
            }
        }
    }
    None
}

/// Removes a field that can be done without, or puts something valid in its place.
fn take_out(value: &mut Value, field: &str) -> bool {
    let Value::Object(fields) = value else {
        return false;
    };
    let stand_in = match field {
        "name" => Value::from("unnamed"),
        "execution_mode" => Value::from("autonomous"),
        "system_prompt" => Value::from("-"),
        "llm_config" => serde_json::json!({"provider": "openai", "model": "-"}),
        _ => {
            // A required field that is missing is reported at the root, without its name.
            let missing = schema()["required"].as_array().into_iter().flatten();
            let missing = missing
                .filter_map(Value::as_str)
                .find(|name| field.is_empty() && !fields.contains_key(*name))
                .map(str::to_owned);
            return match missing {
                Some(name) => take_out(value, &name),
                None => fields.remove(field).is_some(),
            };
        }
    };
    let before = fields.insert(field.to_owned(), stand_in.clone());
    before != Some(stand_in)
}

/// What is wrong with a definition that can be read.
fn check(
    definition: &Definition,
    node: &Node,
    dropped: &[String],
    lookup: &Lookup,
    findings: &mut Findings<'_>,
) {
    let hidden = |path: &str| {
        dropped
            .iter()
            .any(|gone| path.starts_with(gone.as_str()) || gone.starts_with(path))
    };
    for problem in definition.problems() {
        if hidden(&problem.path) {
            continue;
        }
        let mark = node.locate(&problem.path);
        let flaw = Flaw::new(mark, problem.path, problem.message, problem.hint);
        findings.add([flaw], problem.severity);
    }
    for (path, schema) in schemas(definition) {
        if let Some((inner, message)) = broken_schema(schema) {
            let path = join_pointer(&path, &inner);
            let hint = "write a JSON Schema, such as type: object with properties:";
            findings.add(
                [Flaw::new(node.locate(&path), &path, message, hint)],
                Severity::Error,
            );
        }
    }
    // An agent that takes no work may wait for its variables.
    let severity = if definition.enabled {
        Severity::Error
    } else {
        Severity::Warning
    };
    for (path, name) in missing_variables(definition, lookup) {
        let mark = node.locate(&path);
        let (message, hint) = if name.is_empty() {
            (path.clone(), String::new())
        } else {
            (
                format!("the variable {name} is not set"),
                format!("set it in the environment or in .env, or write ${{{name}:-default}}"),
            )
        };
        findings.add([Flaw::new(mark, path, message, hint)], severity);
    }
}

fn schemas(definition: &Definition) -> Vec<(String, &Value)> {
    let output = definition
        .output_schema
        .iter()
        .map(|schema| ("output_schema".to_owned(), schema));
    let parameters = definition
        .tools
        .iter()
        .enumerate()
        .filter_map(|(index, tool)| match &tool.kind {
            ToolKind::Api(api) => {
                let schema = api.parameters.as_ref()?;
                Some((format!("tools[{index}].parameters"), schema))
            }
            ToolKind::Mcp(_) | ToolKind::Function(_) | ToolKind::Agent(_) => None,
        });
    output.chain(parameters).collect()
}

/// Where and why a JSON Schema can't be used.
fn broken_schema(schema: &Value) -> Option<(String, String)> {
    if !schema.is_object() {
        return None; // reported by the domain
    }
    if let Err(error) = jsonschema::meta::validate(schema) {
        let place = error.instance_path().to_string();
        return Some((place, format!("not a valid JSON Schema: {error}")));
    }
    let error = jsonschema::validator_for(schema).err()?;
    let place = error.instance_path().to_string();
    Some((place, format!("this JSON Schema can't be used: {error}")))
}

/// A path of ours continued by a JSON pointer.
fn join_pointer(path: &str, pointer: &str) -> String {
    pointer
        .split('/')
        .skip(1)
        .fold(path.to_owned(), |path, part| {
            let part = part.replace("~1", "/").replace("~0", "~");
            if part.bytes().all(|b| b.is_ascii_digit()) && !part.is_empty() {
                format!("{path}[{part}]")
            } else {
                join(&path, &part)
            }
        })
}

/// All variables that are missing: each one found is taken for set, and it is asked again.
fn missing_variables(definition: &Definition, lookup: &Lookup) -> Vec<(String, String)> {
    let known = RefCell::new(BTreeSet::new());
    let mut missing = Vec::new();
    let pretend = |name: &str| {
        lookup(name).filter(|value| !value.is_empty()).or_else(|| {
            let is_known = known.borrow().contains(name);
            is_known.then(|| "x".to_owned())
        })
    };
    for _ in 0..64 {
        match definition.expanded(&pretend) {
            Ok(_) => break,
            Err(error) if error.name.is_empty() => {
                // With pretended values it need not be readable.
                if missing.is_empty() {
                    missing.push((error.path, error.name));
                }
                break;
            }
            Err(error) => {
                known.borrow_mut().insert(error.name.clone());
                missing.push((error.path, error.name));
            }
        }
    }
    missing
}

#[cfg(test)]
mod tests;
