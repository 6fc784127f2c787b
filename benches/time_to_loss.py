"""Seconds to a loss on tinyshakespeare's characters: `python benches/time_to_loss.py [--recipe NAME] [--peer]`.

Ours trains by `pylm.train.Trainer` on a dataset of `pylm tokenize` whose ids are characters; the recipes are settings,
below. `--peer` trains a model of nanoGPT's shape by its recipe for a CPU beside it: 4 layers x 128, 12 x 64 characters,
2,000 steps, AdamW 1e-3 to 1e-4 by a cosine after 100 steps, betas 0.9 and 0.99, float32 as there. Both are evaluated on
the last tenth of the text, all of it, in contexts of the training's length. Seconds are those of steps: batches,
compiling and the optimizer included, evaluations not.
"""

import argparse
import math
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from corpora import shared
from training_peers import Peer, Shape, peer_step

from pylm.config import Config, Value, check_given, from_flat
from pylm.dataset import Dataset
from pylm.mixture import Mixture
from pylm.tokenize import Settings, tokenize
from pylm.train import Trainer

# What both recipes share: a small model of the `auto` preset's kind.
COMMON: dict[str, Value] = {
    "model.norm_kind": "layer",
    "model.norm_gains": "none",
    "model.qk_norm": True,
    "model.embedding_norm": True,
    "model.embedding_conv": 3,
    "model.tied": False,
    "model.init": "zero_out",
    "schedule.kind": "wsd",
    "schedule.final_fraction": 0.0,
    "optimizer.name": "muon",
    "optimizer.muon_iterations": 3,
    "optimizer.weight_decay": 0.0,
    "optimizer.clip": 0.0,
    "train.eval_every": 10**9,
    "train.save_every": 0,
    "train.sample_every": 0,
    "train.log_every": 100,
    "train.final_eval_tokens": 10**9,
    "train.eval_tokens": 64,
}
RECIPES: dict[str, tuple[float, dict[str, Value]]] = {  # the loss to reach, and the settings
    "context64": (
        1.874,
        {
            "model.n_layers": 2,
            "model.width": 64,
            "model.n_heads": 1,
            "model.mlp": "swiglu",
            "model.mlp_hidden": 256,
            "model.rope_base": 100.0,
            "model.max_context": 64,
            "train.context": 64,
            "train.batch_size": 20,
            "train.micro_batch": 20,
            "train.steps": 190,
            "schedule.warmup": 4,
            "schedule.flat": 0.2,
            "optimizer.lr": 0.03,
            "optimizer.embedding_lr": 0.2,
            "optimizer.muon_lr": 0.05,
            "optimizer.muon_momentum": 0.85,
            "optimizer.beta1": 0.85,
        },
    ),
    "context256": (
        1.4697,
        {
            "model.n_layers": 4,
            "model.width": 256,
            "model.n_heads": 4,
            "model.mlp": "relu2",
            "model.dropout": 0.0,
            "model.max_context": 256,
            "train.context": 256,
            "train.batch_size": 16,
            "train.micro_batch": 16,
            "train.steps": 1_000,
            "schedule.warmup": 20,
            "optimizer.lr": 0.01,
            "optimizer.embedding_lr": 0.06,
            "optimizer.muon_lr": 0.03,
            "optimizer.muon_momentum": 0.9,
            "optimizer.beta1": 0.8,
        },
    ),
}
PEER = Shape(4, 128, 4, 65, 64, 12)
PEER_STEPS, PEER_WARMUP = 2_000, 100


class TimedTrainer(Trainer):
    """A trainer that adds up the time of its steps."""

    steps_s = 0.0

    def _step(self) -> None:
        began = time.perf_counter()
        super()._step()
        self.steps_s += time.perf_counter() - began


def main() -> None:
    """Train by the recipe with each seed, and the peer where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", choices=list(RECIPES), default="context64")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--compile", default="off")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="another setting")
    parser.add_argument("--peer", action="store_true", help="train nanoGPT's shape too, once")
    options = parser.parse_args()
    text = (shared() / "data" / "english" / "tinyshakespeare.txt").read_bytes()
    cut = len(text) * 9 // 10
    goal, settings = RECIPES[options.recipe]
    ours = []
    peer = PeerTraining(text[:cut], text[cut:]) if options.peer else None
    with tempfile.TemporaryDirectory() as folder:
        data = dataset(Path(folder), text[:cut], text[cut:])
        for seed in range(options.seeds):
            config = config_of(data, settings, seed, options.dtype, options.compile, options.set)
            run = Path(folder) / f"run{seed}"
            run.mkdir()
            trainer = TimedTrainer(run, config, data, "", time.monotonic())
            outcome = trainer.run()
            assert outcome.evaluation is not None
            assert outcome.evaluation.whole
            ours.append(trainer.steps_s)
            print(
                f"pylm, seed {seed}: {outcome.evaluation.loss:.4f} (goal {goal}) after {config.train.steps} steps, "
                f"{trainer.steps_s:.2f} s, {trainer.steps_s / config.train.steps * 1e3:.1f} ms a step, "
                f"{trainer.model.n_parameters():,} parameters",
                flush=True,
            )
            if peer is not None:  # in turns: what else the machine does slows both
                peer.train_to(PEER_STEPS * (seed + 1) // options.seeds)
    if peer is not None:
        print(f"nanoGPT's shape and recipe: {peer.loss():.4f} after {PEER_STEPS} steps, {peer.seconds:.2f} s")
        print(f"steps of ours take 1/{peer.seconds / statistics.mean(ours):.1f} of that time")


def dataset(folder: Path, train: bytes, val: bytes) -> Mixture:
    """The text as a dataset whose ids are characters, and an end of text."""
    (folder / "train.txt").write_bytes(train)
    (folder / "val.txt").write_bytes(val)
    settings = Settings(tokenizer="char", val=(str(folder / "val.txt"),))
    made = tokenize([str(folder / "train.txt")], settings, out=folder / "dataset").dataset
    return Mixture.of([Dataset.open(made)], None)


def config_of(
    data: Mixture, recipe: dict[str, Value], seed: int, dtype: str, compile_: str, changes: list[str]
) -> Config:
    """The recipe for this dataset, with the changes of the command line."""
    from pylm.config import parse_set

    settings: dict[str, Value] = {
        **COMMON,
        **recipe,
        "model.vocab_size": data.first.vocab_size,
        "data.path": data.path,
        "train.seed": seed,
        "train.dtype": dtype,
        "train.compile": compile_,
    }
    return from_flat({**settings, **check_given(parse_set(tuple(changes)), "--set")})


class PeerTraining:
    """A model of nanoGPT's shape and its recipe, trained some steps at a time; `seconds` are those of steps."""

    def __init__(self, train: bytes, val: bytes) -> None:
        order = sorted(set(train + val))
        number_of = np.zeros(256, np.int64)
        number_of[order] = np.arange(len(order))
        self.ids, self.held_out = (
            torch.from_numpy(number_of[np.frombuffer(part, np.uint8)]) for part in (train, val)
        )
        torch.manual_seed(0)
        self.model = model = Peer(PEER)
        self.generator = torch.Generator().manual_seed(0)  # ours are seeded in between
        self.seconds, self.n_steps = 0.0, 0
        self.batch: list[torch.Tensor] = []
        batch = self.batch
        self.step = peer_step(model, lambda: model(*batch), torch.device("cpu"), "float32", betas=(0.9, 0.99))

    def train_to(self, n_steps: int) -> None:
        """Go on until so many steps are done."""
        offsets = torch.arange(PEER.context)
        for number in range(self.n_steps, n_steps):
            began = time.perf_counter()
            places = (PEER.batch_size, 1)
            starts = torch.randint(len(self.ids) - PEER.context, places, generator=self.generator)
            self.batch[:] = self.ids[starts + offsets], self.ids[starts + offsets + 1]
            self.step(peer_rate(number))
            self.seconds += time.perf_counter() - began
        self.n_steps = n_steps

    @torch.no_grad()
    def loss(self) -> float:
        """Nats a character over the whole validation text."""
        n_windows = (len(self.held_out) - 1) // PEER.context
        inputs = self.held_out[: n_windows * PEER.context].view(n_windows, -1)
        targets = self.held_out[1 : n_windows * PEER.context + 1].view(n_windows, -1)
        parts = zip(torch.split(inputs, 64), torch.split(targets, 64), strict=True)
        return sum(float(self.model(x, y)) * y.numel() for x, y in parts) / targets.numel()


def peer_rate(number: int) -> float:
    """The rate of nanoGPT's schedule."""
    if number < PEER_WARMUP:
        return 1e-3 * (number + 1) / (PEER_WARMUP + 1)
    done = (number - PEER_WARMUP) / (PEER_STEPS - PEER_WARMUP)
    return 1e-4 + 0.5 * (1 + math.cos(math.pi * done)) * 9e-4


if __name__ == "__main__":
    main()
