"""Kept inputs of the fuzz targets: tests/fuzzed/TARGET.txt to files for the fuzzer, and back.

python fuzz/inputs.py unpack TARGET        # into fuzz/corpus/TARGET, to begin with
cargo fuzz run -s none TARGET              # finds more
python fuzz/inputs.py keep TARGET FILE...  # adds inputs to those that the tests check
"""

import hashlib
import sys
from pathlib import Path

FUZZ = Path(__file__).resolve().parent
ESCAPES = {0x09: "\\t", 0x0A: "\\n", 0x0D: "\\r", 0x22: '\\"', 0x27: "\\'", 0x5C: "\\\\"}


def escaped(content: bytes) -> str:
    """As Rust's escape_ascii."""
    return "".join(
        ESCAPES.get(byte) or (chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}") for byte in content
    )


def unescaped(line: str) -> bytes:
    """The bytes of a line that `escaped` wrote."""
    return line.encode().decode("unicode_escape").encode("latin-1")


def main(command: str, target: str, *files: str) -> None:
    """Do what the command says."""
    kept = FUZZ.parent / "tests" / "fuzzed" / f"{target}.txt"
    lines = kept.read_text().splitlines()
    if command == "unpack":
        folder = FUZZ / "corpus" / target
        folder.mkdir(parents=True, exist_ok=True)
        for line in lines:
            content = unescaped(line)
            (folder / hashlib.sha1(content).hexdigest()).write_bytes(content)
    elif command == "keep":
        lines += [escaped(Path(file).read_bytes()) for file in files]
        kept.write_text("".join(f"{line}\n" for line in dict.fromkeys(lines)))
    else:
        sys.exit(__doc__)


main(*sys.argv[1:])
