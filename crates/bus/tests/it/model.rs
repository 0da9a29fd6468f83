//! Any sequence of calls does what a naive model of one queue after the other says.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bus::in_process::Settings;
use bus::{Bus, Consumer, Delivery, InProcess, MAX_ATTEMPTS, retry_delay};
use domain::{Topic, TopicPattern};
use futures::FutureExt;
use proptest::prelude::*;
use tokio::task::unconstrained;

use crate::support::{event, join};

const QUEUES: usize = 3;
const PREFETCH: usize = 3;
const CAPACITY: usize = 6;

#[derive(Debug, Clone)]
enum Call {
    Publish(&'static str),
    Want(usize, Vec<&'static str>),
    /// Asks the consumer of a queue for a delivery.
    Take(usize),
    /// Lets one of the deliveries in hand go, in one of four ways.
    LetGo(prop::sample::Index, Way),
    TakeDead,
    Wait(u64),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Done,
    Retry,
    Reject,
    Drop,
}

fn call() -> impl Strategy<Value = Call> {
    let topic = prop::sample::select(vec!["a", "a.b", "c"]);
    let pattern = prop::sample::select(vec!["a", "a.*", "a.#", "#", "c"]);
    let way = prop::sample::select(vec![Way::Done, Way::Retry, Way::Reject, Way::Drop]);
    prop_oneof![
        4 => topic.prop_map(Call::Publish),
        1 => (0..QUEUES, prop::collection::vec(pattern, 0..3)).prop_map(|(q, p)| Call::Want(q, p)),
        5 => (0..QUEUES).prop_map(Call::Take),
        5 => (any::<prop::sample::Index>(), way).prop_map(|(index, way)| Call::LetGo(index, way)),
        1 => Just(Call::TakeDead),
        2 => (1..9_u64).prop_map(Call::Wait),
    ]
}

/// What a delivery says: event, queue, attempt, reason.
type Said = (String, String, u32, Option<String>);

fn said(delivery: &Delivery) -> Said {
    (
        delivery.event.id.as_str().to_owned(),
        delivery.queue.clone(),
        delivery.attempt,
        delivery.reason.clone(),
    )
}

#[derive(Default)]
struct Model {
    now: u64,
    serial: u64,
    queues: [ModelQueue; QUEUES],
    dead: VecDeque<Said>,
}

#[derive(Default)]
struct ModelQueue {
    wants: Vec<TopicPattern>,
    ready: VecDeque<(String, u32)>,
    resting: BTreeMap<(u64, u64), (String, u32)>,
    in_hand: usize,
}

impl Model {
    /// Whether it is taken.
    fn publish(&mut self, id: &str, topic: &str) -> bool {
        let topic: Topic = topic.parse().unwrap();
        let mut wanting: Vec<_> = self
            .queues
            .iter_mut()
            .filter(|queue| queue.wants.iter().any(|pattern| pattern.matches(&topic)))
            .collect();
        let full = |queue: &&mut ModelQueue| {
            queue.ready.len() + queue.resting.len() + queue.in_hand >= CAPACITY
        };
        if wanting.iter().any(full) {
            return false;
        }
        for queue in &mut wanting {
            queue.ready.push_back((id.to_owned(), 1));
        }
        true
    }

    fn take(&mut self, number: usize) -> Option<Said> {
        let queue = &mut self.queues[number];
        if queue.in_hand == PREFETCH {
            return None;
        }
        while let Some(first) = queue.resting.first_entry() {
            if first.key().0 > self.now {
                break;
            }
            queue.ready.push_back(first.remove());
        }
        let (id, attempt) = queue.ready.pop_front()?;
        queue.in_hand += 1;
        Some((id, number.to_string(), attempt, None))
    }

    fn let_go(&mut self, (id, queue, attempt, _): Said, way: Way) {
        let queue_name = queue.clone();
        let queue = &mut self.queues[queue.parse::<usize>().unwrap()];
        queue.in_hand -= 1;
        let give_up = attempt == MAX_ATTEMPTS;
        match way {
            Way::Done => {}
            Way::Drop if !give_up => queue.ready.push_front((id, attempt + 1)),
            Way::Retry if !give_up => {
                self.serial += 1;
                let due = self.now + retry_delay(attempt).unwrap().as_secs();
                queue.resting.insert((due, self.serial), (id, attempt + 1));
            }
            Way::Drop | Way::Retry | Way::Reject => {
                let reason = (way != Way::Drop).then(|| "why".to_owned());
                self.dead.push_back((id, queue_name, attempt, reason));
            }
        }
    }
}

/// What is there now. Unconstrained: tokio's budget would make a ready delivery look absent.
fn poll(consumer: &mut Box<dyn Consumer>) -> Option<Delivery> {
    unconstrained(consumer.next())
        .now_or_never()
        .map(|delivery| delivery.expect("it is open"))
}

async fn run(calls: Vec<Call>) {
    let bus = InProcess::new(Settings {
        queue_capacity: CAPACITY,
        ..Settings::default()
    });
    let mut model = Model::default();
    let mut dead = bus.dead_letters().await.unwrap();
    let mut consumers = Vec::new();
    for number in 0..QUEUES {
        consumers.push(join(&bus, &number.to_string(), &[], PREFETCH).await);
    }
    let mut hands: Vec<Delivery> = Vec::new();
    for (number, call) in calls.into_iter().enumerate() {
        match call {
            Call::Publish(topic) => {
                let id = number.to_string();
                let taken = bus.publish(&event(&id, topic)).await.is_ok();
                assert_eq!(taken, model.publish(&id, topic), "publish {topic}");
            }
            Call::Want(queue, patterns) => {
                drop(join(&bus, &queue.to_string(), &patterns, 1).await);
                model.queues[queue].wants =
                    patterns.iter().map(|text| text.parse().unwrap()).collect();
            }
            Call::Take(queue) => {
                let delivery = poll(&mut consumers[queue]);
                assert_eq!(delivery.as_ref().map(said), model.take(queue));
                hands.extend(delivery);
            }
            Call::LetGo(index, way) => {
                if !hands.is_empty() {
                    let delivery = hands.swap_remove(index.index(hands.len()));
                    model.let_go(said(&delivery), way);
                    match way {
                        Way::Done => delivery.done(),
                        Way::Retry => delivery.retry("why"),
                        Way::Reject => delivery.reject("why"),
                        Way::Drop => drop(delivery),
                    }
                }
            }
            Call::TakeDead => {
                let letter = poll(&mut dead);
                let expected = model.dead.pop_front();
                assert_eq!(letter.is_some(), expected.is_some());
                if let (Some(letter), Some(mut expected)) = (letter, expected) {
                    // The bus finds words of its own for what was dropped each time.
                    expected.3 = expected.3.or_else(|| letter.reason.clone());
                    assert_eq!(said(&letter), expected);
                    assert!(letter.reason.is_some());
                    letter.done();
                }
            }
            Call::Wait(seconds) => {
                tokio::time::advance(Duration::from_secs(seconds)).await;
                model.now += seconds;
            }
        }
    }
}

proptest! {
    #[test]
    fn any_sequence_of_calls_agrees_with_the_model(
        wants in prop::collection::vec(prop::sample::select(vec!["a", "a.*", "#"]), QUEUES),
        calls in prop::collection::vec(call(), 1..120),
    ) {
        let first = wants.into_iter().enumerate().map(|(queue, pattern)| Call::Want(queue, vec![pattern]));
        let calls = first.chain(calls).collect();
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(run(calls));
    }
}
