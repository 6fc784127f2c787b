//! JSON lines: the string field of a record that is its document.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

/// Longer lines are refused: a line is held in memory whole.
pub(super) const MAX_LINE_BYTES: usize = 512 << 20;

/// Reads one field of a JSON object, checking the syntax of the rest and keeping nothing of it.
#[derive(Clone, Debug)]
pub struct Field(String);

impl Field {
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The field's text in `line`; a line of white space is an empty document. Of a repeated field the last counts.
    ///
    /// # Errors
    /// One sentence of what was expected and found.
    pub(super) fn read<'l>(&self, line: &'l [u8]) -> Result<Cow<'l, [u8]>, String> {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(Cow::Borrowed(b""));
        }
        let mut json = serde_json::Deserializer::from_slice(line);
        let found = json.deserialize_any(Record(&self.0)).and_then(|found| json.end().map(|()| found));
        match found {
            Ok(Some(Cow::Borrowed(text))) => Ok(Cow::Borrowed(text.as_bytes())),
            Ok(Some(Cow::Owned(text))) => Ok(Cow::Owned(text.into_bytes())),
            Ok(None) => Err(format!("expected a field {:?} (--field), found none", self.0)),
            Err(error) => {
                // serde_json counts lines from the start of what it was given, which is one line of the file.
                let (found, column) = (error.to_string(), error.column());
                let found = found.split(" at line ").next().unwrap_or_default();
                Err(format!("expected a JSON object with a string field {:?}, found {found} (column {column})", self.0))
            }
        }
    }
}

/// The visitor of a record: the value of the wanted field, if there is one.
struct Record<'f>(&'f str);

impl<'de> Visitor<'de> for Record<'_> {
    type Value = Option<Cow<'de, str>>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<Text<'de>>()? {
            if key.0 == self.0 {
                found = Some(map.next_value::<Text<'de>>()?.0);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// A string, borrowed from the line where it has no escapes.
struct Text<'de>(Cow<'de, str>);

impl<'de> serde::Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrow;
        impl<'de> Visitor<'de> for Borrow {
            type Value = Text<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("a string")
            }

            fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }

            fn visit_bytes<E: serde::de::Error>(self, _: &[u8]) -> Result<Text<'de>, E> {
                Err(E::custom("bytes that are not UTF-8"))
            }
        }
        deserializer.deserialize_str(Borrow).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<String, String> {
        Field::new("text").read(line.as_bytes()).map(|text| String::from_utf8(text.into_owned()).unwrap())
    }

    #[test]
    fn the_field_is_found_wherever_it_stands() {
        assert_eq!(read(r#"{"text": "plain"}"#).unwrap(), "plain");
        assert_eq!(
            read(r#"{"id": [1, {"text": "no"}], "text": "a\nb\u00e9\ud83d\ude00", "z": null}"#).unwrap(),
            "a\nbé😀"
        );
        assert_eq!(read(r#"{"te\u0078t": "escaped key"} "#).unwrap(), "escaped key");
        assert_eq!(read(r#"{"text": "first", "text": "last"}"#).unwrap(), "last");
        assert_eq!(read(" \r").unwrap(), "");
    }

    #[test]
    fn what_is_no_record_says_what_it_is() {
        for (line, message) in [
            (r#"{"title": "x"}"#, "expected a field \"text\" (--field), found none"),
            (r#"{"text": 3}"#, "invalid type: integer `3`, expected a string"),
            (r#"{"text": null}"#, "invalid type: null, expected a string"),
            ("plain words", "found expected value (column 1)"),
            ("[1]", "invalid type: sequence, expected an object"),
            (r#"{"text": "x"} {}"#, "trailing characters"),
            (r#"{"text": "\ud800"}"#, "hex escape"),
        ] {
            let found = read(line).unwrap_err();
            assert!(found.contains(message), "{line}: {found}");
        }
        assert!(Field::new("text").read(b"{\"text\": \"\xff\"}").is_err());
        assert!(Field::new("text").read("[".repeat(1 << 20).as_bytes()).is_err());
    }
}
