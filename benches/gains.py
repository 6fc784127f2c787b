"""What S1's LayerNorm gains of N(0, 0.02) cost: `python benches/gains.py [LAYERS...]` prints losses with both kinds.

Models of 64 features and 4 heads on S1's made-up words (`simple`, by characters), by S1's recipe shortened to 300
steps: 32 windows of 64, AdamW, 1e-3 after 100 steps, then linearly to 1e-5. The loss is that of other text.
"""

import dataclasses
import sys
import time

import torch
import torch.nn.functional as F
from torch import Tensor

from pylm.made_up import simple
from pylm.made_up.simple_loss import window_loss
from pylm.models.build import build_model
from pylm.models.config import ModelConfig
from pylm.models.presets import find_preset

STEPS, WARM_UP, BATCH, CONTEXT = 300, 100, 32, 64
AT = (100, 200, 300)


def main() -> None:
    """A row for each depth and kind of gains."""
    torch.set_num_threads(1)
    print(
        f"nats a character of `simple` after so many steps; the least possible is {window_loss(CONTEXT):.3f}"
    )
    print("layers  gains      " + "".join(f"{step:8}" for step in AT) + "   seconds")
    for n_layers in [int(argument) for argument in sys.argv[1:]] or [4, 8, 12]:
        for gains in ("normal", "ones"):
            preset = find_preset("tiny-232k").model
            config = dataclasses.replace(preset, vocab_size=15, n_layers=n_layers, norm_gains=gains)
            start = time.process_time()
            losses = train(config)
            name = "N(0, 0.02)" if gains == "normal" else "1"
            row = "".join(f"{loss:8.3f}" for loss in losses)
            print(f"{n_layers:6}  {name:10} {row}  {time.process_time() - start:8.0f}", flush=True)


def train(config: ModelConfig) -> list[float]:
    """Validation losses at the steps of `AT`."""
    model = build_model(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.999), weight_decay=0.01)
    text, other = (encode(simple.make(2_000, seed)) for seed in (0, 1))
    generator = torch.Generator().manual_seed(0)
    losses = []
    for step in range(1, STEPS + 1):
        left = (STEPS - step) / (STEPS - WARM_UP)
        rate = 1e-3 * (step / WARM_UP if step <= WARM_UP else 0.01 + 0.99 * left)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        starts = torch.randint(len(text) - CONTEXT, (BATCH,), generator=generator)
        loss_of(model, torch.stack([text[i : i + CONTEXT + 1] for i in starts.tolist()])).backward()
        optimizer.step()
        if step in AT:
            with torch.no_grad():
                whole = other[: len(other) // (CONTEXT + 1) * (CONTEXT + 1)].view(-1, CONTEXT + 1)
                losses.append(loss_of(model, whole).item())
    return losses


def encode(text: str) -> Tensor:
    """Ids by the order of the characters."""
    characters = sorted(set(text))
    return torch.tensor([characters.index(character) for character in text])


def loss_of(model: torch.nn.Module, windows: Tensor) -> Tensor:
    """Mean nats of every target."""
    return F.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())


if __name__ == "__main__":
    main()
