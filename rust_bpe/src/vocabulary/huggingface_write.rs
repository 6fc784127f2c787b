//! Writes `tokenizer.json`: the schema of Hugging Face and nothing else, the same bytes for the same vocabulary.

use serde::ser::{Serialize, SerializeMap, SerializeSeq, SerializeStruct, Serializer};
use serde_json::{Value, json};

use super::{Base, Vocabulary, byte_level};

impl Vocabulary {
    /// The bytes of `tokenizer.json`, which `tokenizers` opens with the same ids.
    ///
    /// Over bytes: Split by the pattern, ByteLevel without a pattern of its own. Over characters: no ByteLevel, and
    /// the decoder Fuse. Special tokens stand in `added_tokens` and in `model.vocab`, without which `tokenizers` would
    /// number them anew.
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(&File(self)).unwrap_or_else(|error| unreachable!("{error}"));
        json.push(b'\n');
        json
    }

    /// The object of tokens to ids alone, special tokens included, by id.
    pub(super) fn vocab_json(&self) -> Vec<u8> {
        serde_json::to_vec(&Vocab(self)).unwrap_or_else(|error| unreachable!("{error}"))
    }

    /// A token as the file writes it.
    pub(super) fn written(&self, token: &[u8]) -> String {
        let mut text = String::with_capacity(token.len() * 2);
        match self.base {
            Base::Bytes(_) => byte_level::write(token, &mut text),
            Base::Chars(_) => text.push_str(&String::from_utf8_lossy(token)),
        }
        text
    }

    fn pre_tokenizer(&self) -> Value {
        let split = self.pattern.regex().map(
            |regex| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false}),
        );
        let bytes = match self.base {
            Base::Bytes(_) => {
                Some(json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}))
            }
            Base::Chars(_) => None,
        };
        match (split, bytes) {
            (Some(split), Some(bytes)) => json!({"type": "Sequence", "pretokenizers": [split, bytes]}),
            (Some(step), None) | (None, Some(step)) => step,
            (None, None) => Value::Null,
        }
    }

    fn decoder(&self) -> Value {
        match self.base {
            Base::Bytes(_) => {
                json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false})
            }
            Base::Chars(_) => json!({"type": "Fuse"}),
        }
    }

    /// Strings by id, special tokens among them.
    fn entries(&self) -> Vec<(u32, String)> {
        let ordinary = self.tokens.iter().map(|(id, token)| (id, self.written(token)));
        let special = self.specials.iter().map(|(string, id)| (id, string.to_owned()));
        let mut entries: Vec<_> = ordinary.chain(special).collect();
        entries.sort_unstable_by_key(|&(id, _)| id);
        entries
    }
}

struct File<'v>(&'v Vocabulary);

impl Serialize for File<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut file = serializer.serialize_struct("Tokenizer", 9)?;
        file.serialize_field("version", "1.0")?;
        file.serialize_field("truncation", &())?;
        file.serialize_field("padding", &())?;
        file.serialize_field("added_tokens", &AddedTokens(self.0))?;
        file.serialize_field("normalizer", &())?;
        file.serialize_field("pre_tokenizer", &self.0.pre_tokenizer())?;
        file.serialize_field("post_processor", &())?;
        file.serialize_field("decoder", &self.0.decoder())?;
        file.serialize_field("model", &Model(self.0))?;
        file.end()
    }
}

struct AddedTokens<'v>(&'v Vocabulary);

impl Serialize for AddedTokens<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct AddedToken<'t> {
            id: u32,
            content: &'t str,
            single_word: bool,
            lstrip: bool,
            rstrip: bool,
            normalized: bool,
            special: bool,
        }
        let mut by_id: Vec<(u32, &str)> = self.0.specials.iter().map(|(content, id)| (id, content)).collect();
        by_id.sort_unstable();
        serializer.collect_seq(by_id.into_iter().map(|(id, content)| AddedToken {
            id,
            content,
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: false,
            special: true,
        }))
    }
}

struct Model<'v>(&'v Vocabulary);

impl Serialize for Model<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let vocabulary = self.0;
        let unknown = vocabulary.unknown.and_then(|id| vocabulary.token_bytes(id)).map(String::from_utf8_lossy);
        let mut model = serializer.serialize_struct("Model", 10)?;
        model.serialize_field("type", "BPE")?;
        model.serialize_field("dropout", &())?;
        model.serialize_field("unk_token", &unknown)?;
        model.serialize_field("continuing_subword_prefix", &())?;
        model.serialize_field("end_of_word_suffix", &())?;
        model.serialize_field("fuse_unk", &false)?;
        model.serialize_field("byte_fallback", &false)?;
        model.serialize_field("ignore_merges", &vocabulary.ignore_merges)?;
        model.serialize_field("vocab", &Vocab(vocabulary))?;
        model.serialize_field("merges", &Merges(vocabulary))?;
        model.end()
    }
}

struct Vocab<'v>(&'v Vocabulary);

impl Serialize for Vocab<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entries = self.0.entries();
        let mut map = serializer.serialize_map(Some(entries.len()))?;
        for (id, string) in &entries {
            map.serialize_entry(string, id)?;
        }
        map.end()
    }
}

struct Merges<'v>(&'v Vocabulary);

impl Serialize for Merges<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written = |id| self.0.tokens.get(id).map(|token| self.0.written(token)).unwrap_or_default();
        let mut list = serializer.serialize_seq(Some(self.0.merges.len()))?;
        for merge in &self.0.merges {
            list.serialize_element(&[written(merge.left), written(merge.right)])?;
        }
        list.end()
    }
}
