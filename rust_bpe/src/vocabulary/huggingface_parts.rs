//! The small parts of a `tokenizer.json` around its model: which of them mean what we do, and which are refused.

use serde_json::Value;
use serde_json::value::RawValue;

use crate::pretokenize::Pattern;

type Result<T> = std::result::Result<T, String>;

/// A part longer than this is refused before it becomes a tree of values, which takes many times its memory.
const MAX_PART_BYTES: usize = 1 << 20;

/// Accepts a part that is absent or null, and names any other.
pub(super) fn refuse(name: &str, part: Option<&RawValue>) -> Result<()> {
    match value(name, part)? {
        Value::Null => Ok(()),
        other => Err(format!("{name}{} is not supported", kind(&other))),
    }
}

/// The pattern, and whether tokens are written as GPT-2's characters for bytes.
pub(super) fn pre_tokenizer(part: Option<&RawValue>) -> Result<(Pattern, bool)> {
    let part = value("pre_tokenizer", part)?;
    let steps = match &part {
        Value::Null => return Ok((Pattern::None, false)),
        Value::Object(fields) if fields.get("type") == Some(&"Sequence".into()) => {
            let steps = fields.get("pretokenizers").and_then(Value::as_array);
            steps.ok_or("pre_tokenizer Sequence has no list \"pretokenizers\"")?.as_slice()
        }
        step => std::slice::from_ref(step),
    };
    match steps {
        [split] if is(split, "Split") => Ok((split_pattern(split)?, false)),
        [bytes] if is(bytes, "ByteLevel") => {
            let pattern = if byte_level_splits(bytes)? { Pattern::Gpt2 } else { Pattern::None };
            Ok((pattern, true))
        }
        [split, bytes] if is(split, "Split") && is(bytes, "ByteLevel") => {
            if byte_level_splits(bytes)? {
                return Err(
                    "pre_tokenizer Split followed by ByteLevel with use_regex splits twice, which is not supported"
                        .to_owned(),
                );
            }
            Ok((split_pattern(split)?, true))
        }
        steps => {
            let names: Vec<String> = steps.iter().map(|step| kind(step).trim().to_owned()).collect();
            Err(format!("pre_tokenizer {} is not supported", names.join(", ")))
        }
    }
}

/// A post-processor may only be one that adds no token.
pub(super) fn check_post_processor(part: Option<&RawValue>) -> Result<()> {
    let part = value("post_processor", part)?;
    let steps = match &part {
        Value::Null => return Ok(()),
        Value::Object(fields) if fields.get("type") == Some(&"Sequence".into()) => {
            fields.get("processors").and_then(Value::as_array).ok_or("post_processor Sequence has no list")?.as_slice()
        }
        step => std::slice::from_ref(step),
    };
    match steps.iter().find(|step| !is(step, "ByteLevel")) {
        None => Ok(()),
        Some(step) => Err(format!("post_processor{} adds tokens to every text, which is not supported", kind(step))),
    }
}

/// The decoder must undo what the pre-tokenizer did.
pub(super) fn check_decoder(part: Option<&RawValue>, over_bytes: bool) -> Result<()> {
    let part = value("decoder", part)?;
    let expected = if over_bytes { "ByteLevel" } else { "Fuse" };
    if part.is_null() || is(&part, expected) {
        return Ok(());
    }
    Err(format!("decoder{} is not supported here, only {expected}", kind(&part)))
}

fn split_pattern(step: &Value) -> Result<Pattern> {
    if step["behavior"] != "Isolated" {
        return Err(format!(
            "pre_tokenizer Split with behavior {} is not supported, only \"Isolated\"",
            step["behavior"]
        ));
    }
    if step["invert"] != Value::Bool(false) {
        return Err("pre_tokenizer Split with invert is not supported".to_owned());
    }
    let regex = step["pattern"]["Regex"].as_str();
    let regex =
        regex.ok_or_else(|| format!("pre_tokenizer Split by {} is not supported, only a Regex", step["pattern"]))?;
    // A file has regular expressions alone: "none" is the four letters here, not the pattern of that name.
    let parsed = match Pattern::parse(regex) {
        Ok(pattern) if pattern.name() == regex => Pattern::parse(&format!("(?:{regex})")),
        parsed => parsed,
    };
    parsed.map_err(|error| format!("pre_tokenizer: {error}"))
}

/// Whether a ByteLevel step splits by GPT-2's pattern.
fn byte_level_splits(step: &Value) -> Result<bool> {
    if step["add_prefix_space"] != Value::Bool(false) {
        return Err("pre_tokenizer ByteLevel with add_prefix_space is not supported".to_owned());
    }
    Ok(step["use_regex"] != Value::Bool(false))
}

fn value(name: &str, part: Option<&RawValue>) -> Result<Value> {
    let Some(part) = part else { return Ok(Value::Null) };
    if part.get().len() > MAX_PART_BYTES {
        return Err(format!("{name} has {} bytes, more than {MAX_PART_BYTES}", part.get().len()));
    }
    serde_json::from_str(part.get()).map_err(|error| format!("{name}: {error}"))
}

fn is(step: &Value, name: &str) -> bool {
    step["type"] == name
}

fn kind(step: &Value) -> String {
    step["type"].as_str().map(|name| format!(" {name}")).unwrap_or_default()
}
