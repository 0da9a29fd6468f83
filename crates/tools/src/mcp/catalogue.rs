//! The tools of a server as it lists them, within bounds, and what of them an entry offers.

use std::collections::BTreeMap;

use domain::definition::{Approval, Effect, McpTool, Tool};
use domain::pin::{Fingerprint, Sight};
use serde_json::{Map, Value, json};

use crate::Offer;
use crate::text::{for_log, short};

/// How many tools a server may list; what an agent does not need is kept out by `allow` and `deny`.
pub(super) const MAX_LISTED: usize = 2048;
/// How many tools of a server are offered.
const MAX_OFFERED: usize = 128;
/// The longest description, in bytes.
const MAX_DESCRIPTION: usize = 4096;
/// The largest schema of arguments, in bytes.
const MAX_SCHEMA: usize = 64 << 10;
/// The deepest schema of arguments.
const MAX_SCHEMA_DEPTH: usize = 32;
/// The longest name that models' providers take.
const MAX_NAME: usize = 64;

/// What a server offers.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Catalogue {
    tools: Vec<Listed>,
}

/// A tool as a server lists it.
#[derive(Debug, PartialEq)]
struct Listed {
    /// The server's name for it.
    name: String,
    /// The name that models know it by.
    offered: String,
    description: String,
    schema: Value,
    /// Of all that the server says of it.
    fingerprint: Fingerprint,
    /// What people are shown of that.
    definition: Value,
}

impl Catalogue {
    pub(super) fn new(tools: Vec<rmcp::model::Tool>) -> Self {
        let tools = tools.into_iter().take(MAX_LISTED).map(Listed::new);
        Self {
            tools: tools.collect(),
        }
    }

    /// The server's name for the tool that models know as `offered`.
    pub(super) fn name_of(&self, offered: &str) -> Option<&str> {
        let listed = self.tools.iter().find(|tool| tool.offered == offered)?;
        Some(&listed.name)
    }

    /// Whether the tool that models know as `offered` is what this is of; one that is not listed is for the server to
    /// refuse.
    pub(super) fn still_has(&self, offered: &str, pin: &Fingerprint) -> bool {
        let mut listed = self.tools.iter().filter(|tool| tool.offered == offered);
        listed.all(|tool| tool.fingerprint == *pin)
    }

    /// The tools that an entry offers to its agent.
    ///
    /// # Errors
    /// There are too many, two get one name, or a schema is out of bounds.
    pub(super) fn offers(&self, entry: &Tool, mcp: &McpTool) -> Result<Vec<Offer>, String> {
        let granted = |tool: &&Listed| is_granted(mcp, &tool.name, &tool.offered);
        let tools: Vec<&Listed> = self.tools.iter().filter(granted).collect();
        if tools.len() > MAX_OFFERED {
            return Err(format!(
                "the server has {} tools, at most {MAX_OFFERED} can be offered; name the needed ones in allow",
                tools.len()
            ));
        }
        let mut names = BTreeMap::new();
        for tool in &tools {
            if let Some(other) = names.insert(&tool.offered, &tool.name) {
                return Err(format!(
                    "its tools {other:?} and {:?} would both be called {:?}; put one into deny",
                    tool.name, tool.offered
                ));
            }
            let (size, depth) = (tool.schema.to_string().len(), depth(&tool.schema));
            if size > MAX_SCHEMA || depth > MAX_SCHEMA_DEPTH {
                return Err(format!(
                    "the schema of its tool {:?} is too large ({size} bytes, {depth} deep); put it into deny",
                    tool.name
                ));
            }
        }
        let server = server_name(entry, mcp);
        let pinned = mcp.pin.then_some(server.as_str());
        let offers = tools.into_iter().map(|tool| tool.offer(entry, pinned));
        Ok(offers.collect())
    }

    /// Warns of tools that are no longer what they were: a server that was trusted for one thing may now do another.
    pub(super) fn warn_of_changes(&self, server: &str, before: &Self) {
        for tool in &self.tools {
            let old = before.tools.iter().find(|old| old.name == tool.name);
            if old.is_some_and(|old| old != tool) {
                let tool = for_log(&tool.name);
                tracing::warn!(
                    server,
                    tool,
                    "an MCP server changed the description or the schema of a tool"
                );
            }
        }
    }
}

impl Listed {
    fn new(tool: rmcp::model::Tool) -> Self {
        let description = tool
            .description
            .as_deref()
            .or(tool.title.as_deref())
            .unwrap_or_default();
        let whole = json!({
            "name": tool.name, "title": tool.title, "description": tool.description,
            "inputSchema": tool.input_schema, "outputSchema": tool.output_schema, "annotations": tool.annotations,
        });
        let shown = json!({
            "name": tool.name, "description": short(description, MAX_DESCRIPTION),
            "inputSchema": tool.input_schema, "annotations": tool.annotations,
        });
        let mut schema = Map::clone(&tool.input_schema);
        schema
            .entry("type")
            .or_insert_with(|| Value::String("object".to_owned()));
        Self {
            offered: offered_name(&tool.name),
            description: short(description, MAX_DESCRIPTION),
            schema: Value::Object(schema),
            fingerprint: Fingerprint::of(&whole),
            definition: shown,
            name: tool.name.into_owned(),
        }
    }

    fn offer(&self, entry: &Tool, pinned: Option<&str>) -> Offer {
        let approval =
            |approval: &Approval| approval.covers(&self.name) || approval.covers(&self.offered);
        Offer {
            name: self.offered.clone(),
            description: self.description.clone(),
            parameters: self.schema.clone(),
            entry: entry.name.clone(),
            effect: effect_of(entry, &self.name, &self.offered),
            approval: entry.requires_approval.as_ref().is_some_and(approval),
            pin: pinned.map(|server| Sight {
                server: server.to_owned(),
                tool: self.offered.clone(),
                definition: self.definition.clone(),
                fingerprint: self.fingerprint.clone(),
            }),
        }
    }
}

/// The entry's name and where it leads, for a server of which something was approved. Where an operator has it lead
/// elsewhere, it is another one; what is secret in it can't be read from this.
fn server_name(entry: &Tool, mcp: &McpTool) -> String {
    let place = Fingerprint::of(&json!([mcp.url, mcp.command, mcp.args]));
    let place = place.as_str().get(..16).unwrap_or_default();
    format!("{}#{place}", entry.name)
}

/// Whether an entry lets its agent call a tool.
pub(super) fn is_granted(mcp: &McpTool, name: &str, offered: &str) -> bool {
    let names = |list: &[String]| list.iter().any(|item| item == name || item == offered);
    (mcp.allow.is_empty() || names(&mcp.allow)) && !names(&mcp.deny)
}

/// What an entry says of the effect of a tool, by either of its names.
pub(super) fn effect_of(entry: &Tool, name: &str, offered: &str) -> Effect {
    match &entry.kind {
        domain::definition::ToolKind::Mcp(mcp) if mcp.effects.contains_key(name) => {
            entry.effect_of(name)
        }
        _ => entry.effect_of(offered),
    }
}

/// A name that models' providers take: MCP allows more, dots and slashes for one.
fn offered_name(name: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    name.chars()
        .map(|c| if fits(c) { c } else { '_' })
        .take(MAX_NAME)
        .collect()
}

/// How deep a value is nested. The reader of the wire stops at 128, so this recursion is bounded.
fn depth(value: &Value) -> usize {
    let children = match value {
        Value::Array(items) => items.iter().map(depth).max(),
        Value::Object(fields) => fields.values().map(depth).max(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return 0,
    };
    1 + children.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn listed(name: &str, schema: Value) -> rmcp::model::Tool {
        let Value::Object(schema) = schema else {
            panic!("a schema is an object")
        };
        rmcp::model::Tool::new(name.to_owned(), "does it", Arc::new(schema))
    }

    fn entry(fields: Value) -> (Tool, McpTool) {
        let mut whole = json!({"name": "srv", "type": "mcp", "command": "x"});
        whole
            .as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        let tool: Tool = serde_json::from_value(whole).unwrap();
        let domain::definition::ToolKind::Mcp(mcp) = tool.kind.clone() else {
            panic!("an mcp entry")
        };
        (tool, mcp)
    }

    #[test]
    fn an_entry_filters_and_names_effects() {
        let catalogue = Catalogue::new(
            ["a.read", "b", "c", "d"]
                .map(|n| listed(n, json!({})))
                .into(),
        );
        let (tool, mcp) = entry(json!({
            "allow": ["a.read", "b", "d"], "deny": ["d"],
            "effects": {"a.read": "read_only"}, "requires_approval": ["b"],
        }));
        let offers = catalogue.offers(&tool, &mcp).unwrap();
        let seen: Vec<_> = offers
            .iter()
            .map(|offer| (offer.name.as_str(), offer.effect, offer.approval))
            .collect();
        assert_eq!(
            seen,
            [
                ("a_read", Effect::ReadOnly, false),
                ("b", Effect::Unsafe, true)
            ]
        );
        assert_eq!(offers[0].parameters, json!({"type": "object"}));
        assert_eq!(catalogue.name_of("a_read"), Some("a.read"));
    }

    #[test]
    fn whatever_a_server_says_of_a_tool_is_pinned() {
        let pin = |fields: Value, listed: Value| {
            let (tool, mcp) = entry(fields);
            let listed = serde_json::from_value(listed).unwrap();
            let offers = Catalogue::new(vec![listed]).offers(&tool, &mcp).unwrap();
            offers[0].pin.clone()
        };
        let long = "x".repeat(2 * MAX_DESCRIPTION);
        let base =
            json!({ "name": "a.b", "description": long, "inputSchema": { "type": "object" } });
        let sight = pin(json!({}), base.clone()).unwrap();
        assert_eq!(sight.tool, "a_b");
        assert!(sight.server.starts_with("srv#"), "{}", sight.server);
        for (field, value) in [
            ("name", json!("a_b")),
            ("title", json!("B")),
            // Beyond what the model is told.
            ("description", json!(format!("{long}y"))),
            ("inputSchema", json!({ "type": "object", "title": "B" })),
            ("outputSchema", json!({ "type": "object" })),
            ("annotations", json!({ "readOnlyHint": true })),
        ] {
            let mut other = base.clone();
            other[field] = value;
            let other = pin(json!({}), other).unwrap();
            assert_ne!(other.fingerprint, sight.fingerprint, "{field}");
            assert_eq!(other.server, sight.server);
        }
        let elsewhere = pin(json!({ "args": ["y"] }), base.clone()).unwrap();
        assert_ne!(elsewhere.server, sight.server);
        let renewed = json!({ "env": { "TOKEN": "new" } });
        assert_eq!(pin(renewed, base.clone()), Some(sight));
        assert_eq!(pin(json!({ "pin": false }), base), None);
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_with_a_remedy() {
        let (tool, mcp) = entry(json!({}));
        let many = (0..129)
            .map(|n| listed(&format!("t{n}"), json!({})))
            .collect();
        let error = Catalogue::new(many).offers(&tool, &mcp).unwrap_err();
        assert!(error.contains("allow"), "{error}");
        let twins = Catalogue::new(vec![listed("a.b", json!({})), listed("a/b", json!({}))]);
        let error = twins.offers(&tool, &mcp).unwrap_err();
        assert!(error.contains("a.b") && error.contains("a/b"), "{error}");
        let large = Catalogue::new(vec![listed("a", json!({"title": "x".repeat(70_000)}))]);
        assert!(large.offers(&tool, &mcp).is_err());
        let deep = (0..40).fold(json!({}), |inner, _| json!({"items": inner}));
        let deep = Catalogue::new(vec![listed("a", deep)]);
        assert!(deep.offers(&tool, &mcp).is_err());
    }
}
