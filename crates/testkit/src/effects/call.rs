//! A recorded call, and what can go wrong with one.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::barrier::Ticket;
use crate::log::{Entry, Outcome};

/// A route of the tool's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// `GET /read/{name}`.
    Read,
    /// `PUT /set/{name}`.
    Set,
    /// `POST /charge`.
    Charge,
    /// `POST /order`.
    Order,
    /// `GET` or `POST /order/check`.
    Check,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Set => "set",
            Self::Charge => "charge",
            Self::Order => "order",
            Self::Check => "check",
        })
    }
}

/// One call that arrived, and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    /// Counts the calls, from 1.
    pub number: usize,
    /// The route.
    pub route: Route,
    /// The last part of the path, where the route has one.
    pub name: Option<String>,
    /// The `Idempotency-Key` header.
    pub key: Option<String>,
    /// The HTTP headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The query parameters.
    pub query: BTreeMap<String, String>,
    /// The body: its JSON, or a string when it is none.
    pub body: Value,
    /// The number of the effect that this call had on the world, counted over all routes. None when it
    /// had none (yet): a read, a repetition, a call that failed before.
    pub effect: Option<usize>,
    /// The HTTP status, once there is one.
    pub status: Option<u16>,
    /// How it ended.
    pub outcome: Outcome,
}

impl Call {
    /// Describes this call, at a point, to a filter.
    pub(super) fn ticket(&self, point: &str) -> Ticket {
        let ticket = Ticket::new(self.body.to_string())
            .with("route", self.route)
            .with("number", self.number)
            .with("point", point);
        let ticket = match &self.name {
            Some(name) => ticket.with("name", name),
            None => ticket,
        };
        match &self.key {
            Some(key) => ticket.with("key", key),
            None => ticket,
        }
    }
}

impl Entry for Call {
    fn number(&self) -> usize {
        self.number
    }

    fn outcome_mut(&mut self) -> &mut Outcome {
        &mut self.outcome
    }
}

/// What goes wrong with a call, at the point that its filter names.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum EffectFault {
    /// Answers with this status and a short text.
    Status {
        /// The HTTP status.
        status: u16,
    },
    /// Sends the client elsewhere (302).
    Redirect {
        /// The address in the `location` header.
        to: String,
    },
    /// Resets the connection before any byte of the answer.
    Reset,
    /// Never answers.
    NeverAnswer,
    /// Breaks the connection in the middle of the body.
    Cut,
    /// Answers 200 with so many bytes, 1 GiB by default.
    Huge {
        /// The size of the body.
        bytes: Option<u64>,
    },
    /// Waits, then goes on as usual.
    Delay {
        /// How long, in milliseconds.
        ms: u64,
    },
}
