//! `tokenize_corpus`: the whole job, its settings from Python and its report back.

use std::path::{Path, PathBuf};

use numpy::PyReadonlyArray1;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict};

use super::interrupt::{interruptible, watched};
use super::names::{special_ids_of, ties_of};
use super::tokenizer::Tokenizer;
use crate::corpus::{
    BLOCK_BYTES, Corpus, Cut, Field, Format, Input, Markers, OpenRecords, Packing, RecordSource, Side, SplitMethod,
    SplitRequest,
};
use crate::error::{Error, Result};
use crate::monitor::Monitor;
use crate::pretokenize::Pattern;
use crate::tokenize::{self, AUTO_VOCAB_SIZES, BaseAlphabet, Bpe, EndOfText, Job, NOTE_BYTES, Report, SideReport};
use crate::train::Stop;
use crate::vocabulary::END_OF_TEXT;

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("AUTO_VOCAB_SIZES", AUTO_VOCAB_SIZES.to_vec())?;
    module.add_function(wrap_pyfunction!(read_documents, module)?)?;
    module.add_function(wrap_pyfunction!(tokenize_corpus, module)?)
}

#[derive(FromPyObject)]
enum Vocabulary<'py> {
    Given(PyRef<'py, Tokenizer>),
    Made(String),
}

#[pyfunction]
#[pyo3(signature = (*, inputs, out, tokenizer, words, pattern, alphabet, vocab_size, ties, min_frequency, max_token_bytes,
    special_tokens, special_ids, end_of_text, bare_documents, field, split, val_fraction, split_seed, drop_duplicates,
    limit_bytes, limit_tokens, shard_tokens, vocabulary_only, threads, progress))]
#[allow(clippy::too_many_arguments)] // all of them by keyword: the settings of a job
fn tokenize_corpus<'py>(
    py: Python<'py>,
    inputs: Vec<(PathBuf, String, String, bool)>,
    out: PathBuf,
    tokenizer: Vocabulary<'py>,
    words: Option<PathBuf>,
    pattern: &str,
    alphabet: &str,
    vocab_size: Option<usize>,
    ties: &str,
    min_frequency: u64,
    max_token_bytes: Option<usize>,
    special_tokens: Vec<String>,
    special_ids: &str,
    end_of_text: Option<String>,
    bare_documents: bool,
    field: String,
    split: &str,
    val_fraction: f64,
    split_seed: u64,
    drop_duplicates: bool,
    limit_bytes: Option<u64>,
    limit_tokens: Option<u64>,
    shard_tokens: Option<u64>,
    vocabulary_only: bool,
    threads: usize,
    progress: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let alphabet = choose("alphabet", alphabet, &[("bytes", BaseAlphabet::Bytes), ("chars", BaseAlphabet::Chars)])?;
    let tokenizer = match tokenizer {
        Vocabulary::Given(given) => tokenize::Tokenizer::Given(given.shared_vocabulary()),
        Vocabulary::Made(name) => match name.as_str() {
            "byte" => tokenize::Tokenizer::Byte,
            "char" => tokenize::Tokenizer::Char,
            _ => tokenize::Tokenizer::Bpe(Bpe {
                pattern: Pattern::parse(pattern)?,
                alphabet,
                vocab_size,
                ties: ties_of(ties)?,
                min_frequency,
                max_token_bytes,
            }),
        },
    };
    let methods = [
        ("none", SplitMethod::None),
        ("auto", SplitMethod::Auto),
        ("hash", SplitMethod::Hash),
        ("tail", SplitMethod::Tail),
    ];
    let method = choose("split", split, &methods)?;
    let job = Job {
        inputs: inputs.into_iter().map(input).collect::<Result<_>>()?,
        field: field.clone(),
        limit_bytes,
        limit_tokens,
        records: Some(records_opener(field)),
        tokenizer,
        words,
        specials: special_tokens,
        special_ids: special_ids_of(special_ids)?,
        end_of_text: match end_of_text {
            _ if bare_documents => EndOfText::None,
            Some(name) => EndOfText::Named(name),
            None => EndOfText::Auto,
        },
        split: SplitRequest { method, fraction: val_fraction, seed: split_seed },
        drop_duplicates,
        shard_tokens,
        n_threads: threads,
        block_bytes: BLOCK_BYTES,
        note_bytes: NOTE_BYTES,
        vocabulary_only,
        out,
    };
    let monitor = Monitor::new();
    let report = watched(
        py,
        &monitor,
        |monitor| tokenize::run(job, monitor),
        |_, now| match &progress {
            Some(callback) => callback.call1((now.stage, now.done, now.total)).map(|_| ()),
            None => Ok(()),
        },
    )?;
    report_dict(py, &report)
}

#[pyfunction]
fn read_documents<'py>(
    py: Python<'py>,
    inputs: Vec<(PathBuf, String, String, bool)>,
    field: String,
    limit_bytes: Option<u64>,
) -> PyResult<Vec<Bound<'py, PyBytes>>> {
    let inputs: Vec<Input> = inputs.into_iter().map(input).collect::<Result<_>>()?;
    let corpus = Corpus {
        limits: vec![limit_bytes; inputs.len()],
        inputs,
        markers: Markers::new(vec![(END_OF_TEXT.to_owned(), true)])?,
        field: Field::new(field.clone()),
        cut: Cut::Characters,
        block_bytes: BLOCK_BYTES,
        records: Some(records_opener(field)),
    };
    let documents = interruptible(py, &Monitor::new(), |monitor| corpus.documents(monitor))?;
    Ok(documents.iter().map(|document| PyBytes::new(py, document)).collect())
}

fn choose<T: Copy>(setting: &str, name: &str, values: &[(&str, T)]) -> Result<T> {
    values.iter().find(|(own, _)| *own == name).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<_> = values.iter().map(|(name, _)| *name).collect();
        Error::Setting(format!("{setting} {name:?}: expected one of {}", names.join(", ")))
    })
}

fn input((path, format, packing, is_val): (PathBuf, String, String, bool)) -> Result<Input> {
    let formats =
        [("text", Format::Text), ("lines", Format::Lines), ("jsonl", Format::Jsonl), ("parquet", Format::Records)];
    let packing = Packing::from_name(&packing)
        .ok_or_else(|| Error::Setting(format!("packing {packing:?}: expected one of none, gz, zst, xz")))?;
    let side = if is_val { Side::Val } else { Side::Train };
    Ok(Input { path, packing, format: choose("format", &format, &formats)?, side })
}

/// Opens Parquet files by `pylm.parquet.text_batches`.
fn records_opener(field: String) -> Box<OpenRecords> {
    Box::new(move |path: &Path| {
        Python::attach(|py| {
            let batches = py.import("pylm.parquet")?.getattr("text_batches")?.call1((path, &field))?;
            Ok(PythonRecords { batches: batches.unbind(), path: path.into() })
        })
        .map(|records| Box::new(records) as Box<dyn RecordSource>)
        .map_err(|error| in_file(path, error))
    })
}

/// An iterator of (bytes, ends) in Python.
struct PythonRecords {
    batches: Py<PyAny>,
    path: PathBuf,
}

impl RecordSource for PythonRecords {
    fn next(&mut self, bytes: &mut Vec<u8>, ends: &mut Vec<usize>) -> Result<bool> {
        Python::attach(|py| {
            let Some(batch) = self.batches.bind(py).try_iter()?.next() else { return Ok(false) };
            let (text, text_ends): (PyBackedBytes, PyReadonlyArray1<u64>) = batch?.extract()?;
            bytes.extend_from_slice(&text);
            ends.extend(text_ends.as_array().iter().map(|&end| end as usize));
            Ok(true)
        })
        .map_err(|error| in_file(&self.path, error))
    }
}

/// What Python says of a file.
fn in_file(path: &Path, error: PyErr) -> Error {
    let message = Python::attach(|py| error.value(py).to_string());
    Error::Format { path: path.into(), message }
}

fn report_dict<'py>(py: Python<'py>, report: &Report) -> PyResult<Bound<'py, PyDict>> {
    let vocabulary = &report.vocabulary;
    let dict = PyDict::new(py);
    dict.set_item("dtype", vocabulary.dtype().name())?;
    dict.set_item("vocab_size", vocabulary.vocab_size())?;
    dict.set_item("tokenizer_sha256", &report.tokenizer_sha256)?;
    dict.set_item("end_of_text_id", report.end_of_text_id)?;
    let special_ids = PyDict::new(py);
    for (name, id) in vocabulary.special_tokens().iter() {
        special_ids.set_item(name, id)?;
    }
    dict.set_item("special_ids", special_ids)?;
    dict.set_item("n_merges", vocabulary.merges().len())?;
    dict.set_item("ran_out_of_pairs", report.stop == Some(Stop::NoPairs))?;
    let (id, token) = vocabulary.longest_token();
    dict.set_item("longest_token", (id, PyBytes::new(py, token)))?;
    dict.set_item("n_words", report.n_words)?;
    dict.set_item("n_pretokens", report.n_pretokens)?;
    dict.set_item("split", report.split.name())?;
    let totals = &report.totals;
    dict.set_item("text_bytes", totals.text_bytes + totals.val_text_bytes)?;
    dict.set_item("n_documents", totals.n_documents + totals.n_val_documents)?;
    dict.set_item("n_empty", totals.n_empty)?;
    dict.set_item("n_duplicates", totals.n_duplicates)?;
    dict.set_item("n_lines", totals.n_lines)?;
    let sources: Vec<_> = report.sources.iter().map(|source| (source.size_bytes, &source.sha256)).collect();
    dict.set_item("sources", sources)?;
    let splits = PyDict::new(py);
    splits.set_item("train", side_dict(py, &report.train)?)?;
    if let Some(val) = &report.val {
        splits.set_item("val", side_dict(py, val)?)?;
    }
    dict.set_item("splits", splits)?;
    let seconds = PyDict::new(py);
    let times = &report.times;
    for (stage, time) in [
        ("total", times.total),
        ("reading", times.reading),
        ("counting", times.counting),
        ("merging", times.merging),
        ("encoding", times.encoding),
    ] {
        seconds.set_item(stage, time.as_secs_f64())?;
    }
    dict.set_item("seconds", seconds)?;
    Ok(dict)
}

fn side_dict<'py>(py: Python<'py>, side: &SideReport) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let files: Vec<_> = side.files.iter().map(|file| (&file.name, file.n_tokens, &file.sha256)).collect();
    dict.set_item("files", files)?;
    dict.set_item("n_tokens", side.n_tokens)?;
    dict.set_item("n_documents", side.n_documents)?;
    dict.set_item("text_bytes", side.text_bytes)?;
    Ok(dict)
}
