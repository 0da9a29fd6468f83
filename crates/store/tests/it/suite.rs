//! What every store does, whatever it keeps things in. An adapter runs it with `behaviour!(ItsFixture)`.

pub(crate) mod append;
pub(crate) mod audits;
pub(crate) mod cancel;
pub(crate) mod claim;
pub(crate) mod cleanup;
pub(crate) mod damage;
pub(crate) mod errands;
pub(crate) mod given;
pub(crate) mod input;
pub(crate) mod keys;
pub(crate) mod memory;
pub(crate) mod outbox;
pub(crate) mod outgoing;
pub(crate) mod packing;
pub(crate) mod pins;
pub(crate) mod read;
pub(crate) mod schedules;
pub(crate) mod shared;
pub(crate) mod silence;
pub(crate) mod submit;
pub(crate) mod switches;
pub(crate) mod turns;
pub(crate) mod workers;

use std::sync::Arc;

use async_trait::async_trait;
use domain::{ExecutionId, Seq};
use store::Store;

/// An empty store of one kind, and what can be done to it behind its back.
#[async_trait]
pub(crate) trait Fixture: Sized + Send + Sync {
    /// An empty one.
    async fn open() -> Self;
    /// The store.
    fn store(&self) -> Arc<dyn Store>;
    /// Makes a step unreadable.
    async fn damage_step(&self, id: ExecutionId, seq: Seq);
    /// Takes a step away.
    async fn remove_step(&self, id: ExecutionId, seq: Seq);
    /// Makes what was asked unreadable.
    async fn damage_task(&self, id: ExecutionId);
}

macro_rules! behaviour {
    ($fixture:ty) => {
        behaviour! { $fixture;
            submit: accepted_work_is_due_at_once, the_same_id_is_accepted_once,
                fifty_concurrent_duplicates_are_one, another_body_under_the_same_key_is_refused,
                a_key_is_forgotten_after_a_day, one_agent_and_event_start_one_execution,
                what_can_not_be_read_again_is_refused,
                the_steps_of_an_origin_are_shared_in_the_same_transaction, what_is_not_there_is_not_shared;
            claim: concurrent_claimers_share_nothing, a_claim_begins_the_execution, a_lease_keeps_others_away,
                a_lost_lease_counts_a_crash_until_a_step_is_committed, handing_back_counts_no_crash,
                high_priority_goes_first, agents_take_turns, one_agents_flood_does_not_starve_another,
                the_longest_due_goes_first, a_hint_claims_only_what_it_names, modes_and_agents_can_be_left_out,
                renewing_extends_and_tells_the_news;
            append: steps_are_durable_and_in_order, a_late_append_changes_nothing, a_gap_is_refused,
                repeating_a_lost_answer_is_harmless, giving_up_the_lease_shuts_the_fence, parking_waits_for_its_time,
                a_wake_up_before_parking_is_not_slept_over, children_start_once_with_their_step,
                finishing_is_one_transaction, what_has_ended_stays_as_it_ended, the_end_of_a_child_wakes_its_parent,
                a_child_is_told_with_what_its_family_consumed,
                an_execution_can_not_be_parked_as_over;
            cancel: unbegun_work_ends_at_once, a_parked_execution_is_woken, a_leased_execution_is_told_at_renewal,
                what_is_over_stays_over, the_first_wish_counts, an_unbegun_child_that_ends_wakes_its_parent,
                a_wish_reaches_all_that_work_for_it;
            turns: one_conversation_is_performed_in_order, other_conversations_do_not_wait,
                whatever_ends_one_gives_the_turn_to_the_next, one_that_is_cancelled_while_it_waits_leaves_the_line_whole,
                the_deadline_of_one_that_waits_still_fires, many_submit_at_once_and_each_has_its_turn,
                ends_and_submissions_at_once_lose_nobody, as_many_wait_as_may, a_busy_conversation_can_refuse,
                a_refused_one_is_accepted_later_under_the_same_key, those_ahead_are_told,
                a_digest_takes_the_place_of_what_it_covers;
            input: an_answer_wakes_and_is_delivered_once, one_of_many_concurrent_answers_is_taken,
                an_answer_must_fit, several_open_requests_are_ambiguous, nothing_asked_is_told,
                too_late_is_too_late, what_waits_for_a_person_is_listed_page_by_page;
            outbox: events_go_out_in_order_until_they_are_done, an_event_that_waits_is_taken_once,
                an_id_never_names_another_event, a_claimed_event_is_one_relays, concurrent_relays_share_nothing,
                dead_letters_are_kept_listed_and_forgotten,
                commits_signal_events_and_work;
            memory: a_conversation_is_kept_in_order, a_conversation_says_when_it_has_changed, facts_are_kept_once_per_write, versions_of_definitions_are_kept,
                usage_adds_up_by_day_and_model, states_are_written_and_read, only_the_expected_version_is_changed,
                whoever_has_the_turn_owns_the_messages;
            shared: values_have_versions_and_a_repeated_write_is_one, only_the_expected_version_is_replaced,
                an_ended_team_shares_nothing_and_its_state_goes_with_it;
            read: executions_are_listed_newest_first_page_by_page, filters_select_and_count, stats_count_each_state,
                a_row_tells_how_it_stands, nothing_is_found_in_an_empty_store, a_closed_store_refuses;
            workers: a_worker_is_known_as_it_last_said_until_it_leaves,
                one_that_was_silent_for_long_is_forgotten_by_the_others, many_are_heard_at_once;
            cleanup: what_was_over_long_ago_goes_with_all_that_is_its, what_goes_on_keeps_its_children,
                much_goes_a_little_at_a_time;
            schedules: a_schedule_is_kept_as_it_was_seen, schedules_are_listed_by_name,
                a_fire_time_starts_one_execution_however_many_schedulers_act, one_firing_is_all_or_nothing,
                what_changed_since_it_was_seen_is_left_alone, a_fire_time_that_has_a_row_starts_nothing,
                a_waiting_run_is_found_when_nothing_is_before_it, a_skipped_run_keeps_its_reason,
                a_happening_that_was_acted_on_keeps_its_execution, due_ones_come_first_and_the_next_is_told,
                a_clock_that_went_back_is_noticed, old_runs_are_forgotten, a_forgotten_schedule_takes_its_runs_along;
            keys: a_key_is_kept_once_and_listed_newest_first, a_revoked_key_stays_revoked_by_the_first,
                what_can_be_used_now_is_told_apart, the_last_use_only_moves_on;
            pins: a_tool_that_changes_is_withheld_until_it_is_approved, that_a_tool_changed_is_told_once;
            switches: an_agent_that_was_disabled_stays_so_under_the_first_name,
                every_restart_counts_and_changes_nothing_else;
            errands: an_errand_is_taken_in_once_and_is_one_owners, only_its_owner_writes_to_an_errand,
                a_woken_errand_is_due_and_what_is_done_is_forgotten, concurrent_claims_of_errands_share_nothing;
            audits: acts_are_kept_once_and_listed_newest_first, acts_are_found_by_who_what_and_when,
                a_forgotten_beginning_leaves_its_mark;
            outgoing: an_end_is_to_be_told_from_the_moment_that_it_is_written, whatever_ends_an_execution_tells_of_it,
                a_delivery_is_one_senders_until_its_claim_runs_out, concurrent_senders_share_nothing,
                a_failed_try_is_kept_and_repeated_later, a_delivery_can_be_sent_again,
                deliveries_are_listed_newest_first_page_by_page, a_delivery_goes_with_its_execution,
                one_of_many_evaluators_keeps_what_it_found, the_vital_signs_are_read;
            damage: an_unreadable_step_ends_its_execution_alone, a_missing_step_ends_its_execution,
                an_unreadable_task_ends_its_execution, an_unreadable_row_hides_no_other;
        }
    };
    ($fixture:ty; $($module:ident: $($test:ident),+;)+) => {
        $(mod $module {
            #[allow(unused_imports, reason = "the fixture may be named by a path or not")]
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let fixture = <$fixture as $crate::suite::Fixture>::open().await;
                    $crate::suite::$module::$test(&fixture).await;
                }
            )+
        })+
    };
}
