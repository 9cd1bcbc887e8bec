//! Keeps all CPUs busy while tests run (`--loaded`): a test that fails only then depends on time.

use std::{
    hint,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Spinning ends after this time in any case.
const LONGEST: Duration = Duration::from_secs(2 * 3600);
/// Number of steps between two looks at the clock.
const STEPS: u32 = 100_000;

/// One spinning thread for each CPU, at normal priority, until this is dropped.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let count = thread::available_parallelism().map_or(1, usize::from);
        let threads = (0..count)
            .map(|_| {
                let stop = stop.clone();
                thread::spawn(move || spin(&stop))
            })
            .collect();
        println!("{count} threads keep all CPUs busy");
        Self { stop, threads }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that only spins does not panic.
            let _ = thread.join();
        }
    }
}

fn spin(stop: &AtomicBool) {
    let begun = Instant::now();
    while !stop.load(Ordering::Relaxed) && begun.elapsed() < LONGEST {
        for _ in 0..STEPS {
            hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_ends_when_it_is_dropped() {
        let load = Load::start();
        let stop = load.stop.clone();
        assert!(!load.threads.is_empty() && !stop.load(Ordering::Relaxed));
        drop(load);
        // Only this test holds a clone, so all threads have ended.
        assert_eq!(Arc::strong_count(&stop), 1);
    }
}
