//! The examples of `docs/tools.md` are entries that can be offered.

use domain::definition::{Builtin, Tool, ToolKind};
use serde::Deserialize;

use crate::support::{offers, toolkit};

#[derive(Deserialize)]
#[serde(untagged)]
enum Example {
    Definition { tools: Vec<Tool> },
    Entries(Vec<Tool>),
}

#[tokio::test]
async fn the_examples_are_good() {
    let page = include_str!("../../../../docs/tools.md");
    let toolkit = toolkit(|_| {});
    let blocks: Vec<&str> = page
        .split("```yaml\n")
        .skip(1)
        .map(|block| block.split("```").next().unwrap())
        .collect();
    assert_eq!(blocks.len(), 5);
    for (number, block) in blocks.into_iter().enumerate() {
        let (Example::Definition { tools } | Example::Entries(tools)) =
            serde_saphyr::from_str(block).unwrap_or_else(|error| panic!("{block}\n{error}"));
        // Servers are not started here.
        let is_server = |tool: &Tool| matches!(tool.kind, ToolKind::Mcp(_));
        let local: Vec<Tool> = tools.into_iter().filter(|tool| !is_server(tool)).collect();
        let offered = offers(&toolkit, &number.to_string(), &local).await.unwrap();
        assert_eq!(offered.len(), local.len(), "{block}");
    }
}

#[test]
fn every_built_in_is_in_the_table() {
    let page = include_str!("../../../../docs/tools.md");
    for builtin in Builtin::ALL {
        let row = format!("| `{}` |", builtin.as_str());
        assert!(page.contains(&row), "{row}");
    }
}
