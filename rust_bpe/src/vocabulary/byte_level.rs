//! GPT-2's way to write bytes as visible characters, which the files of Hugging Face have for tokens.

/// Bytes that stand for themselves as Latin-1 characters: printable, no space, no soft hyphen.
const fn is_visible(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

/// The other 68 bytes become U+0100, U+0101 and so on, in their order.
const fn characters() -> [char; 256] {
    let mut table = ['\0'; 256];
    let mut next = 0x100;
    let mut byte = 0;
    while byte < 256 {
        let code = if is_visible(byte as u8) {
            byte as u32
        } else {
            next += 1;
            next - 1
        };
        table[byte] = match char::from_u32(code) {
            Some(character) => character,
            None => panic!("below U+0144"),
        };
        byte += 1;
    }
    table
}

const CHARACTERS: [char; 256] = characters();

/// The byte of each character below U+0144; the 68 that stand for none have 256.
const BYTES: [u16; 0x144] = {
    let mut table = [256; 0x144];
    let mut byte = 0;
    while byte < 256 {
        table[CHARACTERS[byte] as usize] = byte as u16;
        byte += 1;
    }
    table
};

/// Appends the characters of `bytes` to `text`.
pub(crate) fn write(bytes: &[u8], text: &mut String) {
    text.extend(bytes.iter().map(|&byte| CHARACTERS[byte as usize]));
}

/// Replaces `bytes` by what `text` stands for. The error is the first character that stands for no byte.
pub(crate) fn read(text: &str, bytes: &mut Vec<u8>) -> Result<(), char> {
    bytes.clear();
    for character in text.chars() {
        match BYTES.get(character as usize) {
            Some(&byte) if byte < 256 => bytes.push(byte as u8),
            _ => return Err(character),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_a_character_of_its_own_and_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        let mut text = String::new();
        write(&all, &mut text);
        let mut back = Vec::new();
        read(&text, &mut back).unwrap();
        assert_eq!(back, all);
        assert_eq!(text.chars().nth(b' ' as usize), Some('Ġ'));
        assert_eq!(text.chars().nth(b'\n' as usize), Some('Ċ'));
    }

    #[test]
    fn a_character_that_stands_for_no_byte_is_named() {
        let mut bytes = Vec::new();
        assert_eq!(read("a b", &mut bytes), Err(' '));
        assert_eq!(read("\u{ad}", &mut bytes), Err('\u{ad}'));
        assert_eq!(read("語", &mut bytes), Err('語'));
    }
}
