//! The pass that writes: blocks encoded by all threads, their ids put into the files in order.

use super::Reading;
use super::output::{Made, Output, Written};
use super::side::{Chunk, Files, SideReport};
use crate::checksum::Streams;
use crate::corpus::{Block, Corpus, Pass, Side, Source, Stretch, Survey, SurveyOptions, Totals};
use crate::encode::{Cache, Encoder, Id, KnownWords};
use crate::error::Result;
use crate::special::Special;
use crate::token::{Dtype, TokenId};

/// What was written, and from what.
#[derive(Default)]
pub(super) struct Encoded {
    pub train: SideReport,
    pub val: Option<SideReport>,
    /// The inputs as they lay.
    pub sources: Vec<Source>,
    /// What the corpus holds, where this was its survey too.
    pub totals: Option<Totals>,
    /// The words that were met, in parts; none where nearly all were known before.
    pub known: Vec<KnownWords>,
}

/// How to read what is encoded.
#[derive(Clone, Copy)]
pub(super) enum Way<'p> {
    /// After a survey.
    Pass(Pass<'p>),
    /// Surveying it on the way: nothing is split off or dropped.
    Surveying(&'p SurveyOptions),
}

/// Encodes the documents of both sides into `files`.
pub(super) fn encode(
    reading: &Reading,
    way: Way,
    encoder: &Encoder,
    end_of_text: Option<TokenId>,
    files: &Files,
) -> Result<Encoded> {
    match files.dtype {
        Dtype::U16 => encode_as::<u16>(reading, way, encoder, end_of_text, files),
        Dtype::U32 => encode_as::<u32>(reading, way, encoder, end_of_text, files),
    }
}

fn encode_as<T: Id>(
    reading: &Reading,
    way: Way,
    encoder: &Encoder,
    end_of_text: Option<TokenId>,
    files: &Files,
) -> Result<Encoded> {
    let output = Output::<T>::new(files, reading.n_threads)?;
    let block_encoder = BlockEncoder { reading, encoder: TextEncoder::new(reading.corpus, encoder), end_of_text };
    let work = |cache: &mut Cache, block: &mut Block, looked: Result<()>| {
        let chunks = output.chunks();
        let encode = |streams: &mut Streams| looked.and_then(|()| block_encoder.encode(cache, block, streams, chunks));
        let left = output.beside(encode).and_then(|encoded| {
            let text = block.take_unhashed(|| output.text_buffer()).map(|text| (block.input, text));
            output.leave(block.index, Made { chunks: encoded?, text }, reading.monitor)
        });
        left.inspect_err(|_| output.abort())
    };
    let Reading { corpus, n_threads, monitor, .. } = *reading;
    let n_bytes = corpus.size_bytes();
    let shared = (n_threads > 1).then(|| encoder.share(n_threads));
    let cache = || match &shared {
        Some(shared) => Cache::sharing(shared, n_bytes),
        None => Cache::for_text(n_bytes),
    };
    let (caches, mut sources, totals) = match way {
        Way::Pass(pass) => {
            let work = |cache: &mut Cache, block: &mut Block| work(cache, block, Ok(()));
            let (caches, sources) = corpus.each_block(pass, n_threads, monitor, cache, work)?;
            (caches, sources, None)
        }
        Way::Surveying(options) => {
            let (survey, caches) = Survey::with(corpus, Pass::Worked(None), options, monitor, cache, work)?;
            (caches, survey.sources, Some(survey.totals))
        }
    };
    let Written { train, val, inputs } = output.finish()?;
    for (input, sha256) in inputs {
        sources[input].sha256 = sha256;
    }
    Ok(Encoded { train, val, sources, totals, known: KnownWords::of_caches(&caches) })
}

struct BlockEncoder<'r> {
    reading: &'r Reading<'r>,
    encoder: TextEncoder<'r>,
    end_of_text: Option<TokenId>,
}

impl BlockEncoder<'_> {
    /// Fills empty `chunks`; some of `streams` is hashed meanwhile.
    fn encode<T: Id>(
        &self,
        cache: &mut Cache,
        block: &Block,
        streams: &mut Streams,
        mut chunks: [Chunk<T>; 2],
    ) -> Result<[Chunk<T>; 2]> {
        let Reading { corpus, survey, split, .. } = self.reading;
        survey.parts(corpus, split, block, |part| {
            let chunk = &mut chunks[usize::from(part.side == Side::Val)];
            let encoded = self.encoder.encode(block.input, part.text, cache, streams, &mut chunk.ids);
            encoded.map_err(|error| block.in_document(part.document, part.offset, error))?;
            chunk.text_bytes += part.text.len() as u64;
            if part.ends {
                chunk.ids.extend(self.end_of_text.map(T::from_id));
                chunk.document_ends.push(chunk.ids.len() as u64);
            }
            Ok(())
        })?;
        Ok(chunks)
    }
}

/// Encodes text as it stands in an input: in files of text, special tokens are themselves.
pub(super) struct TextEncoder<'c> {
    pub corpus: &'c Corpus,
    encoder: &'c Encoder,
    /// The id of each marker; None for one that only separates documents.
    markers: Vec<Option<TokenId>>,
}

impl<'c> TextEncoder<'c> {
    pub fn new(corpus: &'c Corpus, encoder: &'c Encoder) -> Self {
        let specials = encoder.vocabulary().special_tokens();
        let markers = corpus.markers.strings().iter().map(|name| specials.id_of(name)).collect();
        Self { corpus, encoder, markers }
    }

    /// Appends the ids of `text`, a document of an input or a piece of one, and hashes some of `streams`. Errors count bytes
    /// from the start of `text`.
    fn encode<T: Id>(
        &self,
        input: usize,
        text: &[u8],
        cache: &mut Cache,
        streams: &mut Streams,
        ids: &mut Vec<T>,
    ) -> Result<()> {
        self.corpus.stretches(input, text, |start, stretch| match stretch {
            Stretch::Text(text) => {
                let encoded = self.encoder.encode_and_hash(text, Special::Text, cache, streams, ids);
                encoded.map_err(|error| error.moved(start as u64))
            }
            Stretch::Special(number) => {
                ids.extend(self.markers[number].map(T::from_id));
                Ok(())
            }
        })
    }

    /// How many ids `text` has.
    pub fn count(&self, input: usize, text: &[u8], cache: &mut Cache) -> Result<u64> {
        let mut ids: Vec<TokenId> = Vec::new();
        self.encode(input, text, cache, &mut Streams::default(), &mut ids)?;
        Ok(ids.len() as u64)
    }
}
