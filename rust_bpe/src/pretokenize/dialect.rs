//! An expression of Oniguruma, which reads tokenizer.json, for a library that takes some sets of it for others.
//!
//! Over all code points (compared with tokenizers 0.23) the two agree on `.`, `\d`, `\s`, `\h` and `\p{...}`, and not on
//! `\w` and the sets with names: the library has ASCII alone in `[:alpha:]`, and Oniguruma no joiners in `\w`, but the six
//! numbers of Latin-1, except inside `[...]`. So these are written out.

/// The characters of `\w` inside `[...]`.
const WORD: &str = r"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}";
/// What `\w` has beyond them elsewhere.
const LATIN_NUMBERS: &str = r"\x{B2}\x{B3}\x{B9}\x{BC}-\x{BE}";

/// Sets with names, as they stand in `[[:alpha:]]`. Left out, `graph` and `print`: what they hold changes with the version.
const NAMED: [(&str, &str); 12] = [
    ("alnum", r"\p{Alphabetic}\p{Nd}"),
    ("alpha", r"\p{Alphabetic}"),
    ("ascii", r"\x00-\x7F"),
    ("blank", r"\p{Zs}\t"),
    ("cntrl", r"\p{Cc}"),
    ("digit", r"\p{Nd}"),
    ("lower", r"\p{Lowercase}"),
    ("punct", r"\p{P}\p{S}"),
    ("space", r"\s"),
    ("upper", r"\p{Uppercase}"),
    ("word", WORD),
    ("xdigit", "0-9A-Fa-f"),
];

/// The expression as the library must be given it. The error is the name of a set that cannot be written out.
pub fn for_library(source: &str) -> Result<String, &str> {
    let mut written = String::with_capacity(source.len());
    let mut depth = 0; // of `[`
    let mut rest = source;
    while let Some(char) = rest.chars().next() {
        let (part, behind) = rest.split_at(char.len_utf8());
        rest = behind;
        match part {
            "\\" => {
                let escaped = rest.chars().next().map_or(0, char::len_utf8);
                let (letter, behind) = rest.split_at(escaped);
                rest = behind;
                let word = if depth > 0 { WORD.to_owned() } else { format!("{WORD}{LATIN_NUMBERS}") };
                match letter {
                    "w" => written += &format!("[{word}]"),
                    "W" => written += &format!("[^{word}]"),
                    "b" if depth == 0 => written += &format!("(?:(?<=[{word}])(?![{word}])|(?<![{word}])(?=[{word}]))"),
                    "B" if depth == 0 => written += &format!("(?:(?<=[{word}])(?=[{word}])|(?<![{word}])(?![{word}]))"),
                    "p" | "P" if property(rest).is_some_and(|name| name.eq_ignore_ascii_case("word")) => {
                        return Err("word");
                    }
                    _ => written.extend([part, letter]),
                }
            }
            "[" if depth > 0
                && let Some((inverted, name, behind)) = named(rest) =>
            {
                let (_, items) = NAMED.iter().find(|(known, _)| *known == name).ok_or(name)?;
                written += &format!("[{}{items}]", if inverted { "^" } else { "" });
                rest = behind;
            }
            "[" => {
                depth += 1;
                // A bracket that comes first is one of the set.
                let first = if rest.starts_with("^]") { 2 } else { rest.starts_with([']', '^']).into() };
                let (first, behind) = rest.split_at(first);
                written.extend([part, first]);
                rest = behind;
            }
            _ => {
                depth -= usize::from(part == "]" && depth > 0);
                written += part;
            }
        }
    }
    Ok(written)
}

/// The name in `{name}` or `{^name}`.
fn property(rest: &str) -> Option<&str> {
    let (name, _) = rest.strip_prefix('{')?.split_once('}')?;
    Some(name.trim_start_matches('^').trim())
}

/// Of `:name:]` or `:^name:]`, whether it is inverted, the name, and what follows.
fn named(rest: &str) -> Option<(bool, &str, &str)> {
    let (name, behind) = rest.strip_prefix(':')?.split_once(":]")?;
    let (inverted, name) = name.strip_prefix('^').map_or((false, name), |name| (true, name));
    (!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase())).then_some((inverted, name, behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_that_are_read_differently_are_written_out_and_all_else_stays() {
        for same in
            [r"\\w+|\d", r"[^\s\p{L}]+$", r"[]\]]a]", r"[^]:alpha:]", r"[a[b]]:alpha:", r"[\b]", "é[語]", r"\", ""]
        {
            assert_eq!(for_library(same), Ok(same.to_owned()));
        }
        let outside = format!("[{WORD}{LATIN_NUMBERS}]");
        assert_eq!(for_library(r"\w[\w-]\W"), Ok(format!("{outside}[[{WORD}]-][^{WORD}{LATIN_NUMBERS}]")));
        assert_eq!(for_library(r"[[:^alpha:]x[:space:]]"), Ok(r"[[^\p{Alphabetic}]x[\s]]".to_owned()));
        assert_eq!(for_library("[[:print:]]"), Err("print"));
        assert_eq!(for_library(r"\p{^Word}"), Err("word"));
    }
}
