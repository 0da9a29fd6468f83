use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::ExecutionId;
use crate::definition::ScheduleConfig;

fn at(text: &str) -> Time {
    text.parse().unwrap()
}

fn config(fields: Value) -> ScheduleConfig {
    serde_json::from_value(fields).unwrap()
}

fn schedule(fields: Value) -> Schedule {
    let name = "report".parse().unwrap();
    Schedule::from_config(
        name,
        "a".parse().unwrap(),
        &config(fields),
        at("2026-01-01T00:00:00Z"),
    )
    .unwrap()
}

fn cron(expression: &str, zone: &str) -> Schedule {
    schedule(json!({ "type": "cron", "cron": expression, "timezone": zone }))
}

fn times(schedule: &Schedule, after: &str, count: usize) -> Vec<String> {
    let zone = schedule.trigger.zone();
    schedule
        .fire_times(at(after))
        .take(count)
        .map(|time| zone.local(time))
        .collect()
}

/// Worked out by hand from the zones' rules.
#[test]
fn both_changes_of_the_clock_are_as_a_person_expects() {
    let berlin = "Europe/Berlin";
    // 29 March 2026: 02:00 to 03:00 is left out. 25 October: 02:00 to 03:00 comes twice.
    for (expression, after, expected) in [
        (
            "30 2 * * *",
            "2026-03-28T12:00:00Z",
            ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"],
        ),
        (
            "30 2 * * *",
            "2026-10-24T12:00:00Z",
            ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"],
        ),
        (
            "30 2,3 * * *",
            "2026-03-28T12:00:00Z",
            ["2026-03-29T03:00:00+02:00", "2026-03-29T03:30:00+02:00"],
        ),
        (
            "0 2,3 * * *",
            "2026-03-28T12:00:00Z",
            ["2026-03-29T03:00:00+02:00", "2026-03-30T02:00:00+02:00"],
        ),
        (
            "*/30 2 * * *",
            "2026-03-28T12:00:00Z",
            ["2026-03-30T02:00:00+02:00", "2026-03-30T02:30:00+02:00"],
        ),
        (
            "*/30 * * * *",
            "2026-03-29T00:30:00Z",
            ["2026-03-29T03:00:00+02:00", "2026-03-29T03:30:00+02:00"],
        ),
    ] {
        assert_eq!(
            times(&cron(expression, berlin), after, 2),
            expected,
            "{expression} after {after}"
        );
    }
    assert_eq!(
        times(&cron("*/30 2 * * *", berlin), "2026-10-24T12:00:00Z", 4),
        [
            "2026-10-25T02:00:00+02:00",
            "2026-10-25T02:30:00+02:00",
            "2026-10-25T02:00:00+01:00",
            "2026-10-25T02:30:00+01:00"
        ]
    );
    // Lord Howe moves by half an hour; New York in other weeks than Berlin; Kolkata never.
    assert_eq!(
        times(
            &cron("15 2 * * *", "Australia/Lord_Howe"),
            "2026-10-03T00:00:00Z",
            2
        ),
        ["2026-10-04T02:30:00+11:00", "2026-10-05T02:15:00+11:00"]
    );
    assert_eq!(
        times(
            &cron("30 1 * * *", "America/New_York"),
            "2026-10-31T12:00:00Z",
            2
        ),
        ["2026-11-01T01:30:00-04:00", "2026-11-02T01:30:00-05:00"]
    );
    assert_eq!(
        times(&cron("@daily", "Asia/Kolkata"), "2026-03-28T18:30:00Z", 1),
        ["2026-03-30T00:00:00+05:30"]
    );
}

#[test]
fn expressions_say_what_crons_readers_think() {
    let utc =
        |expression: &str, count| times(&cron(expression, "UTC"), "2026-01-01T00:00:00Z", count);
    assert_eq!(
        utc("*/15 * * * * *", 2),
        ["2026-01-01T00:00:15+00:00", "2026-01-01T00:00:30+00:00"]
    );
    assert_eq!(
        utc("0 9 * * 1-5", 2),
        ["2026-01-01T09:00:00+00:00", "2026-01-02T09:00:00+00:00"]
    );
    assert_eq!(utc("0 9 * * MON", 1), ["2026-01-05T09:00:00+00:00"]);
    assert_eq!(utc("0 0 L * *", 1), ["2026-01-31T00:00:00+00:00"]);
    assert_eq!(utc("0 0 29 2 *", 1), ["2028-02-29T00:00:00+00:00"]);
    assert_eq!(utc("@weekly", 1), ["2026-01-04T00:00:00+00:00"]);
    assert_eq!(utc("@Midnight", 1), ["2026-01-02T00:00:00+00:00"]);
    // Day of month and weekday: either, as cron has it.
    assert_eq!(
        utc("0 0 13 * 5", 2),
        ["2026-01-02T00:00:00+00:00", "2026-01-09T00:00:00+00:00"]
    );
}

/// What a person may write, and what they are told.
fn refused() -> Vec<(Value, &'static str)> {
    vec![
        (
            json!({ "type": "cron", "cron": "0 0 30 2 *" }),
            "never fires",
        ),
        (
            json!({ "type": "cron", "cron": "0 0 31 4,6,9,11 *" }),
            "never fires",
        ),
        (
            json!({ "type": "cron", "cron": "0 0 6 * * * 2027" }),
            "has 7 fields",
        ),
        (json!({ "type": "cron", "cron": "0 6 * *" }), "has 4 fields"),
        (json!({ "type": "cron", "cron": "" }), "has 0 fields"),
        (
            json!({ "type": "cron", "cron": "61 * * * *" }),
            "can't be understood",
        ),
        (
            json!({ "type": "cron", "cron": "* * * * FOO" }),
            "can't be understood",
        ),
        (
            json!({ "type": "cron", "cron": "@dayly" }),
            "did you mean @daily?",
        ),
        (
            json!({ "type": "cron", "cron": "* ".repeat(200) }),
            "at most 200",
        ),
        (json!({ "type": "cron" }), "cron: it is missing"),
        (
            json!({ "type": "cron", "cron": "@daily", "timezone": "Europe/Berln" }),
            "did you mean Europe/Berlin",
        ),
        (
            json!({ "type": "cron", "cron": "@daily", "timezone": "Berlin" }),
            "Europe/Berlin",
        ),
        (
            json!({ "type": "cron", "cron": "@daily", "timezone": "Mars/Olympus" }),
            "IANA",
        ),
        (
            json!({ "type": "cron", "cron": "@daily", "interval_seconds": 5 }),
            "interval_seconds: it has no meaning",
        ),
        (
            json!({ "type": "interval", "interval_seconds": 0 }),
            "0 is out of range",
        ),
        (
            json!({ "type": "interval", "interval_seconds": u64::MAX }),
            "out of range",
        ),
        (
            json!({ "type": "interval" }),
            "interval_seconds: it is missing",
        ),
        (
            json!({ "type": "interval", "interval_seconds": 5, "timeout_seconds": 0 }),
            "timeout_seconds",
        ),
        (
            json!({ "type": "interval", "interval_seconds": 5, "jitter_seconds": 86_401 }),
            "jitter_seconds",
        ),
        (json!({ "type": "once", "at": "tomorrow" }), "is not a time"),
        (json!({ "type": "once" }), "at: it is missing"),
    ]
}

#[test]
fn what_can_not_be_is_refused_with_what_to_do() {
    let flaw = |fields: Value| {
        let flaws = Trigger::from_config(&config(fields.clone()), Time::UNIX_EPOCH)
            .expect_err(&fields.to_string());
        let first = &flaws[0];
        format!("{}: {}; {}", first.field, first.message, first.hint)
    };
    let began = std::time::Instant::now();
    for (fields, said) in refused() {
        let found = flaw(fields.clone());
        assert!(found.contains(said), "{fields}: {found}");
    }
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
}

#[test]
fn once_is_a_moment_of_its_zone() {
    let once =
        |at: &str| schedule(json!({ "type": "once", "at": at, "timezone": "Europe/Berlin" }));
    for (text, moment) in [
        ("2026-07-01T09:00:00", "2026-07-01T07:00:00Z"),
        ("2026-07-01 09:00", "2026-07-01T07:00:00Z"),
        ("2026-07-01T09:00:00-05:00", "2026-07-01T14:00:00Z"),
        ("2026-03-29T02:30:00", "2026-03-29T01:00:00Z"),
        ("2026-10-25T02:30:00", "2026-10-25T00:30:00Z"),
    ] {
        let all: Vec<_> = once(text).fire_times(Time::UNIX_EPOCH).collect();
        assert_eq!(all, [at(moment)], "{text}");
    }
}

#[test]
fn a_schedule_reads_back() {
    for fields in [
        json!({ "type": "cron", "cron": "0 6 * * *", "timezone": "Europe/Berlin" }),
        json!({ "type": "interval", "interval_seconds": 30, "misfire_policy": "all" }),
        json!({ "type": "once", "at": "2026-07-01T09:00:00Z", "overlap_policy": "queue" }),
    ] {
        let schedule = schedule(fields);
        let text = serde_json::to_string(&schedule).unwrap();
        assert_eq!(serde_json::from_str::<Schedule>(&text).unwrap(), schedule);
    }
}

fn standing(cursor: &str, now: &str) -> Standing<'static> {
    Standing {
        cursor: at(cursor),
        now: at(now),
        running: &[],
        waiting: &[],
    }
}

fn every_minute(misfire: &str, overlap: &str) -> Schedule {
    schedule(
        json!({ "type": "interval", "interval_seconds": 60, "misfire_policy": misfire, "overlap_policy": overlap }),
    )
}

/// A plan in a line: `+` starts, `w` waits, else the reason's word.
fn shown(plan: &Plan) -> String {
    let word = |planned: &Planned| match &planned.act {
        Act::Start => "+",
        Act::Wait => "w",
        Act::Skip(reason) => reason.as_str(),
    };
    plan.planned.iter().map(word).collect::<Vec<_>>().join(" ")
}

#[test]
fn misfires_are_skipped_taken_together_or_made_up_for() {
    let (cursor, now) = ("2026-01-01T10:00:00Z", "2026-01-01T10:04:10Z");
    for (misfire, expected) in [
        ("skip", "misfire misfire misfire +"),
        ("once", "coalesced coalesced coalesced +"),
        ("all", "+ w w skip-overlap"),
    ] {
        let plan = plan(&every_minute(misfire, "skip"), standing(cursor, now));
        assert_eq!(
            shown(&plan),
            expected.replace("skip-overlap", "overlap"),
            "{misfire}"
        );
        assert_eq!(plan.cursor, at("2026-01-01T10:04:00Z"));
        assert_eq!(plan.next_due, Some(at("2026-01-01T10:05:00Z")));
    }
    // Nothing is on time any more: the next one is a minute away, and this one was noticed late.
    let hourly = schedule(json!({ "type": "interval", "interval_seconds": 3600 }));
    let late = plan(
        &hourly,
        standing("2026-01-01T10:00:00Z", "2026-01-01T11:01:01Z"),
    );
    assert_eq!(shown(&late), "misfire");
    let in_time = plan(
        &hourly,
        standing("2026-01-01T10:00:00Z", "2026-01-01T11:01:00Z"),
    );
    assert_eq!(shown(&in_time), "+");
    let hourly =
        schedule(json!({ "type": "interval", "interval_seconds": 3600, "misfire_policy": "once" }));
    let late = plan(
        &hourly,
        standing("2026-01-01T10:00:00Z", "2026-01-01T13:30:00Z"),
    );
    assert_eq!(shown(&late), "coalesced coalesced +");
}

#[test]
fn a_run_that_has_not_ended_is_in_the_way() {
    let running = [ExecutionId::from_uuid(uuid::Uuid::from_u128(1))];
    let waiting = [at("2026-01-01T10:00:00Z")];
    let look = |overlap: &str, running: &'static [ExecutionId], waiting: &[Time]| {
        let standing = Standing {
            cursor: at("2026-01-01T10:00:00Z"),
            now: at("2026-01-01T10:01:00Z"),
            running,
            waiting,
        };
        plan(&every_minute("skip", overlap), standing)
    };
    let running: &'static [ExecutionId] = Box::leak(Box::new(running));
    assert_eq!(shown(&look("skip", running, &[])), "overlap");
    assert_eq!(shown(&look("queue", running, &[])), "w");
    let cancelling = look("cancel", running, &[]);
    assert_eq!(
        (shown(&cancelling), cancelling.cancel),
        ("+".to_owned(), running.to_vec())
    );
    // The one that waits begins as soon as nothing runs, and the next one stands behind it.
    let next = look("queue", &[], &waiting);
    assert_eq!(
        (next.begin, shown(&next)),
        (Some(waiting[0]), "w".to_owned())
    );
    let full = vec![waiting[0]; MAX_WAITING];
    assert_eq!(shown(&look("queue", running, &full)), "queue_full");
    assert_eq!(look("queue", running, &full).begin, None);
}

#[test]
fn a_year_without_anybody_ends_in_a_bounded_list() {
    let each_second =
        schedule(json!({ "type": "cron", "cron": "* * * * * *", "misfire_policy": "all" }));
    let began = std::time::Instant::now();
    let plan = plan(
        &each_second,
        standing("2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
    );
    assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
    assert_eq!(plan.planned.len(), 1 + 900);
    assert!(matches!(
        plan.planned[0].act,
        Act::Skip(SkipReason::Summed { count: 10_000, .. })
    ));
    assert_eq!(plan.planned[0].fire_time, at("2026-01-01T00:00:01Z"));
    assert_eq!(plan.cursor, at("2027-01-01T00:00:00Z"));
}

#[test]
fn a_clock_that_goes_back_makes_nothing_due() {
    let plan = plan(
        &every_minute("all", "skip"),
        standing("2026-01-01T10:00:00Z", "2026-01-01T09:00:00Z"),
    );
    assert!(plan.planned.is_empty());
    assert_eq!(plan.cursor, at("2026-01-01T10:00:00Z"));
}

fn any_schedule() -> impl Strategy<Value = Schedule> {
    let cron = (0..60u32, 0..24u32, prop::sample::select(vec!["*", "1", "28", "L", "*/7"]), prop::sample::select(vec!["*", "MON", "1-5"]))
        .prop_map(|(minute, hour, day, weekday)| json!({ "type": "cron", "cron": format!("{minute} {hour} {day} * {weekday}") }));
    let steps =
        (1..60u32).prop_map(|step| json!({ "type": "cron", "cron": format!("*/{step} * * * *") }));
    let interval =
        (1..100_000u64).prop_map(|n| json!({ "type": "interval", "interval_seconds": n }));
    let zone = prop::sample::select(vec![
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "Australia/Lord_Howe",
        "Asia/Kolkata",
    ]);
    let policies = (
        prop::sample::select(vec!["skip", "once", "all"]),
        prop::sample::select(vec!["skip", "queue", "cancel"]),
        0..5000u64,
    );
    (prop_oneof![cron, steps, interval], zone, policies).prop_map(
        |(mut fields, zone, (misfire, overlap, jitter))| {
            fields["timezone"] = json!(zone);
            fields["misfire_policy"] = json!(misfire);
            fields["overlap_policy"] = json!(overlap);
            fields["jitter_seconds"] = json!(jitter);
            schedule(fields)
        },
    )
}

fn any_time() -> impl Strategy<Value = Time> {
    (1_767_000_000i64..1_830_000_000).prop_map(|seconds| Time::from_timestamp(seconds, 0).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn fire_times_ascend_and_come_due_in_their_order(schedule in any_schedule(), after in any_time()) {
        let times: Vec<Time> = schedule.fire_times(after).take(20).collect();
        prop_assert_eq!(times.len(), 20);
        prop_assert!(times[0] > after);
        for pair in times.windows(2) {
            prop_assert!(pair[0] < pair[1]);
            let due = schedule.due_at(pair[0]);
            prop_assert!(pair[0] <= due && due < pair[1]);
        }
        // From wherever one asks, the next one is the same.
        for pair in times.windows(2) {
            let between = pair[0] + (pair[1] - pair[0]) / 2;
            prop_assert_eq!(schedule.next_after(between), Some(pair[1]));
        }
    }

    /// However often and whenever one looks: each fire time is dealt with once, in order, none is left out.
    #[test]
    fn every_fire_time_is_dealt_with_once(
        schedule in any_schedule(), start in any_time(), gaps in prop::collection::vec(0..200_000i64, 1..12),
    ) {
        let (mut cursor, mut now) = (start, start);
        let mut handled = Vec::new();
        for gap in gaps {
            now += TimeDelta::seconds(gap);
            let plan = plan(&schedule, Standing { cursor, now, running: &[], waiting: &[] });
            prop_assert!(plan.next_due.is_none_or(|next| next > now));
            prop_assert!(plan.planned.iter().all(|p| p.fire_time <= now));
            handled.extend(plan.planned.iter().map(|p| (p.fire_time, p.act.clone())));
            cursor = plan.cursor;
        }
        let expected: Vec<Time> = schedule.fire_times(start).take_while(|t| schedule.due_at(*t) <= now).collect();
        let is_summed = handled.iter().any(|(_, act)| matches!(act, Act::Skip(SkipReason::Summed { .. })));
        if !is_summed {
            prop_assert_eq!(handled.iter().map(|(time, _)| *time).collect::<Vec<_>>(), expected);
        }
    }
}
