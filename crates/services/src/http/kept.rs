//! A view that many ask for at once, made anew as often as that is worth.
//!
//! Who asks now and then is told how it is: what was written before one asked is in the answer. Under a stream of requests
//! a view is made [`PER_SECOND`] times a second, and the others are given the last one, so that what they cost together
//! does not grow with their number.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How often a view is made anew while many ask, so that the last one is half a second old at most.
const PER_SECOND: u32 = 2;
/// How many may ask in a row, after a rest, and each be told how it is now.
const AT_ONCE: u32 = 10;

/// The last view, and when the next may be made.
pub(crate) struct Kept<T> {
    state: Mutex<State<T>>,
    /// One makes a view at a time.
    making: tokio::sync::Mutex<()>,
}

struct State<T> {
    last: Option<View<T>>,
    /// When all views that were made are paid for: the generic cell rate algorithm (ITU-T I.371, virtual scheduling).
    paid: Option<Instant>,
}

struct View<T> {
    begun: Instant,
    view: Arc<T>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        let (last, paid) = (None, None);
        Self {
            state: Mutex::new(State { last, paid }),
            making: tokio::sync::Mutex::default(),
        }
    }
}

impl<T> State<T> {
    /// Whether one more may be made now.
    fn pay(&mut self, now: Instant) -> bool {
        let each = Duration::from_secs(1) / PER_SECOND;
        let paid = self.paid.map_or(now, |paid| paid.max(now));
        let may = paid <= now + each * (AT_ONCE - 1);
        if may {
            self.paid = Some(paid + each);
        }
        may
    }

    fn last(&self) -> Option<Arc<T>> {
        self.last.as_ref().map(|last| last.view.clone())
    }
}

impl<T> Kept<T> {
    /// The view as it is now or, when many ask, as it was within the last half second or while it was last made.
    ///
    /// # Errors
    /// Those of `make`.
    pub(crate) async fn get<E, F: Future<Output = Result<T, E>>>(
        &self,
        make: impl FnOnce() -> F,
    ) -> Result<Arc<T>, E> {
        let asked = Instant::now();
        if let Some(last) = self.unless_paid(asked) {
            return Ok(last);
        }
        let _one = self.making.lock().await;
        let since = |last: &&View<T>| last.begun >= asked;
        if let Some(made) = self.lock().last.as_ref().filter(since) {
            return Ok(made.view.clone());
        }
        let begun = Instant::now();
        let view = Arc::new(make().await?);
        self.lock().last = Some(View {
            begun,
            view: view.clone(),
        });
        Ok(view)
    }

    /// The last view, when none may be made now.
    fn unless_paid(&self, now: Instant) -> Option<Arc<T>> {
        let mut state = self.lock();
        let last = state.last()?;
        (!state.pay(now)).then_some(last)
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// What is looked at, and how often it was.
    #[derive(Default)]
    struct World {
        now: AtomicU64,
        looks: AtomicU64,
    }

    impl World {
        async fn look(&self) -> Result<u64, Infallible> {
            let seen = self.now.load(Ordering::Relaxed);
            self.looks.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok(seen)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_now_and_then_is_told_how_it_is_now() {
        let (kept, world) = (Kept::default(), World::default());
        for now in 0..100 {
            world.now.store(now, Ordering::Relaxed);
            let seen = *kept.get(|| world.look()).await.unwrap();
            assert_eq!(seen, now);
            tokio::time::sleep(Duration::from_millis(480)).await;
        }
        assert_eq!(world.looks.load(Ordering::Relaxed), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn many_cost_what_a_few_do_and_are_told_of_the_last_half_second() {
        let (kept, world) = (Kept::default(), World::default());
        for now in 0..3_000_u64 {
            world.now.store(now, Ordering::Relaxed);
            let seen = *kept.get(|| world.look()).await.unwrap();
            assert!(now - seen <= 60, "{now} is told of {seen}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let looks = world.looks.load(Ordering::Relaxed);
        assert!((60..=75).contains(&looks), "{looks} looks in 30 s");
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_ask_at_once_share_one_that_was_begun_after_they_asked() {
        let (kept, world) = (Kept::default(), World::default());
        let ask = || async { *kept.get(|| world.look()).await.unwrap() };
        let late = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            world.now.store(7, Ordering::Relaxed);
            tokio::join!(ask(), ask(), ask())
        };
        let (first, late) = tokio::join!(ask(), late);
        assert_eq!((first, late), (0, (7, 7, 7)));
        assert_eq!(world.looks.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_told_and_tried_again() {
        let kept = Kept::default();
        let failed = kept.get(|| async { Err::<u64, _>("down") }).await;
        assert_eq!(failed.unwrap_err(), "down");
        let made = kept.get(|| async { Ok::<_, &str>(3) }).await;
        assert_eq!(*made.unwrap(), 3);
    }
}
