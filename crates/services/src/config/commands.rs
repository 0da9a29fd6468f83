//! Programs that the API may not name.
//!
//! A tool of type `mcp` with a `command` starts a program on this machine. Which programs is said by files on disk alone:
//! whoever may write there may start programs anyway. A text that comes through the API may keep what the agent's file has
//! already, to the letter, and add nothing: no list of harmless or harmful commands stands up to its authors.

use domain::Definition;
use domain::definition::{McpTool, ToolKind};

/// The first program that a definition would start and its file would not: where it stands, and what it is called.
pub(super) fn added<'a>(
    definition: &'a Definition,
    file: Option<&Definition>,
) -> Option<(String, &'a str)> {
    let known: Vec<&McpTool> = file
        .iter()
        .flat_map(|file| programs(file))
        .map(|(_, mcp)| mcp)
        .collect();
    let is_known = |mcp: &McpTool| {
        let same = |own: &&McpTool| {
            (&own.command, &own.args, &own.env) == (&mcp.command, &mcp.args, &mcp.env)
        };
        known.iter().any(same)
    };
    let (index, mcp) = programs(definition).find(|(_, mcp)| !is_known(mcp))?;
    let command = mcp.command.as_deref().unwrap_or_default();
    Some((format!("tools[{index}].command"), command))
}

fn programs(definition: &Definition) -> impl Iterator<Item = (usize, &McpTool)> {
    let tools = definition.tools.iter().enumerate();
    tools.filter_map(|(index, tool)| match &tool.kind {
        ToolKind::Mcp(mcp)
            if mcp.command.is_some() || !mcp.args.is_empty() || !mcp.env.is_empty() =>
        {
            Some((index, mcp))
        }
        ToolKind::Mcp(_) | ToolKind::Api(_) | ToolKind::Function(_) | ToolKind::Agent(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn with(tools: Value) -> Definition {
        let definition = json!({
            "name": "a", "execution_mode": "autonomous", "system_prompt": "-",
            "llm_config": {"provider": "openai", "model": "-"}, "tools": tools,
        });
        serde_json::from_value(definition).unwrap()
    }

    #[test]
    fn only_what_the_file_has_to_the_letter_is_kept() {
        let stdio = |command: &str, args: Value, env: Value| json!({"name": "t", "type": "mcp", "command": command, "args": args, "env": env});
        let own = with(json!([stdio(
            "/usr/bin/server",
            json!(["--root", "/srv"]),
            json!({"A": "1"})
        )]));
        assert_eq!(added(&own, Some(&own)), None);
        let remote = with(json!([{"name": "t", "type": "mcp", "url": "https://mcp.example.com"}]));
        assert_eq!(added(&remote, None), None);
        let others = [
            stdio("/usr/bin/server", json!(["--root", "/"]), json!({"A": "1"})),
            stdio(
                "/usr/bin/server",
                json!(["--root", "/srv"]),
                json!({"A": "1", "LD_PRELOAD": "x"}),
            ),
            stdio("sh", json!(["-c", "id"]), json!({})),
            stdio("npx", json!(["--yes", "evil"]), json!({})),
        ];
        for other in others {
            let definition = with(json!([{"name": "calculate", "type": "function"}, other]));
            let found = added(&definition, Some(&own)).map(|(path, _)| path);
            assert_eq!(found.as_deref(), Some("tools[1].command"), "{other}");
        }
        assert!(added(&own, None).is_some());
    }
}
