//! Those who use the services that no execution needs: they keep books at StateManager and ask ConfigService.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::agents::Kind;
use super::load::Load;
use super::role::Door;
use super::world::World;

/// How many books there are.
const BOOKS: usize = 3;
/// Between two visits of one visitor.
const PAUSE: Duration = Duration::from_millis(60);

/// All visitors.
pub(super) struct Visitors {
    world: Arc<World>,
    load: Arc<Load>,
    over: CancellationToken,
    /// How often somebody was answered.
    written: AtomicUsize,
    asked: AtomicUsize,
}

impl Visitors {
    pub(super) fn new(world: Arc<World>, load: Arc<Load>) -> Self {
        Self {
            world,
            load,
            over: CancellationToken::new(),
            written: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
        }
    }

    /// Nobody comes any more.
    pub(super) fn close(&self) {
        self.over.cancel();
    }

    /// They come until `close`.
    pub(super) async fn come_and_go(&self) {
        let books = (0..BOOKS).map(|n| self.keep_a_book(n));
        tokio::join!(futures::future::join_all(books), self.ask_about_agents());
    }

    pub(super) fn figures(&self) -> [(String, String); 2] {
        let (written, asked) = (&self.written, &self.asked);
        [
            ("states written", written),
            ("questions about agents", asked),
        ]
        .map(|(what, count)| (what.to_owned(), count.load(Ordering::Relaxed).to_string()))
    }

    /// Counts in a state: each write says which version it changes, so one that was lost or made twice shows.
    async fn keep_a_book(&self, n: usize) {
        let agent = Kind::Reader.name();
        let path = format!("/agents/{agent}/state?conversation_id=book-{n}");
        let read = async |n| {
            let get = |url: &str| self.world.client.get(format!("{url}{path}"));
            let (_, state) = self.load.insist(Door::States, n, &[200], get).await;
            (
                state["version"].as_u64(),
                state["state_data"]["count"].as_u64(),
            )
        };
        let mut count = 0;
        while !self.over.is_cancelled() {
            let body = json!({ "state_data": { "count": count + 1 }, "expected_version": count });
            let put = |url: &str| self.world.client.put(format!("{url}{path}")).json(&body);
            let turn = n + usize::try_from(count).expect("hundreds");
            let (status, written) = self
                .load
                .insist(Door::States, turn, &[200, 201, 409], put)
                .await;
            count += 1;
            // 409: it was written by a request whose answer was lost.
            let is_there = match status {
                409 => read(turn).await == (Some(count), Some(count)),
                _ => written["version"] == count,
            };
            if !is_there {
                let what = format!("book {n}: {count} was written, and it says {status} {written}");
                self.world.complain(what);
                return;
            }
            self.written.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(PAUSE).await;
        }
        let found = read(n).await;
        if count > 0 && found != (Some(count), Some(count)) {
            let what = format!("book {n}: {count} times written, and it holds {found:?}");
            self.world.complain(what);
        }
    }

    /// Every process knows every agent.
    async fn ask_about_agents(&self) {
        for n in 0.. {
            if self.over.is_cancelled() {
                return;
            }
            let get = |url: &str| self.world.client.get(format!("{url}/configs?limit=100"));
            let (_, all) = self.load.insist(Door::Configs, n, &[200], get).await;
            let count = all.as_array().map_or(0, Vec::len);
            if count != Kind::ALL.len() {
                self.world.complain(format!("there are {count} agents"));
            }
            let one = Kind::ALL[n % Kind::ALL.len()].name();
            let half = format!("name: {one}-2\nexecution_mode: autonomous\n");
            let post = |url: &str| {
                let request = self.world.client.post(format!("{url}/configs/validate"));
                request
                    .header("content-type", "application/yaml")
                    .body(half.clone())
            };
            let (_, said): (u16, Value) =
                self.load.insist(Door::Configs, n + 1, &[200], post).await;
            if said["valid"] != false {
                self.world
                    .complain(format!("half an agent is found to be: {said}"));
            }
            self.asked.fetch_add(2, Ordering::Relaxed);
            tokio::time::sleep(PAUSE).await;
        }
    }
}
