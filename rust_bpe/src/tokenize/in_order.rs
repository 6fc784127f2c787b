//! Results that several threads make out of order, taken in order.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::monitor::Monitor;

/// How often a waiting thread looks whether the job was cancelled.
const LOOK: Duration = Duration::from_millis(50);

/// Hands items numbered from 0 to one consumer in the order of their numbers. Early items wait here, so many bytes of
/// them: further threads are held until the late one has come. While one thread is at the consumer, others leave their
/// items and go on.
pub(super) struct InOrder<T, C> {
    state: Mutex<State<T, C>>,
    moved: Condvar,
    most_waiting_bytes: usize,
}

struct State<T, C> {
    next: usize,
    /// Each with its size.
    waiting: BTreeMap<usize, (T, usize)>,
    waiting_bytes: usize,
    aborted: bool,
    /// None while a thread is at it, and after an error.
    consumer: Option<C>,
}

impl<T, C> InOrder<T, C> {
    pub fn new(consumer: C, most_waiting_bytes: usize) -> Self {
        let waiting = BTreeMap::new();
        let state = State { next: 0, waiting, waiting_bytes: 0, aborted: false, consumer: Some(consumer) };
        Self { state: Mutex::new(state), moved: Condvar::new(), most_waiting_bytes }
    }

    /// Gives item `number`, of a size in bytes, to `consume` when its turn has come, with all that waited for it, and what that
    /// makes of each to `finish`, which threads do side by side. Where another thread is at the consumer, it does so.
    ///
    /// # Errors
    /// Those of `consume` and `finish`; [`Error::Cancelled`] by the monitor or after [`InOrder::abort`].
    pub fn put<R>(
        &self,
        number: usize,
        (item, size): (T, usize),
        monitor: &Monitor,
        mut consume: impl FnMut(&mut C, T) -> Result<R>,
        mut finish: impl FnMut(R) -> Result<()>,
    ) -> Result<()> {
        let mut state = self.lock();
        while state.next != number && state.waiting_bytes + size > self.most_waiting_bytes {
            if state.aborted {
                return Err(Error::Cancelled);
            }
            monitor.advance(0)?;
            state = self.moved.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.waiting.insert(number, (item, size));
        state.waiting_bytes += size;
        drop(state);
        while let Some((mut consumer, item)) = self.take() {
            let made = consume(&mut consumer, item)?;
            self.give_back(consumer);
            finish(made)?;
        }
        Ok(())
    }

    /// The consumer and the item whose turn it is, where both are here.
    fn take(&self) -> Option<(C, T)> {
        let mut state = self.lock();
        let next = state.next;
        let (item, size) = state.consumer.is_some().then(|| state.waiting.remove(&next)).flatten()?;
        state.waiting_bytes -= size;
        state.consumer.take().map(|consumer| (consumer, item))
    }

    fn give_back(&self, consumer: C) {
        let mut state = self.lock();
        state.consumer = Some(consumer);
        state.next += 1;
        self.moved.notify_all();
    }

    /// Frees the waiting threads because an item will never come.
    pub fn abort(&self) {
        self.lock().aborted = true;
        self.moved.notify_all();
    }

    /// None after an error.
    pub fn into_consumer(self) -> Option<C> {
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
                        order.put(number, (number, 1), monitor, push, Ok).unwrap();
                    }
                });
            }
        });
        assert_eq!(order.into_consumer(), Some((0..200).collect()));
    }

    #[test]
    fn waiting_threads_end_by_an_abort_and_by_a_cancelled_monitor() {
        for by_abort in [true, false] {
            let order = InOrder::new((), 0);
            let monitor = Monitor::new();
            std::thread::scope(|scope| {
                let waiting = scope.spawn(|| order.put(1, ((), 1), &monitor, |(), ()| Ok(()), Ok));
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
