//! What an operator and the world do to the processes: in every minute each is stopped once, and killed once.

use std::time::{Duration, Instant};

use super::company::Company;
use super::part::End;

/// How long a round takes.
const ROUND: u64 = 60;

/// How often each process is stopped in this time, and how often it is killed.
pub(super) fn rounds(length: Duration) -> usize {
    usize::try_from(length.as_secs() / ROUND).map_or(1, |rounds| rounds.max(1))
}

/// Ends and starts every part, spread over the time. After one that was stopped another is killed, in each round another.
pub(super) async fn disturb(company: &Company, length: Duration) {
    let (count, rounds) = (company.count(), rounds(length));
    let blows = (0..rounds).flat_map(|round| {
        let killed = move |n| (n + round % (count - 1) + 1) % count;
        (0..count).flat_map(move |n| [(n, End::Stop), (killed(n), End::Kill)])
    });
    let pause = length / u32::try_from(2 * count * rounds + 1).expect("few");
    let began = Instant::now();
    for (n, (part, how)) in (1..).zip(blows) {
        tokio::time::sleep_until((began + pause * n).into()).await;
        company.restart(part, how).await;
    }
}
