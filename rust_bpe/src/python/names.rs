//! The settings that Python gives by name.

use crate::error::{Error, Result};
use crate::special::Special;
use crate::train::Ties;
use crate::vocabulary::SpecialIds;

pub(super) fn special_of(name: &str) -> Result<Special> {
    match name {
        "error" => Ok(Special::Error),
        "allow" => Ok(Special::Allow),
        "text" => Ok(Special::Text),
        other => Err(one_of("special", other, "error, allow, text")),
    }
}

pub(super) fn special_ids_of(name: &str) -> Result<SpecialIds> {
    match name {
        "end" => Ok(SpecialIds::End),
        "front" => Ok(SpecialIds::Front),
        other => Err(one_of("special_ids", other, "end, front")),
    }
}

pub(super) fn ties_of(name: &str) -> Result<Ties> {
    match name {
        "bytes" => Ok(Ties::Bytes),
        "ids" => Ok(Ties::Ids),
        "huggingface" => Ok(Ties::HuggingFace),
        other => Err(one_of("ties", other, "bytes, ids, huggingface")),
    }
}

fn one_of(setting: &str, found: &str, names: &str) -> Error {
    Error::Setting(format!("{setting} {found:?}: expected one of {names}"))
}
