"""Bits per byte of held-out novels after a budget: `python benches/novels.py [--budget 10m] [--only NAME]...`.

The text is novels_a of the shared data, its last five novels held out, BPE of 8,192 ids. pylm trains by its defaults
(`pylm train --budget`, `--set` changes them); a model of nanoGPT's shape for a CPU (4 layers x 128, 12 x 64), one of 6
layers x 384 (16 x 256) and Llama of transformers in pylm's size take the same tokens, precision and time, their rate
warmed up for a twentieth of it and falling by a cosine to a tenth, at each of three peaks. pylm's evaluations count as
its time, the others' do not. All are evaluated at the end on the whole held-out text.
"""

import argparse
import lzma
import math
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from corpora import BUILD, shared
from torch import Tensor, nn
from training_peers import LlamaLoss, Peer, Shape, llama, peer_step

from pylm.auto import parse_budget
from pylm.checkpoint import load_for_inference, load_state
from pylm.config import Config, Given, parse_set
from pylm.dataset import Dataset
from pylm.evaluate import evaluate
from pylm.launch import Request, launch
from pylm.mixture import Mixture
from pylm.precision import Precision
from pylm.progress import ProgressLine
from pylm.tokenize import Settings, tokenize

N_HELD_OUT, VOCAB_SIZE = 5, 8_192
SEPARATOR = b"<|endoftext|>\n"
NAMES = ("pylm", "nanogpt-4x128", "nanogpt-6x384", "llama")
WARM_UP = 0.05  # of a peer's time


def main() -> None:
    """Train each contender and print what it reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", default="10m")
    parser.add_argument(
        "--only", action="append", choices=NAMES, help="one of the contenders; may be repeated"
    )
    parser.add_argument("--rates", default="1e-3,2e-3,4e-3", help="of the others")
    parser.add_argument("--seeds", type=int, default=3, help="of pylm; the others have one a rate")
    parser.add_argument("--seed", type=int, default=0, help="of the others")
    parser.add_argument("--size", metavar="L,D,H,T,B", help="what an earlier pylm chose, for llama alone")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of pylm")
    options = parser.parse_args()
    budget = parse_budget(options.budget)
    names = options.only or list(NAMES)
    if "llama" in names and "pylm" not in names and not options.size:
        parser.error("llama has the size that pylm chose: --only pylm --only llama, or --size")
    data = novels()
    chosen = tuple(map(int, options.size.split(","))) if options.size else None
    for name in (name for name in NAMES if name in names):
        if name == "pylm":
            found = []
            for seed in range(options.seeds):
                bits, n_tokens, n_parameters, config = train_pylm(
                    data, budget, options.dtype, seed, options.set
                )
                found.append(bits)
                say(f"pylm, seed {seed}", n_parameters, n_tokens, bits)
                size, train = config.model, config.train
                chosen = (size.n_layers, size.width, size.n_heads, train.context, train.batch_size)
            print(f"pylm, mean: {statistics.mean(found):.4f}", flush=True)
            continue
        for rate in map(float, options.rates.split(",")):
            shape, model = peer_of(name, data.first.vocab_size, chosen, options.seed)
            if model is None:
                break
            budget_s = float(budget["train.budget_s"] or 0)
            n_tokens = train_peer(model, shape, data, budget_s, rate, options.dtype, options.seed)
            n_parameters = sum(parameter.numel() for parameter in model.parameters())
            bits = peer_bits(model, shape, data, options.dtype)
            say(f"{name}, rate {rate:g}, seed {options.seed}", n_parameters, n_tokens, bits)


def say(label: str, n_parameters: int, n_tokens: int, bits: float) -> None:
    """Print a row."""
    print(
        f"{label:34} {n_parameters:12,} parameters {n_tokens:14,} tokens  {bits:.4f} bits per byte",
        flush=True,
    )


def novels() -> Mixture:
    """The dataset, made on first use."""
    BUILD.mkdir(parents=True, exist_ok=True)
    train, val = BUILD / "novels_train.txt", BUILD / "novels_val.txt"
    if not val.exists():
        packed = shared() / "data" / "english" / "novels_a.txt.xz"
        parts = lzma.decompress(packed.read_bytes()).split(SEPARATOR)
        train.write_bytes(SEPARATOR.join(parts[:-N_HELD_OUT]))
        val.write_bytes(SEPARATOR.join(parts[-N_HELD_OUT:]))
    settings = Settings(vocab_size=VOCAB_SIZE, val=(str(val),))
    made = tokenize([str(train)], settings, out=BUILD / "novels").dataset
    return Mixture.of([Dataset.open(made)], None)


def train_pylm(
    data: Mixture, budget: Given, dtype: str, seed: int, changes: list[str]
) -> tuple[float, int, int, Config]:
    """What `pylm train --budget` makes of this dataset: bits per byte, training tokens, parameters, settings."""
    given: Given = {
        **budget,
        "train.dtype": dtype,
        "train.seed": seed,
        "train.device": "cpu",
        **parse_set(tuple(changes)),
    }
    with tempfile.TemporaryDirectory() as folder:
        run = str(Path(folder) / "run")
        request = Request(given, (data.path,), run, False, "", time.monotonic(), chooses=True)
        launch(request, ProgressLine())
        trained = load_for_inference(Path(run), "last", "cpu")
        n_tokens = load_state(Path(run), trained.step).tokens
    assert data.val is not None
    with Precision(dtype, torch.device("cpu")).context():
        found = evaluate(
            trained.model,
            data.val.tokens,
            trained.tokenizer.token_lengths().astype(np.int64),
            data.end_of_text_id,
            context=trained.config.train.context,
            batch_size=16,
            max_tokens=10**9,
        )
    return found.bits_per_byte, n_tokens, trained.model.n_parameters(), trained.config


def peer_of(
    name: str, vocab_size: int, chosen: tuple[int, ...] | None, seed: int
) -> tuple[Shape, nn.Module | None]:
    """A contender's shape and model; Llama has pylm's layers, width, heads, context and batch: `chosen`."""
    torch.manual_seed(seed)
    if name == "llama":
        assert chosen is not None
        n_layers, width, n_heads, context, batch_size = chosen
        shape = Shape(n_layers, width, n_heads, vocab_size, context, batch_size)
        theirs = llama(shape)
        return shape, None if theirs is None else LlamaLoss(theirs)
    sizes = (4, 128, 4, vocab_size, 64, 12) if name == "nanogpt-4x128" else (6, 384, 6, vocab_size, 256, 16)
    return Shape(*sizes), Peer(Shape(*sizes))


def train_peer(
    model: nn.Module, shape: Shape, data: Mixture, budget_s: float, peak: float, dtype: str, seed: int
) -> int:
    """Train for the budget on windows drawn at random, as nanoGPT does; returns the number of tokens."""
    tokens = data.first.train.tokens
    generator = np.random.default_rng(seed)
    offsets = np.arange(shape.context + 1)
    batch: list[Tensor] = []
    step = peer_step(model, lambda: model(*batch), torch.device("cpu"), dtype, betas=(0.9, 0.95))
    n_tokens = 0
    began = time.monotonic()
    while (done := (time.monotonic() - began) / budget_s) < 1:
        starts = generator.integers(len(tokens) - shape.context - 1, size=(shape.batch_size, 1))
        ids_BL = torch.from_numpy(tokens[starts + offsets].astype(np.int64))
        batch[:] = ids_BL[:, :-1].contiguous(), ids_BL[:, 1:].contiguous()
        step(peak * min((done + 1e-3) / WARM_UP, 0.1 + 0.45 * (1 + math.cos(math.pi * done))))
        n_tokens += shape.batch_size * shape.context
    return n_tokens


@torch.no_grad()
def peer_bits(model: nn.Module, shape: Shape, data: Mixture, dtype: str) -> float:
    """Bits per byte of the held-out text, in contexts that do not overlap."""
    assert data.val is not None
    ids = torch.from_numpy(data.val.tokens[np.arange(data.val.n_tokens)].astype(np.int64))
    n_windows = (len(ids) - 1) // shape.context
    inputs = ids[: n_windows * shape.context].view(n_windows, -1)
    targets = ids[1 : n_windows * shape.context + 1].view(n_windows, -1)
    nats = 0.0
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
        for x_BT, y_BT in zip(torch.split(inputs, 16), torch.split(targets, 16), strict=True):
            nats += float(model(x_BT, y_BT)) * y_BT.numel()
    n_bytes = (BUILD / "novels_val.txt").stat().st_size * targets.numel() / len(ids)
    return nats / math.log(2) / n_bytes


if __name__ == "__main__":
    main()
