//! Long work that Ctrl-C can stop: it runs on a thread of its own while this one asks Python for signals.

use std::thread;
use std::time::Duration;

use pyo3::prelude::*;

use crate::error::{Error, Result};
use crate::monitor::Monitor;

/// How often signals are looked for: often enough to feel immediate, seldom enough to cost nothing.
const POLL: Duration = Duration::from_millis(50);

/// Runs `work` without the GIL. A signal whose Python handler raises cancels `monitor`, and that exception is raised
/// when the work has stopped.
pub fn interruptible<T: Send>(
    py: Python<'_>,
    monitor: &Monitor,
    work: impl FnOnce(&Monitor) -> Result<T> + Send,
) -> PyResult<T> {
    let mut raised = None;
    let outcome = py.detach(|| {
        thread::scope(|scope| {
            let waiter = thread::current();
            let worker = scope.spawn(move || {
                let outcome = work(monitor);
                waiter.unpark();
                outcome
            });
            while !worker.is_finished() {
                thread::park_timeout(POLL);
                if raised.is_none() {
                    raised = Python::attach(|py| py.check_signals()).err();
                    if raised.is_some() {
                        monitor.cancel();
                    }
                }
            }
            worker.join().unwrap_or(Err(Error::Cancelled))
        })
    });
    match raised {
        Some(error) => Err(error),
        None => Ok(outcome?),
    }
}
