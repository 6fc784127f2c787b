//! Long work that Ctrl-C can stop: it runs on a thread of its own while this one asks Python for signals.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use pyo3::prelude::*;

use crate::error::{Error, Result};
use crate::monitor::{Monitor, Progress};

/// How often signals are looked for: often enough to feel immediate, seldom enough to cost nothing.
const POLL: Duration = Duration::from_millis(50);

/// Runs `work` without the GIL. A signal whose Python handler raises cancels `monitor`, and that exception is raised
/// when the work has stopped.
pub fn interruptible<T: Send>(
    py: Python<'_>,
    monitor: &Monitor,
    work: impl FnOnce(&Monitor) -> Result<T> + Send,
) -> PyResult<T> {
    watched(py, monitor, work, |_, _| Ok(()))
}

/// The same, and shows `look` the progress at each look; what `look` raises stops the work too.
pub fn watched<T: Send>(
    py: Python<'_>,
    monitor: &Monitor,
    work: impl FnOnce(&Monitor) -> Result<T> + Send,
    mut look: impl FnMut(Python<'_>, Progress) -> PyResult<()>,
) -> PyResult<T> {
    let mut raised = None;
    let outcome = thread::scope(|scope| {
        let (sender, mut receiver) = channel();
        let worker = scope.spawn(move || {
            // The receiver outlives this thread, so nothing is lost; a panic drops the sender and ends the wait.
            let _ = sender.send(work(monitor));
        });
        let outcome = loop {
            let receiver = &mut receiver; // a receiver is sent, not shared
            match py.detach(move || receiver.recv_timeout(POLL)) {
                Ok(outcome) => break outcome,
                Err(RecvTimeoutError::Disconnected) => break Err(Error::Cancelled),
                Err(RecvTimeoutError::Timeout) if raised.is_some() => {}
                Err(RecvTimeoutError::Timeout) => {
                    raised = py.check_signals().and_then(|()| look(py, monitor.progress())).err();
                    if raised.is_some() {
                        monitor.cancel();
                    }
                }
            }
        };
        py.detach(|| worker.join().map_or(Err(Error::Cancelled), |()| outcome))
    });
    match raised {
        Some(error) => Err(error),
        None => Ok(outcome?),
    }
}
