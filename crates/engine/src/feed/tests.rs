//! What happens is told once, or that it is missing, wherever a reader goes.

use std::collections::BTreeSet;
use std::sync::Arc;

use domain::{Status, WorkerId};
use proptest::prelude::*;

use super::cursor::{Cursor, Source};
use super::ring::{Reader, Ring, Told};
use super::{Happened, Note};

fn source(n: u32) -> Source {
    let worker: WorkerId = format!("worker-{n}").parse().unwrap();
    Source::of(&worker)
}

/// A note that can be told from others.
fn note(source: u32, n: u64) -> Arc<Note> {
    let id = domain::ExecutionId::from_uuid(uuid::Uuid::from_u128(
        u128::from(source) << 64 | u128::from(n),
    ));
    Arc::new(Note {
        at: "2026-11-30T09:30:00Z".parse().unwrap(),
        agent_name: None,
        execution_id: Some(id),
        trace_id: None,
        what: Happened::Execution {
            status: Status::Running,
        },
    })
}

#[derive(Debug, Clone)]
enum Happens {
    /// A process notes something, and these two hear it, or not.
    Note(u32, [bool; 2]),
    /// A process says to both how far it has come.
    Reached(u32),
    Read,
    /// The reader goes on at the other process.
    Hop,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        6 => (0u32..3, prop::bool::weighted(0.9), prop::bool::weighted(0.9))
            .prop_map(|(source, a, b)| Happens::Note(source, [a, b])),
        2 => (0u32..3).prop_map(Happens::Reached),
        6 => Just(Happens::Read),
        2 => Just(Happens::Hop),
    ]
}

proptest! {
    #[test]
    fn each_note_is_told_once_or_there_is_a_gap(story in prop::collection::vec(happens(), 1..100)) {
        let mut rings = [Ring::default(), Ring::default()];
        let mut next = [0u64; 3];
        for ring in &mut rings {
            (0..3).for_each(|n| ring.reached(source(n), 0));
        }
        let mut reader = Reader::new(&rings[0], None);
        let mut place = 0;
        let (mut seen, mut made) = (BTreeSet::new(), BTreeSet::new());
        let (mut gaps, mut lost) = (0, 0);
        let mut take = |told: Told| match told {
            Told::Note(note) => assert!(seen.insert(note.execution_id), "twice"),
            Told::Gap => gaps += 1,
        };
        for what in story {
            match what {
                Happens::Note(from, heard) => {
                    let n = next[from as usize];
                    next[from as usize] += 1;
                    let note = note(from, n);
                    made.insert(note.execution_id);
                    for (ring, heard) in rings.iter_mut().zip(heard) {
                        if heard {
                            ring.add(source(from), n, note.clone());
                        } else {
                            lost += 1;
                        }
                    }
                }
                Happens::Reached(from) => {
                    rings.iter_mut().for_each(|ring| ring.reached(source(from), next[from as usize]));
                }
                Happens::Read => {
                    if let Some(told) = reader.next(&rings[place]) {
                        take(told);
                    }
                }
                Happens::Hop => {
                    place = 1 - place;
                    let cursor: Cursor = reader.cursor().to_string().parse().unwrap();
                    reader = Reader::new(&rings[place], Some(cursor));
                }
            }
        }
        for n in 0..3 {
            rings[place].reached(source(n), next[n as usize]);
        }
        while let Some(told) = reader.next(&rings[place]) {
            take(told);
        }
        prop_assert!(seen.is_subset(&made));
        prop_assert!(gaps > 0 || seen == made, "{} of {} and no gap", seen.len(), made.len());
        prop_assert!(lost > 0 || gaps == 0, "nothing was lost");
    }
}

#[test]
fn who_is_too_slow_or_comes_too_late_is_told_of_a_gap() {
    let mut ring = Ring::default();
    ring.reached(source(1), 0);
    let mut slow = Reader::new(&ring, None);
    for n in 0..20_000 {
        ring.add(source(1), n, note(1, n));
    }
    assert_eq!(slow.next(&ring), Some(Told::Gap));
    let rest = std::iter::from_fn(|| slow.next(&ring)).collect::<Vec<_>>();
    assert!(rest.len() < 10_000 && rest.iter().all(|told| *told != Told::Gap));
    assert_eq!(rest.last(), Some(&Told::Note(note(1, 19_999))));
    // A place that names somebody of whom nothing is known here.
    let unknown = "abc.5".parse().unwrap();
    let mut late = Reader::new(&ring, Some(unknown));
    assert_eq!(late.next(&ring), Some(Told::Gap));
}

#[test]
fn what_is_no_place_is_refused() {
    for bad in ["x", "1", "1.x", "1.2-", "", "1.2.3"] {
        assert!(bad.parse::<Cursor>().is_err(), "{bad:?}");
    }
    let cursor: Cursor = "1f.2a-3.0".parse().unwrap();
    assert_eq!(cursor.to_string(), "3.0-1f.2a");
}
