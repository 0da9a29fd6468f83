//! Of tools.

use std::collections::BTreeSet;

use super::{Findings, check_approval, check_schema, check_url};
use crate::definition::{
    Approval, ApprovalRule, Builtin, Definition, Effect, McpTool, Tool, ToolKind,
};
use crate::nearest::nearest;

/// The most tools of an agent.
const MAX_TOOLS: usize = 128;

impl Definition {
    pub(super) fn check_tools(&self, found: &mut Findings) {
        if self.tools.len() > MAX_TOOLS {
            found.error(
                "tools",
                format!("there are {}", self.tools.len()),
                format!("at most {MAX_TOOLS} are allowed"),
            );
        }
        let mut names = BTreeSet::new();
        for (index, tool) in self.tools.iter().enumerate() {
            let path = format!("tools[{index}]");
            if !names.insert(tool.name.as_str()) {
                found.error(
                    format!("{path}.name"),
                    format!("{:?} is taken by another tool", tool.name),
                    "give each tool a name of its own",
                );
            }
            self.check_tool(tool, &path, found);
        }
    }

    fn check_tool(&self, tool: &Tool, path: &str, found: &mut Findings) {
        let valid = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if tool.name.is_empty() || tool.name.len() > 64 || !tool.name.chars().all(valid) {
            found.error(
                format!("{path}.name"),
                format!("{:?} is not a tool name", tool.name),
                "use 1 to 64 letters, digits, '_' or '-'",
            );
        }
        if tool.timeout_seconds == 0 || tool.timeout_seconds > 86_400 {
            found.error(
                format!("{path}.timeout_seconds"),
                format!("{} is out of range", tool.timeout_seconds),
                "it is 1 to 86400",
            );
        }
        if tool.max_result_bytes == 0 || tool.max_result_bytes > 16 << 20 {
            found.error(
                format!("{path}.max_result_bytes"),
                format!("{} is out of range", tool.max_result_bytes),
                "it is 1 to 16777216",
            );
        }
        self.check_effect(tool, path, found);
        self.check_kind(tool, path, found);
    }

    fn check_kind(&self, tool: &Tool, path: &str, found: &mut Findings) {
        match &tool.kind {
            ToolKind::Mcp(server) => check_server(server, path, found),
            ToolKind::Api(api) => {
                check_url(&format!("{path}.url"), &api.url, found);
                check_schema(
                    &format!("{path}.parameters"),
                    api.parameters.as_ref(),
                    found,
                );
            }
            ToolKind::Function(function) => {
                check_function(tool, function.root.is_none(), path, found)
            }
            ToolKind::Agent(_) => match tool.agent() {
                None => found.error(
                    format!("{path}.agent"),
                    format!("{:?} is not an agent name", tool.name),
                    "add agent: with the name of the agent",
                ),
                Some(agent) if agent == self.name => {
                    found.error(
                        format!("{path}.agent"),
                        "an agent can't be its own tool",
                        "name another agent",
                    );
                }
                Some(_) => self.check_hand_over(tool, path, found),
            },
        }
    }

    fn check_hand_over(&self, tool: &Tool, path: &str, found: &mut Findings) {
        if matches!(&tool.kind, ToolKind::Agent(agent) if agent.hand_over)
            && self.output_schema.is_some()
        {
            found.error(
                format!("{path}.hand_over"),
                "the other agent's answer would not be checked against output_schema",
                "take output_schema away here and give it to the other agent, or leave hand_over out",
            );
        }
    }

    fn check_effect(&self, tool: &Tool, path: &str, found: &mut Findings) {
        match (tool.effect, &tool.check) {
            (Some(Effect::Checkable), None) => {
                found.error(
                    format!("{path}.check"),
                    "a checkable tool needs it",
                    "name the tool that tells whether an earlier call happened",
                );
            }
            (Some(Effect::Checkable), Some(check)) if self.tool(check).is_none() => {
                found.error(
                    format!("{path}.check"),
                    format!("there is no tool {check:?}"),
                    "name another tool of this agent",
                );
            }
            (effect, Some(_)) if effect != Some(Effect::Checkable) => {
                found.warn(
                    format!("{path}.check"),
                    "it has no effect",
                    "set effect: checkable",
                );
            }
            _ => {}
        }
        let Some(approval) = &tool.requires_approval else {
            return;
        };
        check_approval(&format!("{path}.requires_approval"), approval, found);
        if let Approval::Rules(rules) = approval
            && !matches!(tool.kind, ToolKind::Mcp(_))
        {
            let is_other = |rule: &ApprovalRule| match rule {
                ApprovalRule::Tool(name) => *name != tool.name,
                ApprovalRule::When(rule) => rule.tool.as_ref().is_some_and(|t| *t != tool.name),
            };
            if rules.iter().all(is_other) {
                found.error(
                    format!("{path}.requires_approval"),
                    "none of these is this tool",
                    "write requires_approval: true",
                );
            }
        }
    }
}

fn check_server(server: &McpTool, path: &str, found: &mut Findings) {
    match (&server.url, &server.command) {
        (Some(url), None) => check_url(&format!("{path}.url"), url, found),
        (None, Some(command)) if command.trim().is_empty() => {
            found.error(
                format!("{path}.command"),
                "it is empty",
                "name the program that serves MCP on stdio",
            );
        }
        (None, Some(_)) => {}
        (Some(_), Some(_)) => found.error(
            path,
            "it has both url and command",
            "keep url for streamable HTTP or command for stdio",
        ),
        (None, None) => found.error(
            path,
            "it has neither url nor command",
            "give url for streamable HTTP or command and args for stdio",
        ),
    }
}

fn check_function(tool: &Tool, has_no_root: bool, path: &str, found: &mut Findings) {
    match tool.builtin() {
        None => {
            let known = Builtin::ALL.map(Builtin::as_str);
            let hint = nearest(&tool.name, known).map_or_else(
                || format!("the built-in functions are {}", known.join(", ")),
                |name| format!("did you mean {name}?"),
            );
            found.error(
                format!("{path}.name"),
                format!("there is no built-in function {:?}", tool.name),
                hint,
            );
        }
        Some(Builtin::ReadFile | Builtin::ListFiles | Builtin::SearchFiles) if has_no_root => {
            found.error(
                path,
                "a file tool needs a root",
                "add root: with the folder that it may read, such as root: ./logs",
            );
        }
        Some(_) => {}
    }
}
