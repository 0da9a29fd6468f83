//! The routes of the tool's API: receive, record, hold, have an effect, hold, answer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::call::{Call, EffectFault, Route};
use crate::barrier::{Barrier, Filter};
use crate::control::{self, Patience};
use crate::log::{Fate, Log, Outcome};
use crate::pen::{Gone, Pen, filler};
use crate::server::Link;

/// What the routes share.
#[derive(Clone, Debug, Default)]
pub(super) struct Service(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    log: Arc<Log<Call>>,
    arrivals: AtomicUsize,
    barrier: Barrier,
    faults: Mutex<Vec<FaultRule>>,
    world: Mutex<World>,
}

/// What the calls have done so far.
#[derive(Debug, Default)]
struct World {
    values: BTreeMap<String, Value>,
    /// The answers of `set`, by idempotency key.
    applied: BTreeMap<String, Value>,
    /// The results of `order`, by idempotency key; the first counts.
    orders: BTreeMap<String, Value>,
    effects: usize,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultRule {
    #[serde(default)]
    when: Filter,
    times: Option<usize>,
    fault: EffectFault,
}

/// The parts of a request that every route takes.
type Parts = (
    ConnectInfo<Link>,
    HeaderMap,
    Query<BTreeMap<String, String>>,
    Bytes,
);

impl Service {
    pub(super) fn router(&self) -> Router {
        Router::new()
            .route("/read/{name}", get(read))
            .route("/set/{name}", put(set))
            .route("/charge", post(charge))
            .route("/order", post(order))
            .route("/order/check", get(check).post(check))
            .route("/_control/calls", get(calls).delete(forget))
            .route("/_control/faults", post(add_fault).delete(clear_faults))
            .layer(DefaultBodyLimit::max(256 << 20))
            .with_state(self.clone())
            .merge(control::routes(self.0.barrier.clone()))
    }

    pub(super) fn log(&self) -> &Log<Call> {
        &self.0.log
    }

    pub(super) fn barrier(&self) -> &Barrier {
        &self.0.barrier
    }

    pub(super) fn set_value(&self, name: String, value: Value) {
        self.0
            .world
            .lock()
            .expect("no holder panics")
            .values
            .insert(name, value);
    }

    pub(super) fn fail(&self, when: Filter, times: Option<usize>, fault: EffectFault) {
        let rule = FaultRule { when, times, fault };
        self.0.faults.lock().expect("no holder panics").push(rule);
    }

    async fn call(self, route: Route, name: Option<String>, parts: Parts) -> Response {
        let (ConnectInfo(link), headers, Query(query), body) = parts;
        let call = self.record(route, name, &headers, query, &body);
        let visit = Visit {
            fate: Fate::of(self.0.log.clone(), call.number),
            service: self,
            link,
            call,
        };
        if let Some(fault) = visit.stop_at("before_effect").await {
            return visit.fail(fault, "{}".into()).await;
        }
        let answer = visit.perform();
        match visit.stop_at("after_effect").await {
            Some(fault) => visit.fail(fault, answer.to_string()).await,
            None => visit.answer(StatusCode::OK, answer),
        }
    }

    fn record(
        &self,
        route: Route,
        name: Option<String>,
        headers: &HeaderMap,
        query: BTreeMap<String, String>,
        body: &[u8],
    ) -> Call {
        let text =
            |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers: BTreeMap<String, String> = headers
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), text(value)))
            .collect();
        let as_text = || Value::String(String::from_utf8_lossy(body).into_owned());
        // A key may be bare or quoted; both mean the same.
        let key = headers
            .get("idempotency-key")
            .map(|key| key.trim_matches('"').to_owned());
        self.0.log.append(|_| {
            let call = Call {
                number: self.0.arrivals.fetch_add(1, Ordering::Relaxed) + 1,
                route,
                name,
                key,
                headers,
                query,
                body: serde_json::from_slice(body).unwrap_or_else(|_| as_text()),
                effect: None,
                status: None,
                outcome: Outcome::Open,
            };
            (call.clone(), call)
        })
    }
}

/// One call on its way through the stand-in.
struct Visit {
    service: Service,
    link: Link,
    call: Call,
    fate: Fate<Call>,
}

impl Visit {
    /// Waits at the barriers of a point, then finds the fault that is due there.
    async fn stop_at(&self, point: &str) -> Option<EffectFault> {
        let ticket = self.call.ticket(point);
        self.service.0.barrier.pass(&ticket).await;
        let fault = {
            let mut faults = self.service.0.faults.lock().expect("no holder panics");
            let rule = faults
                .iter_mut()
                .find(|rule| rule.times != Some(0) && rule.when.matches(&ticket))?;
            rule.times = rule.times.map(|left| left - 1);
            rule.fault.clone()
        };
        match fault {
            EffectFault::Delay { ms } => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                None
            }
            other => Some(other),
        }
    }

    /// Does what the route is for. Returns the answer.
    fn perform(&self) -> Value {
        let mut world = self.service.0.world.lock().expect("no holder panics");
        let name = self.call.name.clone().unwrap_or_default();
        match (self.call.route, &self.call.key) {
            (Route::Read, _) => {
                let unset = || json!(format!("value of {name}"));
                json!({"name": name, "value": world.values.get(&name).cloned().unwrap_or_else(unset)})
            }
            (Route::Set, Some(key)) if world.applied.contains_key(key) => {
                world.applied.get(key).cloned().unwrap_or_default()
            }
            (Route::Set, key) => {
                let answer =
                    json!({"name": name, "value": self.call.body, "set": self.effect(&mut world)});
                world.values.insert(name, self.call.body.clone());
                if let Some(key) = key {
                    world.applied.insert(key.clone(), answer.clone());
                }
                answer
            }
            (Route::Charge, _) => json!({"charge": self.effect(&mut world), "of": self.call.body}),
            (Route::Order, key) => {
                let answer = json!({"order": self.effect(&mut world), "of": self.call.body});
                if let Some(key) = key {
                    world
                        .orders
                        .entry(key.clone())
                        .or_insert_with(|| answer.clone());
                }
                answer
            }
            (Route::Check, key) => {
                let asked = self.call.query.get("key").map(String::as_str);
                let asked = asked.or(self.call.body["key"].as_str()).or(key.as_deref());
                match asked.and_then(|key| world.orders.get(key)) {
                    Some(result) => json!({"happened": true, "result": result}),
                    None => json!({"happened": false, "result": null}),
                }
            }
        }
    }

    /// Counts one more effect and writes it into the log.
    fn effect(&self, world: &mut World) -> usize {
        world.effects += 1;
        let effect = world.effects;
        self.amend(|call| call.effect = Some(effect));
        effect
    }

    fn answer(self, status: StatusCode, answer: Value) -> Response {
        self.amend(|call| call.status = Some(status.as_u16()));
        self.write(status, |pen| async move {
            pen.put(answer.to_string().into()).await?;
            Ok(Outcome::Answered)
        })
    }

    async fn fail(mut self, fault: EffectFault, answer: String) -> Response {
        match fault {
            EffectFault::Reset => {
                self.fate.note(Outcome::Cut);
                self.link.sever().await
            }
            EffectFault::NeverAnswer => std::future::pending().await,
            EffectFault::Status { status } => {
                let status = StatusCode::from_u16(status).expect("a status of three digits");
                self.answer(status, json!({"error": status.to_string()}))
            }
            EffectFault::Redirect { to } => {
                let mut response = self.answer(StatusCode::FOUND, Value::Null);
                let to = to.parse().expect("an address that fits a header");
                response.headers_mut().insert("location", to);
                response
            }
            EffectFault::Cut => self.write(StatusCode::OK, |pen| async move {
                let half = answer.len() / 2;
                pen.put(Bytes::from(answer).slice(..half)).await?;
                pen.cut().await;
                Ok(Outcome::Cut)
            }),
            EffectFault::Huge { bytes } => self.write(StatusCode::OK, move |pen| async move {
                pen.put("{\"padding\":\"".into()).await?;
                pen.fill(&filler(), Some(bytes.unwrap_or(1 << 30))).await?;
                Ok(Outcome::Cut)
            }),
            EffectFault::Delay { .. } => unreachable!("a delay is no failure"),
        }
    }

    /// Answers with a body that `write` writes in the background.
    fn write<W>(self, status: StatusCode, write: impl FnOnce(Pen) -> W) -> Response
    where
        W: Future<Output = Result<Outcome, Gone>> + Send + 'static,
    {
        let (pen, body) = Pen::new();
        let written = write(pen);
        let fate = self.fate;
        tokio::spawn(async move {
            let outcome = written.await.unwrap_or(Outcome::Abandoned);
            fate.settle(outcome);
        });
        (status, [("content-type", "application/json")], body).into_response()
    }

    fn amend(&self, change: impl FnOnce(&mut Call)) {
        self.service
            .0
            .log
            .amend(|call| call.number == self.call.number, change);
    }
}

async fn read(State(service): State<Service>, Path(name): Path<String>, parts: Parts) -> Response {
    service.call(Route::Read, Some(name), parts).await
}

async fn set(State(service): State<Service>, Path(name): Path<String>, parts: Parts) -> Response {
    service.call(Route::Set, Some(name), parts).await
}

async fn charge(State(service): State<Service>, parts: Parts) -> Response {
    service.call(Route::Charge, None, parts).await
}

async fn order(State(service): State<Service>, parts: Parts) -> Response {
    service.call(Route::Order, None, parts).await
}

async fn check(State(service): State<Service>, parts: Parts) -> Response {
    service.call(Route::Check, None, parts).await
}

/// Answers the recorded calls; with `n` and `wait`, as soon as there are `n` of them.
async fn calls(State(service): State<Service>, Query(patience): Query<Patience>) -> Response {
    let wanted = patience.count();
    patience
        .wait(service.log().wait_until(|all| all.len() >= wanted))
        .await;
    Json(service.log().all()).into_response()
}

async fn forget(State(service): State<Service>) -> StatusCode {
    service.log().clear();
    StatusCode::NO_CONTENT
}

async fn add_fault(State(service): State<Service>, body: Bytes) -> Response {
    match serde_json::from_slice::<FaultRule>(&body) {
        Ok(FaultRule { when, times, fault }) => {
            service.fail(when, times, fault);
            StatusCode::NO_CONTENT.into_response()
        }
        Err(reason) => (StatusCode::BAD_REQUEST, Body::from(reason.to_string())).into_response(),
    }
}

async fn clear_faults(State(service): State<Service>) -> StatusCode {
    service.0.faults.lock().expect("no holder panics").clear();
    StatusCode::NO_CONTENT
}
