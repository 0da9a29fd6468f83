//! Whatever is lost between processes, and wherever a reader goes: what it holds is what was committed.

use std::sync::Arc;

use domain::definition::Provider;
use domain::message::Reply;
use domain::step::{ModelCall, StepBody};
use domain::{Epoch, Purpose, Seq, Step, StopReason, Usage};
use proptest::prelude::*;

use super::pieces::{Mark, Piece, Pieces, Taken};
use super::reader::Reader;
use super::{LiveEvent, Position};

fn step(seq: Seq, body: StepBody) -> Arc<Step> {
    let at = "2026-11-30T09:30:00Z".parse().unwrap();
    let epoch = Epoch::new(1);
    Arc::new(Step {
        seq,
        at,
        epoch,
        body,
    })
}

fn said(text: &str) -> StepBody {
    StepBody::ModelCall(Box::new(ModelCall {
        purpose: Purpose::Turn,
        provider: Provider::Scripted,
        model: "m".to_owned(),
        reply: Reply {
            text: text.to_owned(),
            tool_calls: Vec::new(),
            stop: StopReason::EndTurn,
            provider_data: None,
        },
        targets: Vec::new(),
        violations: Vec::new(),
        structured: None,
        usage: Usage::default(),
        cost_usd: None,
        took_ms: 1,
        first_token_ms: None,
    }))
}

/// One who performs the execution, or did.
#[derive(Clone)]
struct Owner {
    pieces: Pieces,
    words: String,
}

impl Owner {
    fn new(committed: Seq, epoch: u32) -> Self {
        let mut pieces = Pieces::new(committed, epoch * 256);
        pieces.begin(committed.plus(1));
        Self {
            pieces,
            words: String::new(),
        }
    }

    fn commit(&mut self, seq: Seq) {
        self.pieces.commit(seq);
        self.pieces.begin(seq.plus(1));
        self.words.clear();
    }
}

/// What one process knows of another's words, and how far that one thinks it does.
struct Mirror {
    pieces: Pieces,
    told: Mark,
}

impl Mirror {
    fn new() -> Self {
        let pieces = Pieces::new(Seq::new(0), 0);
        let told = pieces.mark();
        Self { pieces, told }
    }

    fn is_told(&mut self, owner: &Owner, is_lost: bool) {
        let part = owner.pieces.since(Some(self.told), 40);
        self.told = Mark {
            seq: part.seq,
            attempt: part.attempt,
            pieces: part.end(),
        };
        if !is_lost && self.pieces.take(part) == Taken::Hole {
            self.told = self.pieces.mark();
        }
    }
}

/// A client, by the rule of the API's documentation.
#[derive(Default)]
struct Client {
    at: Option<Position>,
    steps: u32,
    held: String,
}

impl Client {
    fn takes(&mut self, event: &LiveEvent) {
        self.at = Some(event.position());
        match event {
            LiveEvent::Delta { position, text } => {
                assert_eq!(position.seq, Seq::new(self.steps + 1));
                self.held.push_str(text);
            }
            LiveEvent::Supersede { position } => {
                assert_eq!(position.seq, Seq::new(self.steps + 1));
                self.held.clear();
            }
            LiveEvent::ToolCallBegins { .. } => {}
            LiveEvent::Step(step) => {
                assert_eq!(
                    step.seq,
                    Seq::new(self.steps + 1),
                    "each step once, in order"
                );
                let text = match &step.body {
                    StepBody::ModelCall(call) => call.reply.text.as_str(),
                    _ => "",
                };
                assert!(text.starts_with(&self.held), "{:?} of {text:?}", self.held);
                self.held.clear();
                self.steps += 1;
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Happens {
    Say(String),
    Again,
    GivenUp,
    Commit,
    Takeover,
    /// An owner of before still speaks; to this process.
    Zombie(usize),
    Tell(usize, bool),
    Poll,
    Hear,
    Hop(usize),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        6 => "[a-zé]{1,6}".prop_map(Happens::Say),
        1 => Just(Happens::Again),
        1 => Just(Happens::GivenUp),
        2 => Just(Happens::Commit),
        1 => Just(Happens::Takeover),
        1 => (0usize..2).prop_map(Happens::Zombie),
        6 => (0usize..2, prop::bool::weighted(0.3)).prop_map(|(to, lost)| Happens::Tell(to, lost)),
        2 => Just(Happens::Poll),
        8 => Just(Happens::Hear),
        2 => (0usize..3).prop_map(Happens::Hop),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn what_a_client_holds_is_what_is_committed(story in prop::collection::vec(happens(), 1..120)) {
        let mut journal: Vec<Arc<Step>> = Vec::new();
        let mut owner = Owner::new(Seq::new(0), 1);
        let mut zombie = Owner::new(Seq::new(0), 0);
        let mut epoch = 1;
        let mut mirrors = [Mirror::new(), Mirror::new()];
        let mut client = Client::default();
        let mut reader = Reader::new(None);
        // The third process is the owner's.
        let mut place = 0;
        for what in story {
            let next = Seq::new(u32::try_from(journal.len()).unwrap() + 1);
            match what {
                Happens::Say(words) => {
                    owner.pieces.push(Piece::Words(words.clone()));
                    owner.words.push_str(&words);
                }
                Happens::Again => {
                    owner.pieces.begin(next);
                    owner.words.clear();
                }
                Happens::GivenUp => {
                    journal.push(step(next, StepBody::Note { text: String::new() }));
                    owner.commit(next);
                }
                Happens::Commit => {
                    journal.push(step(next, said(&owner.words)));
                    owner.commit(next);
                }
                Happens::Takeover => {
                    epoch += 1;
                    let new = Owner::new(Seq::new(next.get() - 1), epoch);
                    zombie = std::mem::replace(&mut owner, new);
                }
                Happens::Zombie(to) => {
                    zombie.pieces.push(Piece::Words("zombie".to_owned()));
                    mirrors[to].is_told(&zombie, false);
                }
                Happens::Tell(to, lost) => mirrors[to].is_told(&owner, lost),
                Happens::Poll => {
                    while let Some(step) = journal.get(reader.last_step().get() as usize) {
                        client.takes(&reader.read(step));
                    }
                }
                Happens::Hear => {
                    let pieces = mirrors.get(place).map_or(&owner.pieces, |it| &it.pieces);
                    if let Some(event) = reader.hear(pieces) {
                        client.takes(&event);
                    }
                }
                Happens::Hop(to) => {
                    place = to;
                    // As it is written in an id.
                    let at = client.at.map(|at| at.to_string().parse().unwrap());
                    reader = Reader::new(at);
                }
            }
        }
        // Nothing is lost any more: everybody hears all of it.
        for _ in 0..100 {
            mirrors.iter_mut().for_each(|mirror| mirror.is_told(&owner, false));
        }
        while let Some(step) = journal.get(reader.last_step().get() as usize) {
            client.takes(&reader.read(step));
        }
        let pieces = mirrors.get(place).map_or(&owner.pieces, |it| &it.pieces);
        while let Some(event) = reader.hear(pieces) {
            client.takes(&event);
        }
        prop_assert_eq!(client.steps as usize, journal.len());
        if !owner.words.is_empty() {
            prop_assert_eq!(client.held, owner.words);
        }
    }
}

#[test]
fn a_hole_shows_no_broken_text() {
    let mut owner = Owner::new(Seq::new(0), 1);
    let mut mirror = Mirror::new();
    let mut reader = Reader::new(None);
    owner.pieces.push(Piece::Words("one ".to_owned()));
    mirror.is_told(&owner, false);
    owner.pieces.push(Piece::Words("two ".to_owned()));
    mirror.is_told(&owner, true);
    owner.pieces.push(Piece::Words("three".to_owned()));
    let part = owner.pieces.since(Some(mirror.told), 100);
    assert_eq!(mirror.pieces.take(part), Taken::Hole);
    assert!(
        matches!(reader.hear(&mirror.pieces), Some(LiveEvent::Delta { text, .. }) if text == "one ")
    );
    assert_eq!(reader.hear(&mirror.pieces), None, "not three before two");
    // It asks again, with what it has.
    let part = owner.pieces.since(Some(mirror.pieces.mark()), 100);
    assert_eq!(mirror.pieces.take(part), Taken::In);
    let rest: Vec<_> = std::iter::from_fn(|| reader.hear(&mirror.pieces)).collect();
    assert_eq!(rest.len(), 2);
}

#[test]
fn a_late_word_of_an_earlier_owner_changes_nothing() {
    let (mut first, mut second) = (Owner::new(Seq::new(0), 1), Owner::new(Seq::new(0), 2));
    let mut mirror = Mirror::new();
    second.pieces.push(Piece::Words("new".to_owned()));
    mirror.is_told(&second, false);
    first.pieces.push(Piece::Words("old".to_owned()));
    let before = mirror.pieces.clone();
    assert_eq!(mirror.pieces.take(first.pieces.since(None, 100)), Taken::In);
    assert_eq!(mirror.pieces, before);
    // Nor for a reader who knows more than the process that it comes to.
    let mut late = Mirror::new();
    late.is_told(&first, false);
    let mut reader = Reader::new(None);
    assert!(reader.hear(&mirror.pieces).is_some());
    assert_eq!(reader.hear(&late.pieces), None);
}

#[test]
fn a_flood_of_words_is_bounded_and_the_whole_comes_with_the_step() {
    let mut owner = Owner::new(Seq::new(0), 1);
    let line = "x".repeat(1 << 10);
    let mut reader = Reader::new(None);
    for _ in 0..4096 {
        owner.pieces.push(Piece::Words(line.clone()));
    }
    // After one that did not fit, none does: what is shown has no hole.
    owner.pieces.push(Piece::Words("x".repeat(10 << 20)));
    owner.pieces.push(Piece::Words(String::new()));
    owner.pieces.push(Piece::Words("y".to_owned()));
    let heard = std::iter::from_fn(|| reader.hear(&owner.pieces)).count();
    assert_eq!(heard, (2 << 20) / (1024 + size_of::<Piece>()));
    let whole = step(Seq::new(1), said(&line.repeat(4096)));
    assert_eq!(reader.read(&whole), LiveEvent::Step(whole));
}
