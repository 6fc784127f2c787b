//! Reads `tokenizer.json` of Hugging Face: BPE over bytes or characters; what it asks for beyond that is refused by name.

use std::path::Path;

use rustc_hash::{FxHashMap, FxHashSet};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::json::{Entries, Pairs};
use super::table::TokenTable;
use super::{Merge, Parts, Vocabulary, byte_level, damaged, huggingface_parts, read_file, show};
use crate::error::Result;
use crate::token::TokenId;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File<'f> {
    #[serde(default)]
    version: Option<String>,
    #[serde(default, borrow)]
    truncation: Option<&'f RawValue>,
    #[serde(default, borrow)]
    padding: Option<&'f RawValue>,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(default, borrow)]
    normalizer: Option<&'f RawValue>,
    #[serde(default, borrow)]
    pre_tokenizer: Option<&'f RawValue>,
    #[serde(default, borrow)]
    post_processor: Option<&'f RawValue>,
    #[serde(default, borrow)]
    decoder: Option<&'f RawValue>,
    model: Model,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddedToken {
    id: TokenId,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Model {
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    dropout: Option<f64>,
    #[serde(default)]
    unk_token: Option<String>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: bool,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    vocab: Entries,
    merges: Pairs,
}

impl Vocabulary {
    /// Reads a `tokenizer.json`. Errors: [`crate::Error::Io`]; [`crate::Error::Format`] for what is damaged or not
    /// supported, by name.
    pub fn from_huggingface(path: &Path) -> Result<Self> {
        Self::from_json(&read_file(path)?, path)
    }

    /// Reads the bytes of a `tokenizer.json`; `path` is for messages alone.
    pub fn from_json(json: &[u8], path: &Path) -> Result<Self> {
        parse(json).map_err(|message| damaged(path, message))
    }
}

fn parse(json: &[u8]) -> std::result::Result<Vocabulary, String> {
    let file: File = serde_json::from_slice(json).map_err(|error| not_readable(json, &error))?;
    if let Some(version) = file.version.filter(|version| version != "1.0") {
        return Err(format!("version {version:?} is not supported, only \"1.0\""));
    }
    for (name, part) in [("truncation", file.truncation), ("padding", file.padding), ("normalizer", file.normalizer)] {
        huggingface_parts::refuse(name, part)?;
    }
    huggingface_parts::check_post_processor(file.post_processor)?;
    let (pattern, over_bytes) = huggingface_parts::pre_tokenizer(file.pre_tokenizer)?;
    huggingface_parts::check_decoder(file.decoder, over_bytes)?;
    check_model(&file.model)?;
    check_added_tokens(&file.added_tokens)?;

    let specials = special_ids(&file.added_tokens, &file.model.vocab)?;
    let tokens = ordinary_tokens(&file.model.vocab, over_bytes, &specials)?;
    let merges = merges(&file.model.merges, &tokens, over_bytes)?;
    let unknown = match file.model.unk_token.filter(|_| !over_bytes) {
        None => None,
        Some(string) => Some(
            specials
                .iter()
                .find(|(own, _)| *own == string)
                .map(|&(_, id)| id)
                .or_else(|| tokens.id_of(string.as_bytes()))
                .ok_or_else(|| format!("unk_token {string:?} is not in the vocabulary"))?,
        ),
    };
    let ignore_merges = file.model.ignore_merges;
    Vocabulary::checked(Parts { tokens, over_bytes, merges, specials, unknown, pattern, ignore_merges })
}

/// What to say of a file that does not fit: the name of a model other than BPE says more than the field it lacks.
fn not_readable(json: &[u8], error: &serde_json::Error) -> String {
    #[derive(Deserialize)]
    struct Kind {
        #[serde(rename = "type")]
        kind: String,
    }
    #[derive(Deserialize)]
    struct File {
        model: Kind,
    }
    match serde_json::from_slice::<File>(json) {
        Ok(File { model: Kind { kind } }) if kind != "BPE" => unsupported_model(&kind),
        _ => format!("not a tokenizer.json: {error}"),
    }
}

fn unsupported_model(kind: &str) -> String {
    format!("model {kind:?} is not supported, only \"BPE\"")
}

fn check_model(model: &Model) -> std::result::Result<(), String> {
    if let Some(kind) = model.kind.as_deref().filter(|&kind| kind != "BPE") {
        return Err(unsupported_model(kind));
    }
    if let Some(dropout) = model.dropout.filter(|&dropout| dropout != 0.0) {
        return Err(format!("model.dropout {dropout} is not supported: it makes ids random"));
    }
    let affixes = [
        ("continuing_subword_prefix", &model.continuing_subword_prefix),
        ("end_of_word_suffix", &model.end_of_word_suffix),
    ];
    for (name, affix) in affixes {
        if let Some(affix) = affix.as_ref().filter(|affix| !affix.is_empty()) {
            return Err(format!("model.{name} {affix:?} is not supported"));
        }
    }
    if model.byte_fallback {
        return Err("model.byte_fallback is not supported".to_owned());
    }
    if model.fuse_unk && model.unk_token.is_some() {
        return Err("model.fuse_unk is not supported".to_owned());
    }
    Ok(())
}

/// Every added token must be one that text is searched for as it stands. Without a normalizer `normalized` says only
/// which of two kinds is searched for first, so all must be of one kind.
fn check_added_tokens(added: &[AddedToken]) -> std::result::Result<(), String> {
    for token in added {
        let name = format!("added token {:?}", token.content);
        let flags = [("single_word", token.single_word), ("lstrip", token.lstrip), ("rstrip", token.rstrip)];
        if let Some((flag, _)) = flags.iter().find(|(_, set)| *set) {
            return Err(format!("{name} has {flag}, which is not supported"));
        }
        if !token.special {
            return Err(format!("{name} is not special, which is not supported"));
        }
        if token.normalized != added[0].normalized {
            return Err(format!(
                "{name} differs from {:?} in \"normalized\", which is not supported",
                added[0].content
            ));
        }
    }
    Ok(())
}

/// The id of each special token: the one in the vocabulary, or the next free one as `tokenizers` numbers them.
fn special_ids(added: &[AddedToken], vocab: &Entries) -> std::result::Result<Vec<(String, TokenId)>, String> {
    let mut in_vocab: FxHashMap<&str, Option<TokenId>> =
        added.iter().map(|token| (token.content.as_str(), None)).collect();
    for (string, id) in vocab.iter() {
        if let Some(other) = in_vocab.get_mut(string).and_then(|known| known.replace(id)) {
            return Err(format!("token {string:?} has two ids, {other} and {id}"));
        }
    }
    let mut next = vocab.iter().len() as TokenId;
    let mut specials = Vec::with_capacity(added.len());
    for token in added {
        let id = in_vocab[token.content.as_str()].unwrap_or(next);
        if id != token.id {
            return Err(format!(
                "added token {:?} has id {}, but by the vocabulary it is {id}",
                token.content, token.id
            ));
        }
        next = next.max(id.saturating_add(1));
        specials.push((token.content.clone(), id));
    }
    Ok(specials)
}

fn ordinary_tokens(
    vocab: &Entries,
    over_bytes: bool,
    specials: &[(String, TokenId)],
) -> std::result::Result<TokenTable, String> {
    let special: FxHashSet<&str> = specials.iter().map(|(string, _)| string.as_str()).collect();
    let mut tokens = TokenTable::with_capacity(vocab.iter().len(), vocab.n_bytes());
    let mut bytes = Vec::new();
    for (string, id) in vocab.iter().filter(|(string, _)| !special.contains(string)) {
        read_token(string, over_bytes, &mut bytes)?;
        tokens.insert(id, &bytes)?;
    }
    Ok(tokens)
}

pub(super) fn merges(pairs: &Pairs, tokens: &TokenTable, over_bytes: bool) -> std::result::Result<Vec<Merge>, String> {
    let mut left = Vec::new();
    let mut right = Vec::new();
    let mut merges = Vec::with_capacity(pairs.iter().len());
    for (rank, pair) in pairs.iter().enumerate() {
        read_token(pair.0, over_bytes, &mut left)?;
        read_token(pair.1, over_bytes, &mut right)?;
        let find = |token: &[u8]| {
            let missing = || format!("merge {rank} needs token {}, which is not in the vocabulary", show(token));
            tokens.id_of(token).ok_or_else(missing)
        };
        let (left_id, right_id) = (find(&left)?, find(&right)?);
        left.extend_from_slice(&right);
        merges.push(Merge { left: left_id, right: right_id, result: find(&left)? });
    }
    Ok(merges)
}

/// Puts the bytes of a token as the file writes it into `bytes`.
pub(super) fn read_token(string: &str, over_bytes: bool, bytes: &mut Vec<u8>) -> std::result::Result<(), String> {
    if !over_bytes {
        bytes.clear();
        bytes.extend_from_slice(string.as_bytes());
        return Ok(());
    }
    byte_level::read(string, bytes)
        .map_err(|character| format!("token {} holds {character:?}, which stands for no byte", show(string.as_bytes())))
}
