//! `Tokenizer` and `Stream`: encoding, decoding, the vocabulary files.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use super::names::{special_ids_of, special_of};
use crate::encode::{self, Cache, Encoder, Id};
use crate::error::{Error, Result};
use crate::pretokenize::Pattern;
use crate::special::Special;
use crate::token::{Dtype, TokenId};
use crate::vocabulary::{self, Vocabulary};

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Tokenizer>()?;
    module.add_class::<Stream>()
}

#[pyclass(frozen, module = "pylm._bpe")]
pub(super) struct Tokenizer {
    encoder: Arc<Encoder>,
    /// One for each thread that has encoded at the same time; the last one put back is the warmest.
    caches: Arc<Mutex<Vec<Cache>>>,
}

#[pymethods]
impl Tokenizer {
    #[staticmethod]
    fn from_json(py: Python<'_>, json: &[u8], path: PathBuf) -> PyResult<Self> {
        py.detach(|| Vocabulary::from_json(json, &path).map(Self::new)).map_err(PyErr::from)
    }

    #[staticmethod]
    fn from_huggingface(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        Ok(py.detach(|| Vocabulary::from_huggingface(&path).map(Self::new))?)
    }

    #[staticmethod]
    fn from_tiktoken(
        py: Python<'_>,
        path: PathBuf,
        pattern: Option<&str>,
        special_tokens: Option<Vec<(String, TokenId)>>,
    ) -> PyResult<Self> {
        let pattern = pattern.map(Pattern::parse).transpose()?;
        Ok(py.detach(|| Vocabulary::from_tiktoken(&path, pattern, special_tokens).map(Self::new))?)
    }

    #[staticmethod]
    fn from_gpt2(
        py: Python<'_>,
        vocab: PathBuf,
        merges: PathBuf,
        special_tokens: Option<Vec<String>>,
    ) -> PyResult<Self> {
        Ok(py.detach(|| Vocabulary::from_gpt2(&vocab, &merges, special_tokens.as_deref()).map(Self::new))?)
    }

    #[staticmethod]
    fn byte(special_tokens: Vec<String>, special_ids: &str) -> PyResult<Self> {
        Ok(Self::new(Vocabulary::byte(&special_tokens, special_ids_of(special_ids)?)?))
    }

    #[staticmethod]
    fn char(characters: &str, special_tokens: Vec<String>, special_ids: &str) -> PyResult<Self> {
        let characters = characters.chars().collect();
        Ok(Self::new(Vocabulary::chars(characters, &special_tokens, special_ids_of(special_ids)?)?))
    }

    fn with_empty_cache(&self) -> Self {
        Self { encoder: self.encoder.clone(), caches: Arc::default() }
    }

    fn to_json<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &py.detach(|| self.vocabulary().to_json()))
    }

    fn to_tiktoken<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &py.detach(|| self.vocabulary().to_tiktoken())?))
    }

    fn to_gpt2<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
        let (vocab, merges) = py.detach(|| self.vocabulary().to_gpt2())?;
        Ok((PyBytes::new(py, &vocab), PyBytes::new(py, &merges)))
    }

    fn encode<'py>(&self, py: Python<'py>, text: &[u8], special: &str) -> PyResult<Bound<'py, PyAny>> {
        let special = special_of(special)?;
        let ids = py.detach(|| self.with_cache(|cache| self.ids(text, special, cache)))?;
        Ok(ids.into_python(py))
    }

    fn encode_batch<'py>(
        &self,
        py: Python<'py>,
        texts: Vec<PyBackedBytes>,
        special: &str,
        threads: usize,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let special = special_of(special)?;
        let batch = py.detach(|| self.batch(&texts, special, threads))?;
        Ok(batch.into_iter().map(|ids| ids.into_python(py)).collect())
    }

    fn stream(&self, special: &str) -> PyResult<Stream> {
        let stream = encode::Stream::new(self.encoder.clone(), special_of(special)?);
        let dtype = self.vocabulary().dtype();
        Ok(Stream { state: Mutex::new(Some((stream, Cache::small()))), dtype })
    }

    fn decode<'py>(&self, py: Python<'py>, ids: PyReadonlyArray1<'py, u32>) -> PyResult<Bound<'py, PyBytes>> {
        let ids = ids.as_slice()?;
        Ok(PyBytes::new(py, &py.detach(|| self.encoder.decode(ids))?))
    }

    fn token_bytes<'py>(&self, py: Python<'py>, id: TokenId) -> Option<Bound<'py, PyBytes>> {
        self.vocabulary().token_bytes(id).map(|token| PyBytes::new(py, token))
    }

    fn token_lengths<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<u32>> {
        self.vocabulary().token_lengths().into_pyarray(py)
    }

    fn id_of(&self, token: &[u8]) -> Option<TokenId> {
        self.vocabulary().id_of(token)
    }

    fn merges<'py>(&self, py: Python<'py>) -> Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
        let token = |id| PyBytes::new(py, self.vocabulary().token_bytes(id).unwrap_or_default());
        self.vocabulary().merges().iter().map(|merge| (token(merge.left), token(merge.right))).collect()
    }

    fn special_tokens(&self) -> Vec<(String, TokenId)> {
        self.vocabulary().special_tokens().iter().map(|(string, id)| (string.to_owned(), id)).collect()
    }

    fn unreached(&self, py: Python<'_>) -> Vec<TokenId> {
        py.detach(|| self.vocabulary().unreached())
    }

    #[getter]
    fn sha256(&self, py: Python<'_>) -> String {
        py.detach(|| self.vocabulary().sha256())
    }

    #[getter]
    fn vocab_size(&self) -> usize {
        self.vocabulary().vocab_size()
    }

    #[getter]
    fn n_tokens(&self) -> usize {
        self.vocabulary().n_tokens()
    }

    #[getter]
    fn n_merges(&self) -> usize {
        self.vocabulary().merges().len()
    }

    #[getter]
    fn dtype(&self) -> &'static str {
        self.vocabulary().dtype().name()
    }

    #[getter]
    fn over_bytes(&self) -> bool {
        matches!(self.vocabulary().base(), vocabulary::Base::Bytes(_))
    }

    #[getter]
    fn pattern(&self) -> String {
        match self.vocabulary().pattern() {
            Pattern::Regex(regex) => regex.as_str().to_owned(),
            named => named.name().to_owned(),
        }
    }

    #[getter]
    fn ignore_merges(&self) -> bool {
        self.vocabulary().ignore_merges()
    }

    #[getter]
    fn end_of_text_id(&self) -> Option<TokenId> {
        self.vocabulary().end_of_text_id()
    }

    #[getter]
    fn unknown_id(&self) -> Option<TokenId> {
        self.vocabulary().unknown_id()
    }
}

impl Tokenizer {
    pub(super) fn new(vocabulary: Vocabulary) -> Self {
        Self { encoder: Arc::new(Encoder::new(Arc::new(vocabulary))), caches: Arc::default() }
    }

    pub(super) fn shared_vocabulary(&self) -> Arc<Vocabulary> {
        self.encoder.vocabulary().clone()
    }

    fn vocabulary(&self) -> &Vocabulary {
        self.encoder.vocabulary()
    }

    fn with_cache<T>(&self, work: impl FnOnce(&mut Cache) -> T) -> T {
        let mut cache = self.caches.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        let result = work(&mut cache);
        self.caches.lock().unwrap_or_else(PoisonError::into_inner).push(cache);
        result
    }

    fn ids(&self, text: &[u8], special: Special, cache: &mut Cache) -> Result<Ids> {
        let mut ids = Ids::new(self.vocabulary().dtype());
        match &mut ids {
            Ids::U16(ids) => self.encoder.encode(text, special, cache, ids)?,
            Ids::U32(ids) => self.encoder.encode(text, special, cache, ids)?,
        }
        Ok(ids)
    }

    /// The texts one by one, each by whichever thread is free.
    fn batch(&self, texts: &[PyBackedBytes], special: Special, threads: usize) -> Result<Vec<Ids>> {
        let next = AtomicUsize::new(0);
        let work = || -> Result<Vec<(usize, Ids)>> {
            self.with_cache(|cache| {
                let mut done = Vec::new();
                while let Some((index, text)) = Some(next.fetch_add(1, Relaxed)).and_then(|i| Some((i, texts.get(i)?)))
                {
                    let ids = self.ids(text, special, cache).map_err(|error| in_text(index, error))?;
                    done.push((index, ids));
                }
                Ok(done)
            })
        };
        let parts = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads.min(texts.len())).map(|_| scope.spawn(work)).collect();
            let own = work();
            let others = others.into_iter().map(|thread| thread.join().unwrap_or(Err(Error::Cancelled)));
            std::iter::once(own).chain(others).collect::<Vec<_>>()
        });
        let mut batch = Vec::with_capacity(texts.len());
        for part in parts {
            batch.extend(part?);
        }
        batch.sort_unstable_by_key(|&(index, _)| index);
        Ok(batch.into_iter().map(|(_, ids)| ids).collect())
    }
}

#[pyclass(frozen, module = "pylm._bpe")]
struct Stream {
    /// None when the text has ended, or in an error.
    state: Mutex<Option<(encode::Stream, Cache)>>,
    dtype: Dtype,
}

#[pymethods]
impl Stream {
    fn push<'py>(&self, py: Python<'py>, chunk: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        let ids = py.detach(|| {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let (mut stream, mut cache) = state.take().ok_or_else(ended)?;
            let mut ids = Ids::new(self.dtype);
            match &mut ids {
                Ids::U16(ids) => stream.push(chunk, &mut cache, ids)?,
                Ids::U32(ids) => stream.push(chunk, &mut cache, ids)?,
            }
            *state = Some((stream, cache));
            Ok::<_, Error>(ids)
        })?;
        Ok(ids.into_python(py))
    }

    fn finish<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let ids = py.detach(|| {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let (stream, mut cache) = state.take().ok_or_else(ended)?;
            let mut ids = Ids::new(self.dtype);
            match &mut ids {
                Ids::U16(ids) => stream.finish(&mut cache, ids)?,
                Ids::U32(ids) => stream.finish(&mut cache, ids)?,
            }
            Ok::<_, Error>(ids)
        })?;
        Ok(ids.into_python(py))
    }
}

/// An array of ids in the type of its vocabulary.
enum Ids {
    U16(Vec<u16>),
    U32(Vec<u32>),
}

impl Ids {
    fn new(dtype: Dtype) -> Self {
        match dtype {
            Dtype::U16 => Ids::U16(Vec::new()),
            Dtype::U32 => Ids::U32(Vec::new()),
        }
    }

    fn into_python(self, py: Python<'_>) -> Bound<'_, PyAny> {
        fn array<T: Id + numpy::Element>(py: Python<'_>, ids: Vec<T>) -> Bound<'_, PyAny> {
            ids.into_pyarray(py).into_any()
        }
        match self {
            Ids::U16(ids) => array(py, ids),
            Ids::U32(ids) => array(py, ids),
        }
    }
}

fn in_text(index: usize, error: Error) -> Error {
    match error {
        Error::Text { position, message } => Error::Text { position, message: format!("text {index}: {message}") },
        other => other,
    }
}

pub(super) fn ended() -> Error {
    Error::Setting("this has ended: begin a new one".to_owned())
}
