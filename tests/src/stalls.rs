//! Stalls of the machine, in which no program runs. Meanwhile an ejection ends that the agent renews each second, which
//! is no fault of the agent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::eventually::until;

/// The interval of the looks at the clock.
const INTERVAL: Duration = Duration::from_millis(10);
/// The shortest stall that matters: the kernel alone ejects a backend for 0.875 s or longer.
const LONG: Duration = Duration::from_millis(500);

/// A thread that looks at the clock every 10 ms. It ends when this is dropped.
#[derive(Debug)]
pub struct Stalls(Arc<Mutex<Looks>>);

#[derive(Debug)]
struct Looks {
    last: Instant,
    /// The longest time between two looks.
    longest: Duration,
}

impl Stalls {
    /// Starts the thread.
    #[must_use]
    pub fn watch() -> Self {
        let looks = Arc::new(Mutex::new(Looks { last: Instant::now(), longest: Duration::ZERO }));
        let weak = Arc::downgrade(&looks);
        thread::spawn(move || {
            while let Some(looks) = weak.upgrade() {
                lock(&looks).look();
                drop(looks);
                until(Instant::now() + INTERVAL);
            }
        });
        Self(looks)
    }

    /// Whether the machine has stalled for so long that an ejection may have ended before the agent renewed it.
    #[must_use]
    pub fn any_long(&self) -> bool {
        let mut looks = lock(&self.0);
        // The thread itself may not have run yet.
        looks.look();
        looks.longest > LONG
    }
}

impl Looks {
    fn look(&mut self) {
        let now = Instant::now();
        self.longest = self.longest.max(now - self.last);
        self.last = now;
    }
}

fn lock(looks: &Mutex<Looks>) -> MutexGuard<'_, Looks> {
    looks.lock().unwrap_or_else(PoisonError::into_inner)
}
