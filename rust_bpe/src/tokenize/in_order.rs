//! Results that several threads make out of order, taken in order.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::monitor::Monitor;

/// How often a waiting thread looks whether the job was cancelled.
const LOOK: Duration = Duration::from_millis(50);

/// Hands items numbered from 0 to one consumer in the order of their numbers. Early items wait here, a bounded number of
/// them: further threads are held until the late one has come.
pub(super) struct InOrder<T, C> {
    state: Mutex<State<T, C>>,
    moved: Condvar,
    most_waiting: usize,
}

struct State<T, C> {
    next: usize,
    waiting: BTreeMap<usize, T>,
    aborted: bool,
    consumer: C,
}

impl<T, C> InOrder<T, C> {
    pub fn new(consumer: C, most_waiting: usize) -> Self {
        let state = State { next: 0, waiting: BTreeMap::new(), aborted: false, consumer };
        Self { state: Mutex::new(state), moved: Condvar::new(), most_waiting }
    }

    /// Gives item `number` to `consume` when its turn has come, with all that waited for it.
    ///
    /// # Errors
    /// Those of `consume`; [`Error::Cancelled`] by the monitor or after [`InOrder::abort`].
    pub fn put(
        &self,
        number: usize,
        item: T,
        monitor: &Monitor,
        mut consume: impl FnMut(&mut C, T) -> Result<()>,
    ) -> Result<()> {
        let mut state = self.lock();
        while state.next != number && state.waiting.len() >= self.most_waiting {
            if state.aborted {
                return Err(Error::Cancelled);
            }
            monitor.advance(0)?;
            state = self.moved.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.waiting.insert(number, item);
        let before = state.next;
        let state = &mut *state;
        while let Some(item) = state.waiting.remove(&state.next) {
            consume(&mut state.consumer, item)?;
            state.next += 1;
        }
        if state.next != before {
            self.moved.notify_all();
        }
        Ok(())
    }

    /// Frees the waiting threads because an item will never come.
    pub fn abort(&self) {
        self.lock().aborted = true;
        self.moved.notify_all();
    }

    pub fn into_consumer(self) -> C {
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner).consumer
    }

    fn lock(&self) -> MutexGuard<'_, State<T, C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_in_order_whoever_brings_them() {
        let order = InOrder::new(Vec::new(), 2);
        let monitor = Monitor::new();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (order, monitor) = (&order, &monitor);
                scope.spawn(move || {
                    for number in (thread..200).step_by(4) {
                        let push = |all: &mut Vec<_>, item| {
                            all.push(item);
                            Ok(())
                        };
                        order.put(number, number, monitor, push).unwrap();
                    }
                });
            }
        });
        assert_eq!(order.into_consumer(), (0..200).collect::<Vec<_>>());
    }

    #[test]
    fn waiting_threads_end_by_an_abort_and_by_a_cancelled_monitor() {
        for by_abort in [true, false] {
            let order = InOrder::new((), 0);
            let monitor = Monitor::new();
            std::thread::scope(|scope| {
                let waiting = scope.spawn(|| order.put(1, (), &monitor, |(), ()| Ok(())));
                if by_abort {
                    order.abort()
                } else {
                    monitor.cancel()
                }
                assert!(matches!(waiting.join().unwrap(), Err(Error::Cancelled)));
            });
        }
    }
}
