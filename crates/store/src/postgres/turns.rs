//! Whose turn it is in a conversation: its executions are performed in order, one at a time.
//!
//! The row of a conversation is locked by whoever accepts an execution of it and by whoever ends the one that has the
//! turn, after the rows of executions and in the order of names. A statement that must see what came in before the lock
//! was had is another one than that which takes it.

use std::collections::{BTreeMap, HashMap, HashSet};

use domain::{ExecutionId, Time};
use uuid::Uuid;

use super::Postgres;
use super::connection::Conn;
use super::fault::{Outcome, internal};
use super::sql::{get, key};
use super::submit::Prepared;
use crate::{Result, Submitted, WhenBusy};

const RELEASE: &str = include_str!("sql/release.sql");
const SIT_DOWN: &str = include_str!("sql/sit_down.sql");
const TURNS: &str = include_str!("sql/turns.sql");

/// A conversation's name: its agent, and its own.
pub(super) type Name<'a> = (&'a str, &'a str);

/// How far a conversation is.
#[derive(Debug, Default)]
struct Progress {
    turn: Option<Uuid>,
    places: i64,
    /// How many wait; counted only where it may be many.
    waiting: u32,
    /// Those that this batch would like to have seated, in order.
    newcomers: Vec<Uuid>,
}

/// The conversations of a batch of submissions, locked.
#[derive(Debug, Default)]
pub(super) struct Seats<'a> {
    conversations: BTreeMap<Name<'a>, Progress>,
    /// Those for which there is no seat.
    pub(super) refused: HashMap<Uuid, Submitted>,
}

impl<'a> Seats<'a> {
    /// Locks the conversations of a batch, and finds out for whom there is a seat.
    pub(super) async fn reserve(conn: &mut Conn, batch: &[&'a Prepared]) -> Outcome<Self> {
        let mut wanted: BTreeMap<Name<'a>, Time> = BTreeMap::new();
        for prepared in batch {
            if let Some(name) = prepared.conversation() {
                wanted.entry(name).or_insert_with(|| prepared.accepted_at());
            }
        }
        let mut seats = Self::default();
        if wanted.is_empty() {
            return Ok(seats);
        }
        let most = batch.iter().map(|prepared| match prepared.when_busy() {
            WhenBusy::Queue { most } => most,
            WhenBusy::Refuse => WhenBusy::MOST,
        });
        let most = most.min().unwrap_or(WhenBusy::MOST);
        seats.conversations = look(conn, &wanted, most).await?;
        for prepared in batch {
            if let Some(name) = prepared.conversation() {
                seats.admit(name, prepared.id(), prepared.when_busy());
            }
        }
        Ok(seats)
    }

    fn admit(&mut self, name: Name<'a>, id: Uuid, when_busy: WhenBusy) {
        let progress = self.conversations.entry(name).or_default();
        let busy = progress.turn.or(progress.newcomers.first().copied());
        let refused = match (busy, when_busy) {
            (None, _) => None,
            (Some(busy), WhenBusy::Refuse) => Some(Submitted::Busy(ExecutionId::from_uuid(busy))),
            (Some(_), WhenBusy::Queue { most }) => {
                let seated = progress.newcomers.len() - usize::from(progress.turn.is_none());
                let waiting = progress
                    .waiting
                    .saturating_add(u32::try_from(seated).unwrap_or(u32::MAX));
                (waiting >= most).then_some(Submitted::Full { waiting })
            }
        };
        match refused {
            Some(refused) => drop(self.refused.insert(id, refused)),
            None => progress.newcomers.push(id),
        }
    }

    /// Seats those that were accepted.
    pub(super) async fn sit_down(self, conn: &mut Conn, new: &HashSet<Uuid>) -> Outcome<()> {
        let (mut ids, mut places, mut waits) = (Vec::new(), Vec::new(), Vec::new());
        let (mut agents, mut names, mut last) = (Vec::new(), Vec::new(), Vec::new());
        let (mut turns, mut turn_places) = (Vec::<Option<Uuid>>::new(), Vec::<Option<i64>>::new());
        for ((agent, name), mut progress) in self.conversations {
            let mut turn = None;
            let before = progress.places;
            for id in progress.newcomers.into_iter().filter(|id| new.contains(id)) {
                progress.places += 1;
                let has_turn = progress.turn.is_none();
                if has_turn {
                    progress.turn = Some(id);
                    turn = Some((id, progress.places));
                }
                ids.push(id);
                places.push(progress.places);
                waits.push(!has_turn);
            }
            if progress.places > before {
                agents.push(agent);
                names.push(name);
                last.push(progress.places);
                turns.push(turn.map(|(id, _)| id));
                turn_places.push(turn.map(|(_, place)| place));
            }
        }
        if ids.is_empty() {
            return Ok(());
        }
        conn.run(
            SIT_DOWN,
            &[
                &ids,
                &places,
                &waits,
                &agents,
                &names,
                &last,
                &turns,
                &turn_places,
            ],
        )
        .await?;
        Ok(())
    }
}

/// Locks conversations and looks how far they are.
async fn look<'a>(
    conn: &mut Conn,
    wanted: &BTreeMap<Name<'a>, Time>,
    most: u32,
) -> Outcome<BTreeMap<Name<'a>, Progress>> {
    let agents: Vec<&str> = wanted.keys().map(|(agent, _)| *agent).collect();
    let names: Vec<&str> = wanted.keys().map(|(_, name)| *name).collect();
    let times: Vec<Time> = wanted.values().copied().collect();
    conn.run(
        "INSERT INTO conversations AS c (agent_name, conversation_id, created_at, updated_at, messages)
         SELECT r.*, r.now, 0 FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS r (agent, name, now)
         ORDER BY r.agent, r.name
         ON CONFLICT (agent_name, conversation_id) DO UPDATE
             SET updated_at = greatest(c.updated_at, excluded.updated_at)",
        &[&agents, &names, &times],
    )
    .await?;
    let (mut found, over) = read(conn, wanted, (&agents, &names), most).await?;
    if !over.is_empty() {
        // Ended by a program of before, or by hand: the next one was not told.
        release(conn, &over).await?;
        found = read(conn, wanted, (&agents, &names), most).await?.0;
    }
    Ok(found)
}

/// How far conversations are, and those whose turn is that of an execution that is over.
type Found<'a> = (
    BTreeMap<Name<'a>, Progress>,
    BTreeMap<Name<'a>, (Uuid, Time)>,
);

async fn read<'a>(
    conn: &mut Conn,
    wanted: &BTreeMap<Name<'a>, Time>,
    (agents, names): (&[&str], &[&str]),
    most: u32,
) -> Outcome<Found<'a>> {
    let rows = conn
        .all(TURNS, &[&agents, &names, &i64::from(most)])
        .await?;
    let all: Vec<(&Name<'a>, &Time)> = wanted.iter().collect();
    let (mut found, mut over) = (BTreeMap::new(), BTreeMap::new());
    for row in &rows {
        let n = usize::try_from(get::<i64>(row, 0)? - 1).unwrap_or(usize::MAX);
        let (name, now) = all
            .get(n)
            .ok_or_else(|| internal("a conversation was found that nobody looked for"))?;
        let turn: Option<Uuid> = get(row, 1)?;
        let waiting: Option<i64> = get(row, 4)?;
        if let Some(turn) = turn
            && !get::<bool>(row, 3)?
        {
            over.insert(**name, (turn, **now));
        }
        let progress = Progress {
            turn,
            places: get(row, 2)?,
            waiting: u32::try_from(waiting.unwrap_or(0)).unwrap_or(u32::MAX),
            newcomers: Vec::new(),
        };
        found.insert(**name, progress);
    }
    Ok((found, over))
}

/// Gives the turn to the next, where it was that of the execution that is over. The conversations are locked. Tells
/// whether something became due.
pub(super) async fn release(
    conn: &mut Conn,
    over: &BTreeMap<Name<'_>, (Uuid, Time)>,
) -> Outcome<bool> {
    if over.is_empty() {
        return Ok(false);
    }
    let agents: Vec<&str> = over.keys().map(|(agent, _)| *agent).collect();
    let names: Vec<&str> = over.keys().map(|(_, name)| *name).collect();
    let ids: Vec<Uuid> = over.values().map(|(id, _)| *id).collect();
    let times: Vec<Time> = over.values().map(|(_, now)| *now).collect();
    let rows = conn.all(RELEASE, &[&agents, &names, &ids, &times]).await?;
    let mut is_due = false;
    for row in &rows {
        is_due |= get::<bool>(row, 0)?;
    }
    Ok(is_due)
}

impl Postgres {
    pub(super) async fn before(&self, id: ExecutionId) -> Result<Vec<ExecutionId>> {
        let mut conn = self.pool.get().await?;
        let rows = conn
            .all(
                "WITH this AS MATERIALIZED (
                     SELECT agent_name, conversation_id, place FROM executions WHERE id = $1
                 )
                 SELECT e.id FROM this JOIN executions e
                     ON e.agent_name = this.agent_name AND e.conversation_id = this.conversation_id
                         AND e.place < this.place AND e.waits_turn AND e.finished_at IS NULL
                 UNION ALL
                 SELECT e.id FROM this JOIN conversations c
                     ON c.agent_name = this.agent_name AND c.conversation_id = this.conversation_id
                 JOIN executions e ON e.id = c.turn AND e.finished_at IS NULL AND e.place < this.place",
                &[&key(id)],
            )
            .await?;
        let id = |row| Ok(ExecutionId::from_uuid(get(row, 0)?));
        rows.iter().map(id).collect()
    }
}
