"""Writes the Unicode class table of the pre-tokenizers, `rust_bpe/src/pretokenize/unicode_tables.rs`.

    uv run --no-project --with unicodedata2==16.0.0 rust_bpe/scripts/unicode_classes.py          # write it
    uv run --no-project --with unicodedata2==16.0.0 rust_bpe/scripts/unicode_classes.py --check  # or compare

Unicode 16.0.0 is what tiktoken 0.14 classes by: its letters, numbers, marks and white space equal these on
all code points, where 15.1 differs on 4,433 and 17.0 on 4,700. So another version is refused.
"""

from __future__ import annotations

import sys
from pathlib import Path

UNICODE_VERSION = "16.0.0"
SCRIPT = Path(__file__)
TABLE = SCRIPT.parent.parent / "src" / "pretokenize" / "unicode_tables.rs"
# The numbers are those of the constants in class.rs.
CLASSES = {1: ("Lu", "Lt"), 2: ("Ll",), 3: ("Lm", "Lo"), 4: ("Mn", "Mc", "Me"), 5: ("Nd", "Nl", "No")}
CLASS_OF_CATEGORY = {category: number for number, categories in CLASSES.items() for category in categories}
SPACE = 6
# The property White_Space: the separators (Z*) and these controls.
CONTROL_SPACES = {0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x85}
BLOCK = 64  # code points that share all bytes of their UTF-8 form but the last
BMP_BLOCKS = 0x10000 // BLOCK


def classes() -> list[int]:
    """The class of every code point, surrogates (which no UTF-8 text holds) as 0."""
    import unicodedata2

    if unicodedata2.unidata_version != UNICODE_VERSION:
        sys.exit(
            f"the table needs Unicode {UNICODE_VERSION}, unicodedata2 has {unicodedata2.unidata_version}"
        )
    result = []
    for code in range(0x110000):
        category = unicodedata2.category(chr(code))
        space = category[0] == "Z" or code in CONTROL_SPACES
        result.append(SPACE if space else CLASS_OF_CATEGORY.get(category, 0))
    return result


def number(numbers: dict[tuple[int, ...], int], row: tuple[int, ...]) -> int:
    """The number of a row among the distinct rows seen so far."""
    return numbers.setdefault(row, len(numbers))


def table() -> str:
    """The source text of the table: a trie whose levels are the bytes of UTF-8."""
    of_code = classes()
    blocks: dict[tuple[int, ...], int] = {}
    block_of = [number(blocks, tuple(of_code[i : i + BLOCK])) for i in range(0, len(of_code), BLOCK)]
    # Beyond the basic plane most pages of 64 blocks are alike: they are shared.
    pages: dict[tuple[int, ...], int] = {}
    beyond = range(BMP_BLOCKS, len(block_of), 64)
    page_of = [number(pages, tuple(block_of[i : i + 64])) for i in beyond]
    block_index = block_of[:BMP_BLOCKS] + [block for page in pages for block in page]
    words = []
    for block in blocks:
        for start in range(0, BLOCK, 16):
            words.append(sum(c << (4 * i) for i, c in enumerate(block[start : start + 16])))
    return (
        f"//! The class of every code point in Unicode {UNICODE_VERSION}, by scripts/{SCRIPT.name}.\n"
        "//!\n"
        "//! A trie over the bytes of UTF-8: page (code >> 12), block (code >> 6), place in the block.\n\n"
        f'pub const UNICODE_VERSION: &str = "{UNICODE_VERSION}";\n\n'
        "/// The page of `code >> 12` beyond the basic plane, whose own pages are 0 to 15.\n"
        + array("PAGE_OF", "u8", [BMP_BLOCKS // 64 + page for page in page_of], "{}")
        + "\n/// The block of each 64 code points: 64 entries a page.\n"
        + array("BLOCK_OF", "u16", block_index, "{}")
        + "\n/// Blocks of 64 code points, four bits each, the lowest first.\n"
        + array("BLOCKS", "u64", words, "0x{:016x}")
    )


def array(name: str, kind: str, values: list[int], form: str) -> str:
    """One Rust array in lines of at most 120 characters, which rustfmt leaves alone."""
    lines, line = [], "   "
    for value in values:
        item = f" {form.format(value)},"
        if len(line) + len(item) > 120:
            lines.append(line)
            line = "   "
        line += item
    lines.append(line)
    body = "\n".join(lines)
    return f"#[rustfmt::skip]\npub const {name}: [{kind}; {len(values)}] = [\n{body}\n];\n"


def main() -> None:
    """Writes the file, or with --check fails when it differs."""
    text = table()
    if "--check" in sys.argv:
        sys.exit(0 if TABLE.read_text(encoding="utf-8") == text else f"{TABLE.name} differs: run this script")
    TABLE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
