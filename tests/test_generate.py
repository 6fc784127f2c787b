"""Generation: whole characters, stop texts, the end of text, and a context that fills."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import pylm.generate as generation
from pylm.errors import ConfigError
from pylm.generate import GenerationSettings, generate, prompt_tokens, sample_text, window_start
from pylm.models.build import build_model
from pylm.models.config import ModelConfig
from pylm.sampling import SamplingSettings, sample

GREEDY = SamplingSettings(temperature=0, top_k=0)


class Bytes:
    """256 bytes and an end of text."""

    end_of_text_id: int | None = 256
    n_tokens = vocab_size = 257

    def encode(self, text: str, special: str) -> np.ndarray[Any, Any]:
        assert special == "allow"
        return np.frombuffer(text.encode(), np.uint8)

    def decode_bytes(self, ids: list[int]) -> bytes:
        return b"".join(bytes([i]) if i < 256 else b"<|endoftext|>" for i in ids)


class Cache:
    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.n_tokens = 0
        self.sum: Tensor | float = 0.0


class Recites(nn.Module):
    """Says a fixed text, whatever the prompt, and counts how often it was asked."""

    def __init__(self, tokens: list[int], context: int = 1000) -> None:
        super().__init__()
        self.config = SimpleNamespace(max_context=context, vocab_size=257)
        self.head_weight = torch.eye(257)
        self.head_bias = None
        self.tokens = tokens
        self.n_asked = 0

    def new_cache(self, batch_size: int, max_tokens: int) -> Cache:
        return Cache()

    def features(self, tokens_BT: Tensor, cache: Cache | None = None) -> Tensor:
        x_BTD = torch.zeros(*tokens_BT.shape, 257)
        x_BTD[:, -1, self.tokens[self.n_asked % len(self.tokens)]] = 100.0
        self.n_asked += 1
        return x_BTD


class Mixes(nn.Module):
    """Logits that depend on every token of the window and on its position, through a running sum."""

    def __init__(self, context: int) -> None:
        super().__init__()
        self.config = SimpleNamespace(max_context=context, vocab_size=257)
        generator = torch.Generator().manual_seed(0)
        self.embedding = torch.randn(257, 8, generator=generator, dtype=torch.float64)
        self.head_weight = torch.randn(300, 8, generator=generator, dtype=torch.float64)  # 43 rows of padding
        self.head_bias = torch.zeros(300, dtype=torch.float64)
        self.longest = 0

    def new_cache(self, batch_size: int, max_tokens: int) -> Cache:
        assert max_tokens == self.config.max_context
        return Cache()

    def features(self, tokens_BT: Tensor, cache: Cache | None = None) -> Tensor:
        assert not self.training
        cache = cache or Cache()
        n_before, cache.n_tokens = cache.n_tokens, cache.n_tokens + tokens_BT.shape[1]
        assert cache.n_tokens <= self.config.max_context
        self.longest = max(self.longest, cache.n_tokens)
        positions_T1 = torch.arange(n_before, cache.n_tokens, dtype=torch.float64)[:, None]
        x_BTD = (self.embedding[tokens_BT] * torch.cos(positions_T1)).cumsum(1) + cache.sum
        cache.sum = x_BTD[:, -1:]
        return x_BTD


def recite(text: bytes, **options: Any) -> tuple[list[str], Any]:
    pieces: list[str] = []
    chosen = GenerationSettings(sampling=GREEDY, **options)
    samples = generate(Recites(list(text)), Bytes(), [65], chosen, lambda number, piece: pieces.append(piece))  # type: ignore[arg-type]
    assert "".join(pieces) == samples[0].text
    return pieces, samples[0]


def test_only_whole_characters_are_handed_on() -> None:
    pieces, sample = recite("aé€𝄞".encode(), max_tokens=10)
    assert pieces == ["a", "é", "€", "𝄞"]
    assert (sample.n_tokens, sample.ended_by) == (10, "max tokens")


def test_a_character_cut_by_the_end_is_dropped_and_a_wrong_byte_is_replaced() -> None:
    assert recite("a€".encode(), max_tokens=3)[1].text == "a"
    assert recite(b"a\xffb", max_tokens=3)[1].text == "a\ufffdb"


@given(st.text("ab", max_size=12), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
@settings(deadline=None, max_examples=200)
def test_stop_texts_end_the_text_before_their_first_place(text: str, stops: list[str]) -> None:
    text += "ccc"
    # The slow twin: after each character, look for every stop text in all that was said.
    expected, ended_by = text, "max tokens"
    for end in range(1, len(text) + 1):
        places = [text[:end].find(stop) for stop in stops if stop in text[:end]]
        if places:
            expected, ended_by = text[: min(places)], "stop"
            break
    _, sample = recite(text.encode(), max_tokens=len(text), stop=tuple(stops))
    assert (sample.text, sample.ended_by) == (expected, ended_by)


def test_the_end_of_text_ends_it_unless_ignored() -> None:
    model = Recites([97, 256, 98])
    chosen = GenerationSettings(sampling=GREEDY, max_tokens=5)
    (sample,) = generate(model, Bytes(), [65], chosen)  # type: ignore[arg-type]
    assert (sample.text, sample.n_tokens, sample.ended_by) == ("a", 2, "end of text")
    assert model.n_asked == 2
    chosen = GenerationSettings(sampling=GREEDY, max_tokens=3, ignore_end_of_text=True)
    (sample,) = generate(Recites([97, 256, 98]), Bytes(), [65], chosen)  # type: ignore[arg-type]
    assert sample.text == "a<|endoftext|>b"


@given(st.integers(1, 9), st.integers(1, 60))
@settings(deadline=None)
def test_the_window_moves_on_by_half_a_context_when_it_is_full(context: int, n_tokens: int) -> None:
    start = 0
    for n in range(1, n_tokens + 1):  # the slow twin: one token at a time
        if n - start > context:
            start += context - context // 2
    assert window_start(n_tokens, context) == start
    assert 1 <= n_tokens - start <= context


@pytest.mark.parametrize("context", [1, 2, 5, 8])
@pytest.mark.parametrize("n_prompt", [1, 8, 9, 30])
def test_cached_and_uncached_say_the_same_past_a_full_context(context: int, n_prompt: int) -> None:
    prompt = list(range(60, 60 + n_prompt))
    texts = []
    for cached in (True, False):
        model = Mixes(context)
        chosen = GenerationSettings(
            max_tokens=25, samples=2, cached=cached, ignore_end_of_text=True, top_probabilities=2
        )
        samples = generate(model, Bytes(), prompt, chosen)  # type: ignore[arg-type]
        assert model.longest == context
        texts.append([[choice.token for choice in sample.choices] for sample in samples])
    assert texts[0] == texts[1]
    assert texts[0][0] != texts[0][1], "samples of one batch differ"


FAMILIES: list[dict[str, object]] = [
    {},
    {"positions": "learned", "norm_kind": "layer", "mlp": "gelu", "bias": True},
    {
        "family": "tiny",
        "norm": "post",
        "norm_kind": "layer",
        "positions": "sinusoid",
        "mlp": "gelu_tanh",
        "tied": False,
    },
    {
        "family": "stacks",
        "positions": "sinusoid",
        "mlp": "relu",
        "norm_kind": "layer",
        "bias": True,
        "tied": False,
    },
    {
        "attention": "compressed",
        "proj_ratio": 4,
        "num_keep_boundary_chunk": 1,
        "norm_kind": "layer",
        "mlp": "gelu",
    },
]


@pytest.mark.parametrize("switches", FAMILIES, ids=lambda switches: str(list(switches.values())[:2]))
def test_every_family_has_the_same_logits_with_and_without_its_cache_past_a_full_context(
    switches: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # At 0.5 float32 itself is 3e-5 from float64 in the stacks, whose features no residual path keeps small.
    shape = {"vocab_size": 257, "n_layers": 2, "width": 16, "n_heads": 2, "max_context": 40, "init_std": 0.2}
    model = build_model(ModelConfig(**(shape | switches)))
    sampling = SamplingSettings(temperature=1, top_k=5)
    seen: dict[bool, list[Tensor]] = {True: [], False: []}
    texts = {}
    for cached, logits in seen.items():

        def recording(logits_BV: Tensor, *rest: Any, into: list[Tensor] = logits) -> Tensor:
            into.append(logits_BV.clone())
            return sample(logits_BV, *rest)

        monkeypatch.setattr(generation, "sample", recording)
        chosen = GenerationSettings(sampling, 70, ignore_end_of_text=True, samples=2, cached=cached, seed=3)
        texts[cached] = [found.text for found in generate(model, Bytes(), list(b"Once"), chosen)]  # type: ignore[arg-type]
    assert texts[True] == texts[False]
    assert len(set(texts[True][0])) > 5
    assert len(seen[True]) == 70
    for ours, uncached in zip(seen[True], seen[False], strict=True):
        # A row and many rows may be multiplied by different libraries (pylm.models.products).
        assert (ours - uncached).abs().max() <= 3e-5 * uncached.abs().max()


def test_a_long_prompt_reads_as_if_it_had_been_generated() -> None:
    def said(prompt: list[int], n: int) -> list[int]:
        chosen = GenerationSettings(
            sampling=GREEDY, max_tokens=n, ignore_end_of_text=True, top_probabilities=1
        )
        return [choice.token for choice in generate(Mixes(8), Bytes(), prompt, chosen)[0].choices]  # type: ignore[arg-type]

    prompt = list(range(40))
    first = said(prompt, 30)
    assert said(prompt + first[:13], 17) == first[13:]


def test_top_probabilities_are_those_of_the_model_and_the_seed_repeats() -> None:
    chosen = GenerationSettings(max_tokens=6, samples=2, top_probabilities=3, seed=5, ignore_end_of_text=True)
    model = Mixes(4)
    first, second = (generate(model, Bytes(), [1, 2, 3], chosen) for _ in range(2))  # type: ignore[arg-type]
    assert first == second
    x_BTD = Mixes(4).eval().features(torch.tensor([[1, 2, 3]]))
    expected = torch.softmax((x_BTD[0, -1] @ model.head_weight[:257].T).float(), 0)
    choice = first[0].choices[0]
    assert choice.probability == pytest.approx(expected[choice.token].item())
    assert [token for token, _ in choice.best] == expected.topk(3).indices.tolist()
    assert [p for _, p in choice.best] == pytest.approx(expected.topk(3).values.tolist())


def test_ids_without_a_token_are_never_said() -> None:
    class Holes(Bytes):
        """Byte 98 is no token; nor has the end of text any bytes, but it is a token."""

        n_tokens = 256
        special_tokens = {"<|endoftext|>": 256}  # noqa: RUF012

        def token_lengths(self) -> np.ndarray[Any, Any]:
            return np.array([i not in (98, 256) for i in range(257)])

    chosen = GenerationSettings(sampling=GREEDY, max_tokens=2)
    (sample,) = generate(Recites([98, 256]), Holes(), [65], chosen)  # type: ignore[arg-type]
    assert sample.text == "\0"  # the first of all that are left
    assert sample.ended_by == "end of text"


def test_sample_text_changes_neither_mode_nor_random_state() -> None:
    model = Mixes(8).train()
    state = torch.get_rng_state()
    text = sample_text(model, Bytes(), "ab", 5, SamplingSettings())  # type: ignore[arg-type]
    assert text.startswith("ab")
    assert model.training
    assert torch.equal(state, torch.get_rng_state())


def test_an_empty_prompt_is_the_end_of_text_or_an_error() -> None:
    assert prompt_tokens(Bytes(), "") == [256]  # type: ignore[arg-type]
    without = Bytes()
    without.end_of_text_id = None
    with pytest.raises(ConfigError, match="--prompt"):
        prompt_tokens(without, "")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"), [("max_tokens", 0), ("samples", 0), ("seed", -1), ("stop", ("",))]
)
def test_settings_out_of_range_are_named(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name):
        GenerationSettings(**{name: value})  # type: ignore[arg-type]
