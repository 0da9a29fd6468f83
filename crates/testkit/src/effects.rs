//! A tool's API whose effects are counted: one route for each effect class.
//!
//! | route | class | what it does |
//! |---|---|---|
//! | `GET /read/{name}` | read_only | answers the value of `name` |
//! | `PUT /set/{name}` | idempotent | applies once per `Idempotency-Key`; a repetition gets the stored answer |
//! | `POST /charge` | unsafe | every arrival is one more charge |
//! | `POST /order` | checkable | every arrival is one more order |
//! | `GET` or `POST /order/check` | its check | tells whether an order with `key` has happened |
//!
//! The points for barriers and faults are `before_effect` and `after_effect` (done, but not answered).

mod call;
mod service;

use std::io;
use std::net::SocketAddr;

use serde_json::Value;

pub use call::{Call, EffectFault, Route};

use crate::barrier::{Barrier, Filter, Hold};
use crate::server::Server;
use service::Service;

/// The tool's API, inside the test, on a thread of its own, until it is dropped.
#[derive(Debug)]
pub struct EffectsStandIn {
    service: Service,
    server: Server,
}

impl EffectsStandIn {
    /// Starts the stand-in on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// When no port can be bound.
    #[must_use]
    pub fn start() -> Self {
        Self::start_on(0).expect("a free port")
    }

    /// Starts the stand-in on this port of 127.0.0.1.
    ///
    /// # Errors
    /// When the port cannot be bound.
    pub fn start_on(port: u16) -> io::Result<Self> {
        let service = Service::default();
        let server = Server::start(port, service.router())?;
        Ok(Self { service, server })
    }

    /// Returns the address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Returns `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Sets what `GET /read/{name}` answers.
    pub fn set_value(&self, name: impl Into<String>, value: impl Into<Value>) {
        self.service.set_value(name.into(), value.into());
    }

    /// Returns all calls so far, in order of arrival.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.service.log().all()
    }

    /// Counts the calls so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.service.log().look(<[_]>::len)
    }

    /// Returns the calls of one route.
    #[must_use]
    pub fn calls_to(&self, route: Route) -> Vec<Call> {
        self.calls_where(|call| call.route == route)
    }

    /// Returns the calls that carried this idempotency key.
    #[must_use]
    pub fn calls_with_key(&self, key: &str) -> Vec<Call> {
        self.calls_where(|call| call.key.as_deref() == Some(key))
    }

    /// Returns the calls that are wanted.
    pub fn calls_where(&self, is_wanted: impl Fn(&Call) -> bool) -> Vec<Call> {
        let wanted = |calls: &[Call]| {
            calls
                .iter()
                .filter(|call| is_wanted(call))
                .cloned()
                .collect()
        };
        self.service.log().look(wanted)
    }

    /// Returns the calls of one route that changed the world.
    #[must_use]
    pub fn effects(&self, route: Route) -> Vec<Call> {
        self.calls_to(route)
            .into_iter()
            .filter(|call| call.effect.is_some())
            .collect()
    }

    /// Waits until `calls` calls have arrived in all.
    pub async fn wait_for_calls(&self, calls: usize) {
        self.service
            .log()
            .wait_until(|all| all.len() >= calls)
            .await;
    }

    /// Waits until the calls so far are as `enough` wants them.
    pub async fn wait_until(&self, enough: impl Fn(&[Call]) -> bool) {
        self.service.log().wait_until(enough).await;
    }

    /// Holds the calls that `filter` means, or the first `limit` of them, at its point
    /// (`with("point", "before_effect")` or `"after_effect"`). More attributes: `route`, `name`, `key`,
    /// `number`.
    #[must_use = "a dropped hold lets everything pass"]
    pub fn hold(&self, filter: Filter, limit: Option<usize>) -> Hold {
        self.barrier().hold(filter, limit)
    }

    /// Returns the barriers.
    #[must_use]
    pub fn barrier(&self) -> &Barrier {
        self.service.barrier()
    }

    /// Lets the calls that `filter` means fail, all or the next `times` of them. A filter without a
    /// point means before the effect.
    pub fn fail(&self, filter: Filter, times: Option<usize>, fault: EffectFault) {
        self.service.fail(filter, times, fault);
    }
}
