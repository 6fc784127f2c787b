"""Kill -9 at random moments, resume, compare with a run left in peace: `python benches/kill_train.py [KILLS [SEED]]`.

The weights must be equal to the bit, and the metrics the same lines. Moments are drawn from the whole life of a
process: while it loads, steps, evaluates, saves and deletes. Processes are forked, so that torch is there already.
"""

import contextlib
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import pylm.launch  # noqa: F401  # torch, once for all processes
from pylm.cli.main import main as run_pylm

N_STEPS = 300
COMMAND = (
    f"train --steps {N_STEPS} --batch-size 8 --context 32 --save-every 5 --keep 2 --device cpu --set model.n_layers=2 "
    "--set model.width=64 --set model.n_heads=2 --set model.mlp_hidden=128 --set model.dropout=0.1 "
    "--set train.eval_every=20 --set train.eval_tokens=512 --set train.sample_every=50 --set train.sample_tokens=8"
).split()


def start(arguments: list[str]) -> int:
    """Run a command of pylm in a forked process, silently; returns its id."""
    process = os.fork()
    if process:
        return process
    code = 99
    try:
        with Path(os.devnull).open("w") as nowhere:
            sys.stderr = nowhere
            with contextlib.redirect_stdout(nowhere):
                run_pylm(arguments)
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        os._exit(code)


def finish(arguments: list[str]) -> float:
    """Run a command to its end and return its seconds; it must succeed."""
    began = time.monotonic()
    code = os.waitstatus_to_exitcode(os.waitpid(start(arguments), 0)[1])
    if code:
        raise SystemExit(f"pylm {' '.join(arguments)} ended with {code}")
    return time.monotonic() - began


def weights(run: str) -> str:
    """The sha256 of the last checkpoint's weights."""
    folder = Path("runs") / run / "checkpoints"
    step = json.loads((folder / "last.json").read_text())["path"]
    return hashlib.sha256((folder / step / "model.safetensors").read_bytes()).hexdigest()


def losses(run: str) -> list[tuple[int, float]]:
    """Steps and losses of metrics.jsonl."""
    lines = (Path("runs") / run / "metrics.jsonl").read_text().splitlines()
    return [(line["step"], line["loss"]) for line in map(json.loads, lines) if "loss" in line]


def saved_step() -> int:
    """The step that the run would go on from."""
    try:
        return int(json.loads(Path("runs/killed/checkpoints/last.json").read_text())["step"])
    except FileNotFoundError:
        return -1


def kill_often(n_kills: int, generator: random.Random) -> list[int]:
    """Start the run again and again, killing it; returns the steps it stood at."""
    steps = []
    for number in range(n_kills):
        process = start([*COMMAND, "--run", "killed"])
        if number % 2:  # while it starts, perhaps; else somewhere between here and its share of the way
            time.sleep(generator.uniform(0, 0.6))
        else:
            goal = min(saved_step() + generator.randint(0, 2 * N_STEPS // n_kills), N_STEPS - 20)
            while saved_step() < goal and os.waitpid(process, os.WNOHANG)[0] == 0:
                time.sleep(0.001)
            time.sleep(generator.uniform(0, 0.05))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        steps.append(saved_step())
    return steps


def main() -> None:
    """Print where it was killed, and whether the end is the same."""
    n_kills = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        generator = random.Random(seed)
        words = (" ".join(generator.choices(["cat", "dog", "sees", "the", "red"], k=6)) for _ in range(3000))
        Path("words.txt").write_text("\n".join(words) + "\n")
        finish(["tokenize", "words.txt", "--format", "lines", "--tokenizer", "byte"])
        whole_s = finish([*COMMAND, "--run", "in-peace"])
        steps = kill_often(n_kills, generator)
        finish([*COMMAND, "--run", "killed"])
        print(f"undisturbed    {whole_s:.1f} s, {N_STEPS} steps")
        print(f"killed         {n_kills} times, the checkpoint then at step {', '.join(map(str, steps))}")
        same = weights("killed") == weights("in-peace")
        print(f"weights        {'equal to the bit' if same else 'DIFFERENT'}")
        same_losses = losses("killed") == losses("in-peace")
        print(f"losses         {'the same lines' if same_losses else 'DIFFERENT'}")
        sys.exit(not (same and same_losses))


if __name__ == "__main__":
    main()
