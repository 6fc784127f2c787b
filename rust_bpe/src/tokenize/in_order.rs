//! Results that several threads make out of order, taken in order.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::monitor::Monitor;

/// How often a waiting thread looks whether the job was cancelled.
const LOOK: Duration = Duration::from_millis(50);

/// Hands items numbered from 0 to one consumer in the order of their numbers. Items wait here, so many bytes of them:
/// further threads are held until the late one has come. While one thread is at the consumer, others leave their items and
/// go on.
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

    /// Leaves item `number`, of a size in bytes, for its turn. Where there is no room, it does those of other items by
    /// `consume`, which takes and gives back, or waits.
    ///
    /// # Errors
    /// Those of `consume`; [`Error::Cancelled`] by the monitor or after [`InOrder::abort`].
    pub fn leave(
        &self,
        number: usize,
        (item, size): (T, usize),
        monitor: &Monitor,
        mut consume: impl FnMut((C, T)) -> Result<()>,
    ) -> Result<()> {
        let mut state = self.lock();
        while state.next != number && state.waiting_bytes + size > self.most_waiting_bytes {
            if let Some(taken) = state.take() {
                drop(state);
                consume(taken)?;
                state = self.lock();
                continue;
            }
            if state.aborted {
                return Err(Error::Cancelled);
            }
            monitor.advance(0)?;
            state = self.moved.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.next == number {
            self.moved.notify_all(); // who waits may consume it
        }
        state.waiting.insert(number, (item, size));
        state.waiting_bytes += size;
        Ok(())
    }

    /// The consumer and the item whose turn it is, where both are here and more than so many items wait. The turn of the next
    /// one comes when the consumer is given back.
    pub fn take_beyond(&self, n_waiting: usize) -> Option<(C, T)> {
        let mut state = self.lock();
        if state.waiting.len() > n_waiting { state.take() } else { None }
    }

    pub fn give_back(&self, consumer: C) {
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

impl<T, C> State<T, C> {
    fn take(&mut self) -> Option<(C, T)> {
        let (item, size) = self.consumer.is_some().then(|| self.waiting.remove(&self.next)).flatten()?;
        self.waiting_bytes -= size;
        self.consumer.take().map(|consumer| (consumer, item))
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
                        let push = |(mut all, item): (Vec<_>, _)| {
                            all.push(item);
                            order.give_back(all);
                            Ok(())
                        };
                        if let Some(taken) = order.take_beyond(0) {
                            push(taken).unwrap();
                        }
                        order.leave(number, (number, 1), monitor, push).unwrap();
                        while let Some(taken) = order.take_beyond(1) {
                            push(taken).unwrap();
                        }
                    }
                });
            }
        });
        let (mut all, last) = order.take_beyond(0).unwrap();
        all.push(last);
        order.give_back(all);
        assert_eq!(order.into_consumer(), Some((0..200).collect()));
    }

    #[test]
    fn waiting_threads_end_by_an_abort_and_by_a_cancelled_monitor() {
        for by_abort in [true, false] {
            let order = InOrder::new((), 0);
            let monitor = Monitor::new();
            std::thread::scope(|scope| {
                let waiting = scope.spawn(|| order.leave(1, ((), 1), &monitor, |_| Ok(())));
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
