//! The whole job: count, train, encode, and write the arrays of a dataset.
//!
//! At most three passes over the corpus: a [`Survey`] finds documents, bytes and the split; [`learn`] counts the words of
//! the training documents (in the same pass where nothing is split off) and makes the vocabulary, unless one is given;
//! [`encode`] writes the ids of both sides. Where counting has room to note which word stands where ([`notes`]), [`gather`]
//! does that without reading the text again. A given vocabulary encodes a corpus that is not split in its survey's pass. The
//! files are the same for any number of threads.

mod encode;
mod gather;
mod in_order;
mod kept_words;
mod learn;
mod limit;
mod notes;
mod output;
mod side;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::checksum::hexadecimal;
use crate::corpus::{
    Corpus, Cut, Field, Input, Markers, OpenRecords, Pass, Side, Source, Split, SplitMethod, SplitRequest,
};
use crate::corpus::{Survey, SurveyOptions, Totals};
use crate::encode::Encoder;
use crate::error::{Error, Result};
use crate::monitor::Monitor;
use crate::token::TokenId;
use crate::train::Stop;
use crate::vocabulary::{END_OF_TEXT, FRONT_TOKENS, SpecialIds, Vocabulary};
use kept_words::KeptWords;
pub use kept_words::WORDS_FILE;
pub use learn::{AUTO_VOCAB_SIZES, BaseAlphabet, Bpe};
pub use notes::NOTE_BYTES;
pub use side::{SideReport, TokenFile};

/// What to make of which text.
pub struct Job {
    /// In order; the documents of all inputs are numbered through.
    pub inputs: Vec<Input>,
    /// The field of a JSON record.
    pub field: String,
    /// Unpacked bytes of each input to read at most.
    pub limit_bytes: Option<u64>,
    /// Tokens of each input at most, ends of text included; for a given vocabulary only.
    pub limit_tokens: Option<u64>,
    /// The reader of records, where inputs hold some.
    pub records: Option<Box<OpenRecords>>,
    pub tokenizer: Tokenizer,
    /// The [`WORDS_FILE`] of a given vocabulary, if there is one: its words need not be merged again. The ids are the same
    /// with any or none.
    pub words: Option<PathBuf>,
    /// Tokens whose strings, in files of text, are those tokens and not text. A vocabulary that is made gets them.
    pub specials: Vec<String>,
    pub special_ids: SpecialIds,
    pub end_of_text: EndOfText,
    pub split: SplitRequest,
    pub drop_duplicates: bool,
    /// Ids of each token file, of the last one what is left; one file without it.
    pub shard_tokens: Option<u64>,
    pub n_threads: usize,
    /// Bytes of a block. The result is the same with any.
    pub block_bytes: usize,
    /// Bytes that notes of the words may take between counting and encoding ([`NOTE_BYTES`]); the text is read again where
    /// they are not enough. The result is the same with any.
    pub note_bytes: usize,
    /// Make and write the vocabulary and no token files: the report then has no tokens, and no checksums of inputs.
    pub vocabulary_only: bool,
    /// An empty folder.
    pub out: PathBuf,
}

/// Where the vocabulary comes from.
pub enum Tokenizer {
    /// Merges learned from the training documents.
    Bpe(Bpe),
    /// One token a byte.
    Byte,
    /// One token for each character of the training documents.
    Char,
    Given(Arc<Vocabulary>),
}

/// The token that ends each document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndOfText {
    /// `</s>` with [`SpecialIds::Front`]; else `<|endoftext|>`, else `</s>`, whichever the vocabulary has.
    Auto,
    Named(String),
    /// Documents follow each other bare.
    None,
}

/// What was done, for dataset.json and for the user.
#[derive(Debug)]
pub struct Report {
    pub vocabulary: Arc<Vocabulary>,
    /// Of tokenizer.json.
    pub tokenizer_sha256: String,
    pub end_of_text_id: Option<TokenId>,
    /// Why training ended; None for a vocabulary that was not trained.
    pub stop: Option<Stop>,
    /// Distinct pre-tokens, and all of them; 0 when none were counted.
    pub n_words: u64,
    pub n_pretokens: u64,
    pub totals: Totals,
    pub split: Split,
    /// As [`Job::inputs`].
    pub sources: Vec<Source>,
    pub train: SideReport,
    /// None when there is no validation text.
    pub val: Option<SideReport>,
    pub times: Times,
}

/// Elapsed times of the stages, and of all of it. Where words are counted in the first pass, that is counting; writing the
/// vocabulary and making its tables is no stage.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    pub reading: Duration,
    pub counting: Duration,
    pub merging: Duration,
    pub encoding: Duration,
    pub total: Duration,
}

/// Does the job: fills `job.out` with token files, offsets and tokenizer.json.
///
/// The monitor shows the stages "reading", "counting" and "encoding" in bytes on disk, and "merging" in merges.
///
/// # Errors
/// Whatever settings, inputs, disk and [`Monitor::cancel`] can do; the folder then holds a part of the files.
pub fn run(job: Job, monitor: &Monitor) -> Result<Report> {
    let begin = Instant::now();
    let mut times = Times::default();
    let end_of_text = job.check()?;
    let (mut corpus, plan) = job.into_parts(end_of_text.as_deref())?;
    let source_bytes = corpus.size_bytes();
    let id_of =
        |vocabulary: &Vocabulary| end_of_text.as_deref().and_then(|name| vocabulary.special_tokens().id_of(name));

    monitor.start("reading", source_bytes);
    if let (Some(limit), Tokenizer::Given(vocabulary)) = (plan.limit_tokens, &plan.tokenizer) {
        let has_end = end_of_text.is_some();
        corpus.limits = limit::byte_limits(&corpus, vocabulary, has_end, limit, plan.survey.n_threads, monitor)?;
        monitor.start("reading", source_bytes);
    }
    let surveys_on_the_way = plan.surveys_on_the_way();
    let (survey, counted) = if surveys_on_the_way {
        (Survey::default(), None)
    } else {
        let (survey, counted) = learn::survey(&plan, &corpus, monitor)?;
        check_text(&corpus, &survey.totals)?;
        (survey, counted)
    };
    let split = Split::choose(&plan.survey.split, &survey)?;
    *(if counted.is_some() { &mut times.counting } else { &mut times.reading }) = begin.elapsed();

    let reading =
        Reading { corpus: &corpus, survey: &survey, split: &split, n_threads: plan.survey.n_threads, monitor };
    let learned = learn::vocabulary(&plan, &reading, counted, source_bytes, &mut times)?;
    let vocabulary = learned.vocabulary.clone();

    monitor.start("encoding", source_bytes);
    let end_of_text_id = id_of(&vocabulary);
    let has_val = split != Split::None || corpus.inputs.iter().any(|input| input.side == Side::Val);
    let files =
        side::Files { folder: plan.out.clone(), dtype: vocabulary.dtype(), shard_tokens: plan.shard_tokens, has_val };
    let tokenizer_json = vocabulary.to_json();
    let tokenizer_sha256: [u8; 32] = Sha256::digest(&tokenizer_json).into();
    files.write("tokenizer.json", &tokenizer_json)?;
    let encode::Encoded { train, val, sources, totals, .. } = if plan.vocabulary_only {
        encode::Encoded::default()
    } else {
        let encoder = Encoder::new(vocabulary.clone());
        let encoding = Instant::now();
        let kept = plan.words.as_ref().and_then(|path| KeptWords::read(path, &tokenizer_sha256, &vocabulary));
        let known = kept.as_ref().map_or(&learned.known, |kept| &kept.words);
        let encoder = encoder.with_known(known.clone());
        let way = match surveys_on_the_way {
            true => encode::Way::Surveying(&plan.survey),
            false => encode::Way::Pass(Pass::Worked(Some(&survey.sources))),
        };
        let encoded = write_ids(&reading, way, &encoder, learned.counted, end_of_text_id, &files)?;
        kept_words::keep(&encoded.known, known, kept.as_ref(), &tokenizer_sha256, &files, reading.n_threads)?;
        times.encoding = encoding.elapsed();
        encoded
    };
    let totals = totals.unwrap_or(survey.totals);
    if surveys_on_the_way {
        check_text(&corpus, &totals)?;
    }
    times.total = begin.elapsed();
    Ok(Report {
        vocabulary,
        tokenizer_sha256: hexadecimal(&tokenizer_sha256),
        end_of_text_id,
        stop: learned.stop,
        n_words: learned.n_words,
        n_pretokens: learned.n_pretokens,
        totals,
        split,
        sources,
        train,
        val,
        times,
    })
}

/// Writes the token files, from what was noted of the corpus or by reading it again.
fn write_ids(
    reading: &Reading,
    way: encode::Way,
    encoder: &Encoder,
    counted: Option<learn::Counted>,
    end_of_text: Option<TokenId>,
    files: &side::Files,
) -> Result<encode::Encoded> {
    match counted {
        None => encode::encode(reading, way, encoder, end_of_text, files),
        Some(learn::Counted { counters, notes: Some(notes), sources }) => {
            let markers = &reading.corpus.markers;
            let noted = gather::Noted { counters: &counters, notes: &notes, encoder, markers, end_of_text };
            let output::Written { train, val, .. } = noted.write(files, reading.monitor)?;
            Ok(encode::Encoded { train, val, sources, ..encode::Encoded::default() })
        }
        Some(learn::Counted { sources, .. }) => {
            let way = encode::Way::Pass(Pass::Again(&sources));
            let encoded = encode::encode(reading, way, encoder, end_of_text, files);
            encoded.map(|encoded| encode::Encoded { sources, known: Vec::new(), ..encoded })
        }
    }
}

/// A job without its corpus.
struct Plan {
    tokenizer: Tokenizer,
    words: Option<PathBuf>,
    specials: Vec<String>,
    special_ids: SpecialIds,
    survey: SurveyOptions,
    limit_tokens: Option<u64>,
    shard_tokens: Option<u64>,
    note_bytes: usize,
    vocabulary_only: bool,
    out: PathBuf,
}

impl Plan {
    /// Whether nothing of the corpus must be known before it is encoded: its one reading is its survey too.
    fn surveys_on_the_way(&self) -> bool {
        let Self { tokenizer, survey, vocabulary_only, .. } = self;
        let is_made = matches!(tokenizer, Tokenizer::Given(_) | Tokenizer::Byte);
        is_made && survey.split.method == SplitMethod::None && !survey.drop_duplicates && !vocabulary_only
    }
}

/// A corpus after its survey, as the later passes read it.
struct Reading<'r> {
    corpus: &'r Corpus,
    survey: &'r Survey,
    split: &'r Split,
    n_threads: usize,
    monitor: &'r Monitor,
}

impl Job {
    /// Checks what can be checked before anything is read, and names the token that ends each document.
    fn check(&self) -> Result<Option<String>> {
        let has = |name: &str| match &self.tokenizer {
            Tokenizer::Given(vocabulary) => vocabulary.special_tokens().id_of(name).is_some(),
            _ => {
                self.specials.iter().any(|own| own == name)
                    || (self.special_ids == SpecialIds::Front && FRONT_TOKENS.contains(&name))
            }
        };
        let setting = |message: String| Err(Error::Setting(message));
        if let Some(unknown) = self.specials.iter().find(|name| !has(name)) {
            return setting(format!("--special {unknown}: expected a special token of the given tokenizer"));
        }
        if let Tokenizer::Bpe(bpe) = &self.tokenizer {
            bpe.check(&self.specials, self.special_ids)?;
        }
        if self.limit_tokens.is_some() && !matches!(self.tokenizer, Tokenizer::Given(_)) {
            return setting("--limit-tokens needs a vocabulary that is there before: give one by --tokenizer".into());
        }
        if self.n_threads == 0 || self.block_bytes == 0 || self.shard_tokens == Some(0) {
            return setting("--jobs, the size of a block and --shard-size are at least 1".into());
        }
        match &self.end_of_text {
            EndOfText::None => Ok(None),
            EndOfText::Named(name) if has(name) => Ok(Some(name.clone())),
            EndOfText::Named(name) => setting(format!("--end-of-text {name}: expected one of the special tokens")),
            EndOfText::Auto => {
                let front = self.special_ids == SpecialIds::Front && !matches!(self.tokenizer, Tokenizer::Given(_));
                let candidates = [END_OF_TEXT, FRONT_TOKENS[2]];
                let found = candidates.into_iter().skip(usize::from(front)).find(|name| has(name));
                found.map(|name| Some(name.to_owned())).ok_or_else(|| {
                    let message = format!(
                        "no special token ends a document: expected {END_OF_TEXT} or </s>; name another by --end-of-text"
                    );
                    Error::Setting(message)
                })
            }
        }
    }

    fn into_parts(self, end_of_text: Option<&str>) -> Result<(Corpus, Plan)> {
        let cut = match &self.tokenizer {
            Tokenizer::Bpe(bpe) => Cut::Pretokens(bpe.pattern.clone()),
            Tokenizer::Given(vocabulary) if !vocabulary.merges().is_empty() || vocabulary.ignore_merges() => {
                Cut::Pretokens(vocabulary.pattern().clone())
            }
            _ => Cut::Characters,
        };
        let mut markers: Vec<(String, bool)> = self
            .specials
            .iter()
            .map(|name| (name.clone(), name == END_OF_TEXT || Some(&**name) == end_of_text))
            .collect();
        if !self.specials.iter().any(|name| name == END_OF_TEXT) {
            markers.push((END_OF_TEXT.to_owned(), true));
        }
        let survey =
            SurveyOptions { split: self.split, drop_duplicates: self.drop_duplicates, n_threads: self.n_threads };
        let corpus = Corpus {
            limits: vec![self.limit_bytes; self.inputs.len()],
            inputs: self.inputs,
            markers: Markers::new(markers)?,
            field: Field::new(self.field),
            cut,
            block_bytes: self.block_bytes,
            records: self.records,
        };
        let plan = Plan {
            tokenizer: self.tokenizer,
            words: self.words,
            specials: self.specials,
            special_ids: self.special_ids,
            survey,
            limit_tokens: self.limit_tokens,
            shard_tokens: self.shard_tokens,
            note_bytes: if self.vocabulary_only { 0 } else { self.note_bytes },
            vocabulary_only: self.vocabulary_only,
            out: self.out,
        };
        Ok((corpus, plan))
    }
}

/// Text there must be, for training and, where validation has inputs of its own, in those.
fn check_text(corpus: &Corpus, totals: &Totals) -> Result<()> {
    let lacking = |side, n_documents| {
        let input = corpus.inputs.iter().find(|input| input.side == side)?;
        (n_documents == 0).then(|| {
            let files = corpus.inputs.iter().filter(|input| input.side == side).count();
            let others = if files > 1 { format!(" and {} other files", files - 1) } else { String::new() };
            Error::Format {
                path: input.path.clone(),
                message: format!("expected text{others}, found only empty documents"),
            }
        })
    };
    match lacking(Side::Train, totals.n_documents).or_else(|| lacking(Side::Val, totals.n_val_documents)) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}
