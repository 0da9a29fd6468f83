//! Faults that are built into the simulated servers on purpose, to see that the audit finds them.

/// What is wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Plant {
    /// Nothing.
    #[default]
    None,
    /// The database takes writes and renewals whatever epoch they carry.
    NoFence,
    /// The database ends executions without keeping the events that go out with it.
    NoOutbox,
    /// Work is found only when its hint came through: neither signal nor poll finds the rest.
    OnlyHinted,
    /// The database does not see that an event has started an agent already.
    TwicePerEvent,
    /// The database keeps wishes that an execution end, and tells its owner of none.
    DeafToCancel,
}
