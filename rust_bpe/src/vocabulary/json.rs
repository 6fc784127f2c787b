//! The two large parts of a JSON vocabulary, read without an object for each token: its `vocab` and its `merges`.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::token::MAX_VOCAB_SIZE;

/// The entries of a JSON object of strings to ids, in its order, repeated keys included.
#[derive(Debug, Default)]
pub(super) struct Entries {
    text: String,
    /// End of the string in `text`, and the id.
    ends: Vec<(usize, u32)>,
}

impl Entries {
    /// Of all strings together.
    pub fn n_bytes(&self) -> usize {
        self.text.len()
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, u32)> {
        (0..self.ends.len()).map(|index| {
            let start = if index == 0 { 0 } else { self.ends[index - 1].0 };
            (&self.text[start..self.ends[index].0], self.ends[index].1)
        })
    }
}

/// The pairs of a list of merges, each `"left right"` or `["left", "right"]`.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    text: String,
    /// Ends of both strings in `text`.
    ends: Vec<(usize, usize)>,
}

impl Pairs {
    pub fn push(&mut self, left: &str, right: &str) {
        self.text.push_str(left);
        let end = self.text.len();
        self.text.push_str(right);
        self.ends.push((end, self.text.len()));
    }

    /// Adds a merge written with one space between its parts.
    pub fn push_line(&mut self, line: &str) -> Result<(), String> {
        match line.split_once(' ') {
            Some((left, right)) if !left.is_empty() && !right.is_empty() && !right.contains(' ') => {
                self.push(left, right);
                Ok(())
            }
            _ => Err(format!("expected two tokens and a space between them, found {}", super::show(line.as_bytes()))),
        }
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        (0..self.ends.len()).map(|index| {
            let start = if index == 0 { 0 } else { self.ends[index - 1].1 };
            let (middle, end) = self.ends[index];
            (&self.text[start..middle], &self.text[middle..end])
        })
    }
}

/// Appends a JSON string to a buffer.
struct Append<'b>(&'b mut String);

impl<'de> DeserializeSeed<'de> for Append<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Append<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a token as a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.0.push_str(text);
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;

        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of tokens to ids")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Entries::default();
                while map.next_key_seed(Append(&mut entries.text))?.is_some() {
                    entries.ends.push((entries.text.len(), map.next_value()?));
                    check_count::<A::Error>("tokens", entries.ends.len())?;
                }
                Ok(entries)
            }
        }

        deserializer.deserialize_map(EntriesVisitor)
    }
}

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor;

        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Pairs;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of merges")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Pairs, A::Error> {
                let mut pairs = Pairs::default();
                while list.next_element_seed(PairSeed(&mut pairs))?.is_some() {
                    check_count::<A::Error>("merges", pairs.ends.len())?;
                }
                Ok(pairs)
            }
        }

        deserializer.deserialize_seq(PairsVisitor)
    }
}

struct PairSeed<'p>(&'p mut Pairs);

impl<'de> DeserializeSeed<'de> for PairSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for PairSeed<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a merge: \"left right\" or [\"left\", \"right\"]")
    }

    fn visit_str<E: Error>(self, line: &str) -> Result<(), E> {
        self.0.push_line(line).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<(), A::Error> {
        let pairs = self.0;
        let missing = |n| A::Error::invalid_length(n, &"two tokens");
        parts.next_element_seed(Append(&mut pairs.text))?.ok_or_else(|| missing(0))?;
        let middle = pairs.text.len();
        parts.next_element_seed(Append(&mut pairs.text))?.ok_or_else(|| missing(1))?;
        if parts.next_element::<serde::de::IgnoredAny>()?.is_some() {
            return Err(missing(3));
        }
        pairs.ends.push((middle, pairs.text.len()));
        Ok(())
    }
}

fn check_count<E: Error>(what: &str, count: usize) -> Result<(), E> {
    if count > MAX_VOCAB_SIZE { Err(E::custom(format!("more than {MAX_VOCAB_SIZE} {what}"))) } else { Ok(()) }
}
