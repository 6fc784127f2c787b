"""`--budget`: the model, batch and rates for a given time or work.

Sizes are tried on this machine, each for a moment: that gives the tokens each would see in the time. Taken is the size
that is nearest to 20 tokens a parameter of its blocks, where compute is best spent (Hoffmann et al. 2022, which the
length of a run without a budget follows too), but none below the smallest that `pylm train` takes by itself: in a
short time all sizes see far fewer tokens, and there that one is what was measured. docs/training.md has a fitted law
that was tried instead.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from pylm.accounting.counts import training_flops
from pylm.accounting.memory import training_memory
from pylm.accounting.run import load_of
from pylm.auto import AUTO_SIZES, Facts, resolve
from pylm.config import Config, Given, Value
from pylm.errors import ConfigError
from pylm.measure import training_flops_per_s
from pylm.precision import default_dtype

TOKENS_PER_PARAMETER = 20
# What a token is worth that has been seen before falls with the number of times, by this constant (Muennighoff et al.
# 2023, D' = U + U R* (1 - exp(-R / R*)) for R repetitions of U tokens).
REPETITION = 15.4
STEPS_SHARE = 0.9  # of a budget in time: the rest goes to evaluations and saves (pylm.train)
PROBE_S = 1.5  # of each size, and not more than this part of the budget for all together:
PROBE_SHARE = 0.05

# Layers and width, smallest first; heads are 64 wide.
SIZES = (
    (2, 64),
    (2, 128),
    (4, 128),
    (4, 192),
    (4, 256),
    (6, 256),
    (6, 320),
    (6, 384),
    (8, 512),
    (10, 640),
    (12, 768),
    (16, 1024),
    (24, 1536),
    (32, 2048),
)


@dataclass(frozen=True)
class Candidate:
    """One size and what the budget buys with it."""

    settings: Given
    n_layers: int
    width: int
    n_tokens: float
    tokens_per_s: float | None  # measured here; None where the budget is not in time
    score: float  # how far from 20 tokens a parameter, as a logarithm: the least is chosen

    @property
    def words(self) -> str:
        """A line for people."""
        speed = "" if self.tokens_per_s is None else f", {self.tokens_per_s:,.0f} tokens/s"
        return f"{self.n_layers} x {self.width}{speed}: {self.n_tokens / 1e6:,.1f}M tokens"


def chooses(given: Given) -> bool:
    """Whether these settings leave the model's size to the budget."""
    sizes = ("model.n_layers", "model.width", "model.n_heads", "model.family", "model.n_stacks")
    return given.get("preset", "auto") == "auto" and not any(name in given for name in sizes)


def choose(
    given: Given,
    facts: Facts,
    available_bytes: int,
    elapsed_s: Callable[[], float],
    log: Callable[[str], None],
) -> tuple[Given, str]:
    """Settings of the best size for the budget in `given`, and why, in words.

    `elapsed_s` is what the command has taken so far, of a budget in time. Raises ConfigError where nothing fits.
    """
    began = time.monotonic()
    tried: list[Candidate] = []
    sizes = _sizes(facts.device)
    for n_layers, width in sizes:
        settings = _with_optimizer(recipe(n_layers, width), given)
        config = _config(given, facts, settings)
        if training_memory(config.model, replace(load_of(config), micro_batch=1)).total > available_bytes:
            break
        tried.append(_candidate(config, settings, given, facts, elapsed_s))
        log(f"budget: {tried[-1].words}")
        # There is one minimum; two sizes past it are enough against noise of the clock.
        best = min(range(len(tried)), key=lambda index: tried[index].score)
        budget_s = given.get("train.budget_s")
        if best < len(tried) - 2 or (budget_s and time.monotonic() - began > PROBE_SHARE * float(budget_s)):
            break
    if not tried:
        raise ConfigError(
            f"--budget: not even {sizes[0][0]} layers x {sizes[0][1]} fit the memory that is there"
        )
    chosen = min(tried, key=lambda candidate: candidate.score)
    unit = "tried for a moment each" if chosen.tokens_per_s is not None else "compared"
    why = (
        f"budget: {chosen.n_layers} x {chosen.width} of {len(tried)} sizes {unit} in {time.monotonic() - began:.1f} s: "
        f"{chosen.n_tokens / 1e6:,.1f}M tokens, {chosen.n_tokens / facts.n_train_tokens:.2f} epochs, "
        f"nearest to {TOKENS_PER_PARAMETER} tokens a parameter of those not below the smallest default"
    )
    return chosen.settings, why


def recipe(n_layers: int, width: int) -> Given:
    """The settings of `auto` for any size: rates fall with the width, windows grow with it, as its tables' do."""
    wide = width > 256
    return {
        "model.n_layers": n_layers,
        "model.width": width,
        "model.n_heads": width // 64,
        "model.max_context": 256 if wide else 128,
        "train.context": 256 if wide else 128,
        "train.batch_size": 16,
        "optimizer.lr": float(f"{2e-2 * (128 / width) ** 0.85:.2g}"),
        "optimizer.muon_lr": float(f"{0.04 * (128 / width) ** 0.26:.2g}"),
        "optimizer.muon_momentum": 0.9 if wide else 0.85,
    }


def _sizes(device: str) -> list[tuple[int, int]]:
    """Return the sizes to try: none below the smallest of `pylm train`'s table for this kind of device."""
    table = AUTO_SIZES["cpu" if device == "cpu" else "cuda"]
    least = min(size.n_layers * size.width**2 for size in table)
    return [size for size in SIZES if size[0] * size[1] ** 2 >= least]


def worth(n_tokens: float, n_unique: int) -> float:
    """How many new tokens are worth as much as `n_tokens` of a text that has `n_unique`."""
    repetitions = n_tokens / n_unique - 1
    if repetitions <= 0:
        return n_tokens
    return n_unique * (1 + REPETITION * (1 - math.exp(-repetitions / REPETITION)))


def _candidate(
    config: Config, settings: Given, given: Given, facts: Facts, elapsed_s: Callable[[], float]
) -> Candidate:
    """What the budget buys with this size: tokens by its speed here, by its operations, or as given."""
    train, model = config.train, config.model
    token_flops = training_flops(model, train.context) / train.context
    tokens_per_s: float | None = None
    if budget_s := given.get("train.budget_s"):
        limit_s = min(PROBE_S, PROBE_SHARE * float(budget_s) / 4)
        speed = training_flops_per_s(model, load_of(config), train.batch_size // train.n_processes, limit_s)
        tokens_per_s = train.n_processes * speed / token_flops
        n_tokens = tokens_per_s * STEPS_SHARE * max(1.0, float(budget_s) - elapsed_s())
    elif flops := given.get("train.flops"):
        n_tokens = float(flops) / token_flops
    else:
        n_tokens = float(given["train.tokens"] or 0)
    n_in_blocks = 12 * model.n_layers * model.width**2
    score = abs(math.log(TOKENS_PER_PARAMETER * n_in_blocks / worth(n_tokens, facts.n_train_tokens)))
    return Candidate(settings, model.n_layers, model.width, n_tokens, tokens_per_s, score)


def _config(given: Given, facts: Facts, settings: Given) -> Config:
    config, _ = resolve(given, facts, settings)
    if "train.dtype" in given:
        return config
    return replace(config, train=replace(config.train, dtype=default_dtype(facts.device)))


def _with_optimizer(settings: Given, given: Given) -> Given:
    """The same for AdamW alone, whose rate is then for all matrices, as `pylm.auto` has it."""
    if given.get("optimizer.name") != "adamw":
        return settings
    rate: Value = settings["optimizer.lr"]
    kept = {name: value for name, value in settings.items() if "muon" not in name}
    return kept | {"optimizer.lr": float(rate or 0) / 4}
