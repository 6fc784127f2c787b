"""From text to a model that speaks: Python's standard library -> tokenizer -> training -> a sample and a picture.

Everything happens under build/demo/, by the commands a user would type.
"""

import argparse
import json
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "demo"
PROMPT = "def main("


def main() -> None:
    """Run the demo; `--max-bits-per-byte` turns it into a check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=180, help="time for training")
    parser.add_argument("--max-bits-per-byte", type=float, help="fail above this")
    arguments = parser.parse_args()

    WORK.mkdir(parents=True, exist_ok=True)
    collect(WORK / "python-stdlib.txt")
    # A small vocabulary: three minutes of two cores are better spent on the model than on a large head. A twentieth for
    # validation: the files are of very different kinds, and one per cent of them (15) says little.
    pylm("tokenize", "python-stdlib.txt", "--vocab-size", "4096", "--val-fraction", "0.05", "--force")
    run = ["--run", f"runs/demo-{arguments.seconds}s"]
    pylm("train", "--data", "python-stdlib", "--budget", f"{arguments.seconds}s", *run)
    folder = WORK / run[1]
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    print(f"\n--- before training\n{samples[0]['text']}\n\n--- after training", flush=True)
    pylm("generate", run[1], "--prompt", PROMPT, "--max-tokens", "200", "--seed", "1")

    record = json.loads((folder / "run.json").read_text())
    print(
        f"\nvalidation loss  {record['loss']:.4f} nats per token, {record['bits_per_byte']:.4f} bits per byte"
    )
    print(f"loss curve       {(folder / 'curve.png').relative_to(ROOT)}")
    limit = arguments.max_bits_per_byte
    if limit is not None and record["bits_per_byte"] > limit:
        sys.exit(f"error: expected at most {limit} bits per byte, found {record['bits_per_byte']:.4f}")


def collect(path: Path) -> None:
    """Join the standard library's sources, sorted by path, as documents of one file."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    sources = sorted(file for file in stdlib.rglob("*.py") if "site-packages" not in file.parts)
    text = b"<|endoftext|>".join(source.read_bytes() for source in sources)
    if not path.exists() or path.read_bytes() != text:
        path.write_bytes(text)
    print(f"{len(sources):,} files of Python's standard library, {len(text) / 1e6:.1f} MB", flush=True)


def pylm(*arguments: str) -> None:
    """Show and run a command as a user would type it."""
    print(f"\n$ {shlex.join(('pylm', *arguments))}", flush=True)
    subprocess.run([sys.executable, "-m", "pylm", *arguments], cwd=WORK, check=True)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)  # the command has said why
