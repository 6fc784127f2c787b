//! Progress and cancellation of long work: workers add to counters, whoever waits reads them and may ask to stop.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::error::{Error, Result};

/// Shared by the workers of one job and the thread that waits for it. All methods take `&self`.
#[derive(Debug, Default)]
pub struct Monitor {
    stage: Mutex<&'static str>,
    done: AtomicU64,
    total: AtomicU64,
    cancelled: AtomicBool,
}

/// One reading of a [`Monitor`]: `done` of `total` units (bytes or merges) of `stage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub stage: &'static str,
    pub done: u64,
    pub total: u64,
}

impl Monitor {
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a stage ("counting", "merging", "encoding") of `total` units; 0 when unknown.
    pub fn start(&self, stage: &'static str, total: u64) {
        *self.stage.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = stage;
        self.done.store(0, Relaxed);
        self.total.store(total, Relaxed);
    }

    /// Adds finished units. Returns [`Error::Cancelled`] once [`Monitor::cancel`] was called, so workers stop with `?`.
    pub fn advance(&self, units: u64) -> Result<()> {
        self.done.fetch_add(units, Relaxed);
        if self.cancelled.load(Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
    }

    pub fn cancel(&self) {
        self.cancelled.store(true, Relaxed);
    }

    pub fn progress(&self) -> Progress {
        Progress {
            stage: *self.stage.lock().unwrap_or_else(|poisoned| poisoned.into_inner()),
            done: self.done.load(Relaxed),
            total: self.total.load(Relaxed),
        }
    }
}
