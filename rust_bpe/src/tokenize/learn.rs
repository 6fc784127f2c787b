//! The vocabulary of a job: learned from the training documents, or given.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use super::notes::{Counter, Note, Room};
use super::{Plan, Reading, Times, Tokenizer};
use crate::corpus::{Block, Corpus, Pass, Side, Source, Split, SplitMethod, Stretch, Survey};
use crate::encode::KnownWords;
use crate::error::{Error, Result};
use crate::monitor::Monitor;
use crate::pretokenize::Pattern;
use crate::train::{Alphabet, Stop, Ties, TrainOptions, train};
use crate::vocabulary::{FRONT_TOKENS, SpecialIds, UNKNOWN, Vocabulary};
use crate::words::{WordCounter, Words};

/// Vocabulary sizes by bytes of text, the largest first: from so many bytes on, so many ids.
///
/// A merge is worth its embedding row only when it is seen often: each size leaves about 1,500 bytes of text an id.
pub const AUTO_VOCAB_SIZES: [(u64, usize); 6] =
    [(50_000_000, 32_000), (20_000_000, 16_000), (10_000_000, 8_000), (5_000_000, 4_000), (1_000_000, 2_000), (0, 512)];

/// How to train.
#[derive(Clone, Debug)]
pub struct Bpe {
    pub pattern: Pattern,
    pub alphabet: BaseAlphabet,
    /// Ids in all, special tokens included; None chooses by the size of the text ([`AUTO_VOCAB_SIZES`]).
    pub vocab_size: Option<usize>,
    pub ties: Ties,
    pub min_frequency: u64,
    pub max_token_bytes: Option<usize>,
}

/// What the merges begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BaseAlphabet {
    Bytes,
    /// The characters of the training documents; another one is `<unk>`.
    Chars,
}

impl Bpe {
    /// Refuses, before anything is read, a vocabulary that cannot hold its own alphabet.
    pub(super) fn check(&self, specials: &[String], special_ids: SpecialIds) -> Result<()> {
        let n_specials = n_special_tokens(self.alphabet, specials, special_ids);
        let smallest = if self.alphabet == BaseAlphabet::Bytes { 256 } else { 1 } + n_specials;
        match self.vocab_size {
            Some(size) if size < smallest => Err(Error::Setting(format!(
                "--vocab-size {size}: expected at least {smallest} ({} and {})",
                if self.alphabet == BaseAlphabet::Bytes { "256 bytes" } else { "a character" },
                special_tokens(n_specials)
            ))),
            _ => Ok(()),
        }
    }
}

pub(super) struct Learned {
    pub vocabulary: Arc<Vocabulary>,
    /// What training left encoded.
    pub known: Arc<KnownWords>,
    pub stop: Option<Stop>,
    pub n_words: u64,
    pub n_pretokens: u64,
    /// None where no words were counted.
    pub counted: Option<Counted>,
}

/// The words of the training documents.
pub(super) struct Counted {
    pub counters: Vec<WordCounter>,
    /// Of each counter; None where there was no room for the whole corpus.
    pub notes: Option<Vec<Vec<Note>>>,
    /// The inputs, with their hashes where ids are wanted.
    pub sources: Vec<Source>,
}

/// Surveys the corpus, and counts its words in the same pass where it is known before which text is for training.
pub(super) fn survey(plan: &Plan, corpus: &Corpus, monitor: &Monitor) -> Result<(Survey, Option<Counted>)> {
    let options = &plan.survey;
    match &plan.tokenizer {
        Tokenizer::Bpe(bpe) if options.split.method == SplitMethod::None && !options.drop_duplicates => {
            // All documents count, and those of inputs that are validation as a whole do not.
            let (survey, split) = (&Survey::default(), &Split::None);
            let reading = Reading { corpus, survey, split, n_threads: options.n_threads, monitor };
            let counting = Counting::new(bpe, plan.note_bytes);
            let pass = if plan.vocabulary_only { Pass::First } else { Pass::Only };
            let count = |counter: &mut Counter, block: &mut Block, looked: Result<()>| {
                looked.and_then(|()| counting.count(&reading, counter, block))
            };
            let (survey, counters) = Survey::with(corpus, pass, options, monitor, Counter::default, count)?;
            let counted = counting.end(counters, survey.sources.clone());
            Ok((survey, Some(counted)))
        }
        _ => Ok((Survey::of(corpus, options, monitor)?, None)),
    }
}

/// Counting by all threads.
struct Counting<'b> {
    bpe: &'b Bpe,
    room: Room,
}

impl<'b> Counting<'b> {
    fn new(bpe: &'b Bpe, note_bytes: usize) -> Self {
        Self { bpe, room: Room::new(note_bytes) }
    }

    fn count(&self, reading: &Reading, counter: &mut Counter, block: &Block) -> Result<()> {
        let check = |text: &[u8]| match self.bpe.alphabet {
            BaseAlphabet::Bytes => Ok(()),
            BaseAlphabet::Chars => utf8(text).map(|_| ()),
        };
        counter.count(reading, block, &self.bpe.pattern, check, &self.room)
    }

    fn end(self, counters: Vec<Counter>, sources: Vec<Source>) -> Counted {
        let (counters, notes) = counters.into_iter().map(Counter::into_parts).unzip();
        Counted { counters, notes: self.room.has_been_enough().then_some(notes), sources }
    }
}

/// Makes the vocabulary of `plan`. The words of the training documents may have been counted already.
pub(super) fn vocabulary(
    plan: &Plan,
    reading: &Reading,
    counted: Option<Counted>,
    source_bytes: u64,
    times: &mut Times,
) -> Result<Learned> {
    let (specials, special_ids) = (&plan.specials, plan.special_ids);
    let known = Arc::<KnownWords>::default();
    let untrained = |vocabulary| Learned { vocabulary, known, stop: None, n_words: 0, n_pretokens: 0, counted: None };
    match &plan.tokenizer {
        Tokenizer::Given(vocabulary) => Ok(untrained(vocabulary.clone())),
        Tokenizer::Byte => Ok(untrained(Arc::new(Vocabulary::byte(specials, special_ids)?))),
        Tokenizer::Char => {
            let begin = Instant::now();
            reading.monitor.start("counting", source_bytes);
            let characters = characters(reading)?.into_iter().collect();
            times.counting = begin.elapsed();
            Ok(untrained(Arc::new(Vocabulary::chars(characters, specials, special_ids)?)))
        }
        Tokenizer::Bpe(bpe) => {
            let begin = Instant::now();
            let mut counted = match counted {
                Some(counted) => counted,
                None => {
                    reading.monitor.start("counting", source_bytes);
                    count(reading, bpe, plan)?
                }
            };
            let words = Words::merge(&counted.counters, reading.n_threads)?;
            if counted.notes.is_none() {
                counted.counters = Vec::new();
            }
            times.counting += begin.elapsed();
            let begin = Instant::now();
            let learned = train_on(&words, bpe, plan, reading)?;
            times.merging = begin.elapsed();
            Ok(Learned { counted: Some(counted), ..learned })
        }
    }
}

fn train_on(words: &Words, bpe: &Bpe, plan: &Plan, reading: &Reading) -> Result<Learned> {
    let (specials, special_ids) = (&plan.specials, plan.special_ids);
    let alphabet = match bpe.alphabet {
        BaseAlphabet::Bytes => Alphabet::Bytes,
        BaseAlphabet::Chars => Alphabet::chars_of(words)?,
    };
    let n_specials = n_special_tokens(bpe.alphabet, specials, special_ids);
    let smallest = alphabet.len() + n_specials;
    let vocab_size = match bpe.vocab_size {
        Some(size) if size < smallest => {
            return Err(Error::Setting(format!(
                "--vocab-size {size}: expected at least {smallest} ({} characters and {})",
                alphabet.len(),
                special_tokens(n_specials)
            )));
        }
        Some(size) => size,
        None => auto_vocab_size(reading.survey.totals.text_bytes).max(smallest),
    };
    let options = TrainOptions {
        vocab_size: vocab_size - n_specials,
        ties: bpe.ties,
        min_frequency: bpe.min_frequency,
        max_token_bytes: bpe.max_token_bytes,
        threads: reading.n_threads,
    };
    let trained = train(words, &alphabet, &options, reading.monitor)?;
    let vocabulary = Vocabulary::from_merges(&alphabet, &trained.merges, bpe.pattern.clone(), specials, special_ids)?;
    let known = if plan.vocabulary_only {
        KnownWords::default() // nothing will be encoded
    } else {
        KnownWords::of(words, &trained.encodings, &vocabulary.ids_of_symbols())
    };
    Ok(Learned {
        known: known.into(),
        vocabulary: Arc::new(vocabulary),
        stop: Some(trained.stop),
        n_words: words.len() as u64,
        n_pretokens: words.n_pretokens(),
        counted: None,
    })
}

/// The size that [`AUTO_VOCAB_SIZES`] gives a text.
fn auto_vocab_size(text_bytes: u64) -> usize {
    AUTO_VOCAB_SIZES.iter().find(|(from, _)| text_bytes >= *from).map_or(512, |(_, size)| *size)
}

/// How many ids are no base symbols and no merges.
fn n_special_tokens(alphabet: BaseAlphabet, specials: &[String], special_ids: SpecialIds) -> usize {
    let own = match (special_ids, alphabet) {
        (SpecialIds::Front, _) => &FRONT_TOKENS[..],
        (SpecialIds::End, BaseAlphabet::Chars) => &[UNKNOWN],
        (SpecialIds::End, BaseAlphabet::Bytes) => &[],
    };
    own.len() + specials.iter().filter(|name| !own.contains(&name.as_str())).count()
}

fn special_tokens(number: usize) -> String {
    format!("{number} special token{}", if number == 1 { "" } else { "s" })
}

/// Counts the words of a corpus whose split is known.
fn count(reading: &Reading, bpe: &Bpe, plan: &Plan) -> Result<Counted> {
    let counting = Counting::new(bpe, plan.note_bytes);
    let sources = &reading.survey.sources;
    let pass = if plan.vocabulary_only { Pass::Again(sources) } else { Pass::Last(sources) };
    let look = |counter: &mut Counter, block: &mut Block| counting.count(reading, counter, block);
    let counted = reading.corpus.each_block(pass, reading.n_threads, reading.monitor, Counter::default, look);
    counted.map(|(counters, sources)| counting.end(counters, sources))
}

fn characters(reading: &Reading) -> Result<BTreeSet<char>> {
    let look = |set: &mut BTreeSet<char>, block: &mut Block| {
        reading.training_text(block, |text| {
            set.extend(utf8(text)?.chars());
            Ok(())
        })
    };
    let pass = Pass::Again(&reading.survey.sources);
    let sets = reading.corpus.each_block(pass, reading.n_threads, reading.monitor, BTreeSet::new, look);
    sets.map(|(sets, _)| sets.into_iter().flatten().collect())
}

fn utf8(text: &[u8]) -> Result<&str> {
    std::str::from_utf8(text).map_err(|error| {
        let message = "expected UTF-8, found another byte (the tokenizer bpe over bytes takes any)".to_owned();
        Error::Text { position: error.valid_up_to() as u64, message }
    })
}

impl Reading<'_> {
    /// Visits the text of the training documents of a block, special tokens left out, in stretches that no word reaches
    /// over.
    pub(super) fn training_text(&self, block: &Block, mut visit: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let corpus = self.corpus;
        self.survey.parts(corpus, self.split, block, |part| match part.side {
            Side::Val => Ok(()),
            Side::Train => {
                let texts = corpus.stretches(block.input, part.text, |start, stretch| match stretch {
                    Stretch::Text(text) => visit(text).map_err(|error| error.moved(start as u64)),
                    Stretch::Special(_) => Ok(()),
                });
                texts.map_err(|error| block.in_document(part.document, part.offset, error))
            }
        })
    }
}
