//! What the fuzz targets of the vocabulary files check of an input: it is refused, or becomes a vocabulary that is
//! written and read again as the same, and that encodes as its slow twin.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use rust_bpe::encode::{Cache, Encoder, KnownWords};
use rust_bpe::pretokenize::Pattern;
use rust_bpe::reference;
use rust_bpe::special::Special;
use rust_bpe::vocabulary::{SpecialIds, Vocabulary};
use sha2::{Digest, Sha256};

/// A `tokenizer.json`: the input alone; and with its three parts, between empty lines, put into one over bytes as further
/// tokens, as merges and as special tokens.
pub fn huggingface(data: &[u8]) {
    read_json(data);
    if let Ok(text) = str::from_utf8(data) {
        let mut parts = text.splitn(3, "\n\n");
        let [tokens, merges, specials] = [(); 3].map(|()| parts.next().unwrap_or_default());
        let bytes = byte_entries();
        read_json(
            format!(
                r#"{{"added_tokens":[{specials}],"pre_tokenizer":{{"type":"ByteLevel","add_prefix_space":false}},
                "decoder":{{"type":"ByteLevel"}},
                "model":{{"type":"BPE","vocab":{{{bytes}{tokens}}},"merges":[{merges}]}}}}"#
            )
            .as_bytes(),
        );
    }
}

fn read_json(file: &[u8]) {
    if let Ok(vocabulary) = Vocabulary::from_json(file, Path::new("tokenizer.json")) {
        holds(vocabulary, file);
    }
}

/// A `.tiktoken` file: the input behind the lines that make every byte a token.
pub fn tiktoken(data: &[u8]) {
    let bytes = Vocabulary::byte(&[], SpecialIds::End).expect("the bytes");
    let mut file = bytes.to_tiktoken().expect("the bytes");
    file.extend_from_slice(data);
    let path = Path::new("x.tiktoken");
    if let Ok(vocabulary) = Vocabulary::from_tiktoken_bytes(&file, path, Some(Pattern::Gpt2), None) {
        if let Ok(again) = vocabulary.to_tiktoken() {
            let again = Vocabulary::from_tiktoken_bytes(&again, path, Some(Pattern::Gpt2), None).expect("our own");
            assert_eq!(again.merges(), vocabulary.merges());
        }
        holds(vocabulary, data);
    }
}

/// The two files of GPT-2: further tokens up to an empty line, then merges.
pub fn gpt2(data: &[u8]) {
    let split = data.windows(2).position(|pair| pair == b"\n\n").unwrap_or(data.len());
    let (tokens, merges) = data.split_at(split);
    let vocab = [b"{", byte_entries().as_bytes(), tokens, b"}"].concat();
    let (path, merges_path) = (Path::new("vocab.json"), Path::new("merges.txt"));
    if let Ok(vocabulary) = Vocabulary::from_gpt2_bytes(&vocab, path, merges, merges_path, None) {
        let (vocab, merges) = vocabulary.to_gpt2().expect("it was read from such files");
        let again = Vocabulary::from_gpt2_bytes(&vocab, path, &merges, merges_path, None).expect("our own");
        assert_eq!(again.to_json(), vocabulary.to_json());
        holds(vocabulary, data);
    }
}

/// A `tokenizer.words` of the vocabulary of bytes: the input between its name and its checksums. What is read is written
/// the same, and an encoder begins with it.
pub fn words(data: &[u8]) {
    let file = [b"pylm words 2\n\0\0\0".as_slice(), &[0; 32], data].concat();
    let size = |index: usize| data.as_chunks().0.get(index).map_or(0, |&size| u64::from_le_bytes(size));
    let n_before = size(0).saturating_mul(8).saturating_add(size(1)).saturating_add(72).min(file.len() as u64);
    let (before, tokens) = file.split_at(n_before as usize);
    let file = [file.as_slice(), &Sha256::digest(before), &Sha256::digest(tokens)].concat();
    let vocabulary = Arc::new(Vocabulary::byte(&[], SpecialIds::End).expect("the bytes"));
    if let Some(words) = KnownWords::from_bytes(&file, &[0; 32], vocabulary.largest_id()) {
        assert!(words.to_bytes(&[0; 32]) == file);
        let encoder = Encoder::new(vocabulary).with_known(Arc::new(words.clone()));
        let (mut cache, mut ids) = (Cache::new(), Vec::<u32>::new());
        for (word, _) in words.iter() {
            ids.clear();
            encoder.encode_pretoken(word, &mut cache, &mut ids).expect("no limits");
            assert_eq!(ids.is_empty(), word.is_empty());
        }
        KnownWords::of_caches(&[cache]);
    }
}

/// `"!":33` and so on: the bytes as entries of a vocabulary over their ByteLevel characters.
fn byte_entries() -> String {
    let mut entries = String::new();
    let mut next = 256;
    for byte in 0..=255u8 {
        let printable = matches!(byte, 33..=126 | 161..=172 | 174..=255);
        let char = if printable { char::from(byte) } else { char::from_u32(next).expect("a character") };
        next += u32::from(!printable);
        let escape = if matches!(char, '"' | '\\') { "\\" } else { "" };
        let comma = if byte == 0 { "" } else { "," };
        write!(entries, r#"{comma}"{escape}{char}":{byte}"#).expect("a string takes all");
    }
    entries
}

fn holds(vocabulary: Vocabulary, text: &[u8]) {
    let json = vocabulary.to_json();
    let again = Vocabulary::from_json(&json, Path::new("again.json")).expect("what we write can be read");
    assert_eq!(again.to_json(), json);
    let text = &text[..text.len().min(300)];
    let expected = reference::encode::encode(&vocabulary, text, Special::Allow);
    for vocabulary in [vocabulary, again] {
        let encoder = Encoder::new(Arc::new(vocabulary));
        let mut ids: Vec<u32> = Vec::new();
        match encoder.encode(text, Special::Allow, &mut Cache::new(), &mut ids) {
            Ok(()) => assert_eq!(ids, *expected.as_ref().expect("the fast one had no error")),
            Err(_) => assert!(expected.is_err()),
        }
    }
}
