//! An execution with all that work for it, as a tree.

use serde_json::Value;

use super::tasks::cost;
use crate::screen::{Screen, one_line, plain};

/// The longest line of reason.
const WHY: usize = 60;

/// Prints it as a tree, or as JSON.
pub(super) fn show(screen: &Screen, tree: &Value) {
    if screen.wants_json() {
        return screen.value(tree);
    }
    for line in lines(tree) {
        screen.line(line);
    }
    let field = |name: &str| tree.get(name).map(plain).unwrap_or_default();
    let total = tree.get("total_cost_usd").and_then(Value::as_f64);
    let total = total.filter(|usd| *usd > 0.0);
    screen.note(format_args!(
        "{} executions · {} tokens{}{}",
        field("executions"),
        field("total_tokens"),
        total.map_or_else(String::new, |usd| format!(" · ${usd:.4}")),
        if tree.get("truncated") == Some(&Value::Bool(true)) {
            " · and more that are not shown"
        } else {
            ""
        }
    ));
}

fn lines(tree: &Value) -> Vec<String> {
    let mut lines = vec![line(tree)];
    branch(tree, "", &mut lines);
    lines
}

fn branch(node: &Value, indent: &str, lines: &mut Vec<String>) {
    let children = node.get("children").and_then(Value::as_array);
    let children = children.map_or(&[][..], Vec::as_slice);
    for (index, child) in children.iter().enumerate() {
        let is_last = index + 1 == children.len();
        let (fork, below) = if is_last {
            ("└─ ", "   ")
        } else {
            ("├─ ", "│  ")
        };
        lines.push(format!("{indent}{fork}{}", line(child)));
        branch(child, &format!("{indent}{below}"), lines);
    }
}

fn line(node: &Value) -> String {
    let field = |name: &str| node.get(name).map(plain).unwrap_or_default();
    let tokens = node.pointer("/usage/total_tokens").map(plain);
    let mut parts = vec![
        field("agent_name"),
        field("status"),
        format!("{} tokens", tokens.unwrap_or_default()),
    ];
    parts.extend(Some(cost(node)).filter(|cost| !cost.is_empty()));
    let seconds = node.get("duration_seconds").and_then(Value::as_f64);
    parts.extend(seconds.map(|seconds| format!("{seconds:.1} s")));
    parts.push(field("execution_id"));
    if node
        .get("status")
        .is_some_and(|status| status != "completed")
    {
        parts.push(one_line(&field("status_reason"), WHY));
    }
    parts.join(" · ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::lines;

    #[test]
    fn a_tree_has_branches() {
        let node = |name: &str, children: serde_json::Value| {
            json!({ "agent_name": name, "status": "completed", "usage": { "total_tokens": 7 },
                "cost_usd": 0.0, "duration_seconds": 1.25, "execution_id": "x", "children": children })
        };
        let tree = node(
            "a",
            json!([
                node("b", json!([node("c", json!([]))])),
                node("d", json!([]))
            ]),
        );
        let rest = "completed · 7 tokens · 1.2 s · x";
        assert_eq!(
            lines(&tree),
            [
                format!("a · {rest}"),
                format!("├─ b · {rest}"),
                format!("│  └─ c · {rest}"),
                format!("└─ d · {rest}"),
            ]
        );
    }
}
