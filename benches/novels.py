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

from pylm.auto import Facts, parse_budget, resolve
from pylm.config import Config, Given, parse_set
from pylm.dataset import Dataset
from pylm.evaluate import evaluate
from pylm.mixture import Mixture
from pylm.tokenize import Settings, tokenize
from pylm.train import Trainer

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
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of pylm")
    options = parser.parse_args()
    budget_s = parse_budget(options.budget)
    data = novels()
    config = config_of(data, budget_s, options.dtype, 0, options.set)
    for name in options.only or NAMES:
        if name == "pylm":
            found = []
            for seed in range(options.seeds):
                changed = config_of(data, budget_s, options.dtype, seed, options.set)
                bits, n_tokens, n_parameters = train_pylm(data, changed)
                found.append(bits)
                say(f"pylm, seed {seed}", n_parameters, n_tokens, bits)
            print(f"pylm, mean: {statistics.mean(found):.4f}", flush=True)
            continue
        for rate in map(float, options.rates.split(",")):
            shape, model = peer_of(name, config)
            if model is None:
                break
            n_tokens = train_peer(model, shape, data, budget_s, rate, options.dtype)
            bits = peer_bits(model, shape, data, options.dtype)
            n_parameters = sum(parameter.numel() for parameter in model.parameters())
            say(f"{name}, rate {rate:g}", n_parameters, n_tokens, bits)


def say(label: str, n_parameters: int, n_tokens: int, bits: float) -> None:
    """Print a row."""
    print(
        f"{label:24} {n_parameters:12,} parameters {n_tokens:14,} tokens  {bits:.4f} bits per byte",
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


def config_of(data: Mixture, budget_s: float, dtype: str, seed: int, changes: list[str]) -> Config:
    """What `pylm train --budget` decides for this dataset."""
    given: Given = {
        "train.budget_s": budget_s,
        "train.dtype": dtype,
        "train.seed": seed,
        "train.device": "cpu",
    }
    facts = Facts(data.n_train_tokens, data.first.vocab_size, "cpu", data.path, data.sha256)
    config, decisions = resolve({**given, **parse_set(tuple(changes))}, facts)
    if seed == 0:
        print("; ".join(decisions), flush=True)
    return config


def train_pylm(data: Mixture, config: Config) -> tuple[float, int, int]:
    """Bits per byte, training tokens, parameters."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(Path(folder), config, data, "", time.monotonic())
        trainer.run()
    assert data.val is not None
    with trainer.precision.context():
        found = evaluate(
            trainer.model,
            data.val.tokens,
            trainer.token_bytes_V,
            data.end_of_text_id,
            context=config.train.context,
            batch_size=16,
            max_tokens=10**9,
        )
    return found.bits_per_byte, trainer.state.tokens, trainer.model.n_parameters()


def peer_of(name: str, config: Config) -> tuple[Shape, nn.Module | None]:
    """A contender's shape and model; Llama has pylm's size, context and batch."""
    torch.manual_seed(0)
    vocab_size = config.model.vocab_size
    if name == "llama":
        model, train = config.model, config.train
        shape = Shape(model.n_layers, model.width, model.n_heads, vocab_size, train.context, train.batch_size)
        theirs = llama(shape)
        return shape, None if theirs is None else LlamaLoss(theirs)
    sizes = (4, 128, 4, vocab_size, 64, 12) if name == "nanogpt-4x128" else (6, 384, 6, vocab_size, 256, 16)
    return Shape(*sizes), Peer(Shape(*sizes))


def train_peer(
    model: nn.Module, shape: Shape, data: Mixture, budget_s: float, peak: float, dtype: str
) -> int:
    """Train for the budget on windows drawn at random, as nanoGPT does; returns the number of tokens."""
    tokens = data.first.train.tokens
    generator = np.random.default_rng(0)
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
