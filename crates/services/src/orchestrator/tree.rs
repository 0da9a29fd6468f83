//! An execution with all that work for it.

use std::collections::VecDeque;

use axum::Json;
use axum::extract::{Path, State};
use domain::{ExecutionId, Money, Time, Tokens};
use serde::Serialize;
use store::{ExecutionFilter, ExecutionRow, Page};
use utoipa::ToSchema;

use crate::execution::ExecutionOut;
use crate::http::caller::Caller;
use crate::http::error::ErrorBody;
use crate::http::page::MAX_LIMIT;
use crate::http::params::{execution_id, no_execution};
use crate::http::{Answer, App};

/// How many executions a tree shows at most.
const MOST: usize = 1000;

/// An execution with all that work for it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TreeOut {
    #[serde(flatten)]
    node: NodeOut,
    /// How many executions there are in it, itself among them.
    executions: usize,
    /// Tokens of all of them.
    total_tokens: u64,
    /// Dollars of all of them, as far as prices are known.
    total_cost_usd: f64,
    /// Whether there are more than are shown.
    truncated: bool,
}

/// An execution in a tree.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NodeOut {
    #[serde(flatten)]
    execution: ExecutionOut,
    /// The step of the one above that started it.
    parent_step: Option<u32>,
    /// How long it took, or takes so far.
    duration_seconds: Option<f64>,
    /// Those that work, or worked, for it; the first one first.
    #[schema(no_recursion)]
    children: Vec<NodeOut>,
}

/// Shows an execution with all that work for it: their states, tokens, cost and durations. Their steps are at
/// GET /executions/{id}/steps of StateManager.
#[utoipa::path(get, path = "/tasks/{id}/tree", tag = "tasks", params(("id" = String, Path)), responses(
    (status = 200, body = TreeOut),
    (status = 404, body = ErrorBody),
))]
pub(super) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<Json<TreeOut>> {
    let id = execution_id(&id)?;
    let root = app.engine.store().execution(id).await?;
    let root = root.ok_or_else(|| no_execution(id))?;
    let now = app.engine.now();
    let (rows, truncated) = family(&app, &caller, root).await?;
    let total = |n: u64, row: &ExecutionRow| n.saturating_add(row.totals.usage.total().0);
    let Tokens(total_tokens) = Tokens(rows.iter().fold(0, total));
    let cost = rows
        .iter()
        .fold(Money::ZERO, |sum, row| sum + row.totals.cost_usd);
    let executions = rows.len();
    let node = grow(rows, now).ok_or_else(|| no_execution(id))?;
    Ok(Json(TreeOut {
        node,
        executions,
        total_tokens,
        total_cost_usd: cost.usd(),
        truncated,
    }))
}

/// An execution and all below it, each after the one that started it; and whether there are more. What is not the
/// caller's is left out, with all below it.
async fn family(
    app: &App,
    caller: &Caller,
    root: ExecutionRow,
) -> Answer<(Vec<ExecutionRow>, bool)> {
    let mut waiting: VecDeque<ExecutionId> = [root.execution.id].into();
    let mut rows = vec![root];
    while let Some(parent) = waiting.pop_front() {
        let filter = ExecutionFilter {
            parent: Some(parent),
            ..ExecutionFilter::default()
        };
        let page = Page {
            limit: MAX_LIMIT,
            after: None,
        };
        let (mut children, total) = app.engine.store().executions(filter, page).await?;
        let are_all = total.count as usize <= children.len();
        children.retain(|row| caller.covers(&row.execution.agent));
        // Newest first, as lists are.
        children.reverse();
        let room = MOST.saturating_sub(rows.len());
        if children.len() > room || !are_all {
            children.truncate(room);
            rows.extend(children);
            return Ok((rows, true));
        }
        waiting.extend(children.iter().map(|row| row.execution.id));
        rows.extend(children);
    }
    Ok((rows, false))
}

/// Makes a tree of the list, from its end: whoever is below stands after.
fn grow(rows: Vec<ExecutionRow>, now: Time) -> Option<NodeOut> {
    let mut nodes: Vec<(Option<ExecutionId>, NodeOut)> = rows
        .iter()
        .map(|row| (row.execution.parent.map(|parent| parent.id), leaf(row, now)))
        .collect();
    while nodes.len() > 1 {
        let (parent, node) = nodes.pop()?;
        let above = nodes
            .iter_mut()
            .find(|(_, above)| Some(above.execution.execution_id) == parent);
        if let Some((_, above)) = above {
            above.children.insert(0, node);
        }
    }
    nodes.pop().map(|(_, root)| root)
}

fn leaf(row: &ExecutionRow, now: Time) -> NodeOut {
    let took = row
        .started_at
        .map(|started| row.finished_at.unwrap_or(now) - started);
    NodeOut {
        execution: ExecutionOut::new(row, now),
        parent_step: row.execution.parent.map(|parent| parent.seq.get()),
        duration_seconds: took.map(|took| took.num_milliseconds().max(0) as f64 / 1000.0),
        children: Vec::new(),
    }
}
