//! `Learner`: a vocabulary from texts in memory.

use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;

use super::interrupt::interruptible;
use super::names::{special_ids_of, ties_of};
use super::tokenizer::{Tokenizer, ended};
use crate::monitor::Monitor;
use crate::pretokenize::Pattern;
use crate::vocabulary::{self, LearnOptions};

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Learner>()
}

#[pyclass(frozen, module = "pylm._bpe")]
struct Learner {
    /// None when it has learned.
    learner: Mutex<Option<vocabulary::Learner>>,
}

#[pymethods]
impl Learner {
    #[new]
    fn new(
        pattern: &str,
        over_bytes: bool,
        special_tokens: Vec<String>,
        special_ids: &str,
        threads: usize,
    ) -> PyResult<Self> {
        let (pattern, special_ids) = (Pattern::parse(pattern)?, special_ids_of(special_ids)?);
        let learner = vocabulary::Learner::new(pattern, over_bytes, special_tokens, special_ids, threads)?;
        Ok(Self { learner: Mutex::new(Some(learner)) })
    }

    fn add(&self, py: Python<'_>, texts: Vec<PyBackedBytes>) -> PyResult<()> {
        interruptible(py, &Monitor::new(), |monitor| {
            let texts: Vec<&[u8]> = texts.iter().map(|text| &text[..]).collect();
            let mut learner = self.learner.lock().unwrap_or_else(PoisonError::into_inner);
            learner.as_mut().ok_or_else(ended)?.add(&texts, monitor)
        })
    }

    fn learn(
        &self,
        py: Python<'_>,
        vocab_size: usize,
        ties: &str,
        min_frequency: u64,
        max_token_bytes: Option<usize>,
    ) -> PyResult<Tokenizer> {
        let options = LearnOptions { vocab_size, ties: ties_of(ties)?, min_frequency, max_token_bytes };
        interruptible(py, &Monitor::new(), |monitor| {
            let learner = self.learner.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or_else(ended)?;
            learner.learn(&options, monitor).map(|(vocabulary, _)| Tokenizer::new(vocabulary))
        })
    }
}
