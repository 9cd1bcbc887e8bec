//! Tests share the machine: labs stand side by side, unless a test has it alone, since it measures or counts what is on the
//! whole machine.

use std::cell::Cell;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

static MACHINE: RwLock<()> = RwLock::new(());

thread_local! {
    /// How many turns this thread holds: one that has its turn does not wait for another.
    static HELD: Cell<u32> = const { Cell::new(0) };
}

/// The machine, shared or alone, until it is dropped.
#[derive(Debug)]
#[must_use = "others may begin when it is dropped"]
pub struct Turn {
    _shared: Option<RwLockReadGuard<'static, ()>>,
    _alone: Option<RwLockWriteGuard<'static, ()>>,
}

/// Waits until no lab of this process stands, and lets none but those of this thread begin.
///
/// To be taken before the first lab.
///
/// # Panics
/// If this thread has a lab already, which it would wait for.
pub fn alone() -> Turn {
    assert_eq!(HELD.get(), 0, "a test takes the machine for itself before it has a lab");
    Turn::hold(None, Some(MACHINE.write().unwrap_or_else(PoisonError::into_inner)))
}

impl Turn {
    /// Beside others, but for those who want to be alone.
    pub(super) fn shared() -> Self {
        let held = HELD.get() > 0;
        Self::hold((!held).then(|| MACHINE.read().unwrap_or_else(PoisonError::into_inner)), None)
    }

    fn hold(shared: Option<RwLockReadGuard<'static, ()>>, alone: Option<RwLockWriteGuard<'static, ()>>) -> Self {
        HELD.set(HELD.get() + 1);
        Self { _shared: shared, _alone: alone }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        HELD.set(HELD.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn whoever_is_alone_waits_for_all_and_all_wait_for_him_but_his_own_labs_do_not() {
        let (say, said) = mpsc::channel();
        thread::scope(|scope| {
            let first = Turn::shared();
            let says = say.clone();
            scope.spawn(move || {
                let alone = alone();
                let _own = (Turn::shared(), Turn::shared());
                says.send("alone").unwrap();
                drop(alone);
            });
            // Beside another one, on a thread of its own.
            scope.spawn(|| drop(MACHINE.try_read())).join().unwrap();
            assert!(MACHINE.try_write().is_err() && said.try_recv().is_err());
            drop(first);
            assert_eq!(said.recv().unwrap(), "alone");
        });
        assert_eq!(HELD.get(), 0);
    }
}
