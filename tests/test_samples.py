"""Samples are a function of their number: mixtures, documents and noise, and the thread that makes them ahead."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pylm.config import TrainConfig
from pylm.dataset import Dataset, Split
from pylm.errors import ConfigError
from pylm.evaluate import evaluate
from pylm.feed import Feed
from pylm.loss import IGNORED, summed_cross_entropy
from pylm.mixture import BLOCK, Interleaving, Mixture, joined
from pylm.models.build import build_model
from pylm.models.config import ModelConfig
from pylm.samples import Samples, input_documents

END = 36


def _split(documents: list[list[int]]) -> Split:
    ids = np.concatenate([np.array(document, np.uint16) for document in documents])
    offsets = np.cumsum([0, *map(len, documents)]).astype(np.uint64)
    return Split("train", ids, offsets, len(ids), len(documents), len(ids))


def _documents(seed: int, n: int = 40, end: int | None = END) -> list[list[int]]:
    generator = np.random.default_rng(seed)
    ends = [] if end is None else [end]
    return [[*generator.integers(0, 36, generator.integers(1, 12)).tolist(), *ends] for _ in range(n)]


def _samples(splits: list[Split], weights: list[float], end: int | None = END, **options: object) -> Samples:
    train = TrainConfig(steps=1, context=16, **options)  # type: ignore[arg-type]
    return Samples(splits, weights, train, end_of_text_id=end, vocab_size=37)


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=5), st.integers(0, 2**40), st.integers(0, 9))
@settings(deadline=None, max_examples=30)
def test_a_mixture_takes_each_sample_of_each_source_once_and_in_proportion(
    weights: list[float], seed: int, block: int
) -> None:
    order = Interleaving(weights, seed)
    first = block * BLOCK
    sources, indices = order.locate(np.arange(first, first + BLOCK))
    for source, weight in enumerate(weights):
        mine = np.sort(indices[sources == source])
        assert len(mine) == pytest.approx(weight / sum(weights) * BLOCK, abs=1)
        start = block * order.counts[source]
        assert mine.tolist() == list(range(start, start + len(mine)))
    some = np.array([first + 5, first + 1000])
    assert [part.tolist() for part in order.locate(some)] == [
        sources[[5, 1000]].tolist(),
        indices[[5, 1000]].tolist(),
    ]


def test_a_weight_that_cannot_be_had_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1/4096"):
        Interleaving([1.0, 1e-6], 0)


@pytest.mark.parametrize(
    "options", [{}, {"document_masking": True}, {"shuffle_tokens": True, "mask_random": 0.3}]
)
def test_a_batch_is_its_samples_whatever_the_micro_batch(options: dict[str, object]) -> None:
    splits = [_split(_documents(seed)) for seed in (1, 2)]
    samples = _samples(splits, [0.7, 0.3], **options)
    whole = samples.batch(3, 12)
    for cuts in ([0, 12], [0, 5, 6, 12], list(range(13))):
        parts = [samples.batch(3 + a, b - a) for a, b in itertools.pairwise(cuts)]
        assert np.array_equal(np.concatenate([p.inputs_NT for p in parts]), whole.inputs_NT)
        assert np.array_equal(np.concatenate([p.targets_NT for p in parts]), whole.targets_NT)
        assert sum(p.n_targets for p in parts) == whole.n_targets
        if whole.documents_NT is not None:
            assert np.array_equal(np.concatenate([p.documents_NT for p in parts]), whole.documents_NT)
    assert whole.inputs_NT.dtype == np.uint16, "what goes to a device is narrow"


def test_shuffling_keeps_the_tokens_and_masking_keeps_the_targets() -> None:
    split = _split(_documents(1))
    plain, shuffled, masked = (
        _samples([split], [1.0], **options).batch(0, 200)
        for options in ({}, {"shuffle_tokens": True}, {"mask_random": 0.25})
    )

    def whole(b: object) -> np.ndarray:
        return np.concatenate((b.inputs_NT, b.targets_NT[:, -1:]), axis=1)  # type: ignore[attr-defined]

    assert np.array_equal(np.sort(whole(shuffled), axis=1), np.sort(whole(plain), axis=1))
    assert (whole(shuffled) != whole(plain)).any(axis=1).mean() > 0.9
    assert np.array_equal(masked.targets_NT, plain.targets_NT)
    # A random id is by chance the one that was there once in 37 times.
    assert (masked.inputs_NT != plain.inputs_NT).mean() == pytest.approx(0.25 * 36 / 37, abs=0.03)


@pytest.mark.parametrize("end", [END, None])
def test_documents_of_inputs_and_targets(end: int | None) -> None:
    documents = [[1, 2, *([] if end is None else [end])], [3, *([] if end is None else [end])], [4, 5, 6, 7]]
    numbers = np.array([[number for number, document in enumerate(documents) for _ in document]])
    found, cut = input_documents(numbers, separated=end is not None)
    if end is None:
        assert found.tolist() == [[0, 0, 1, 2, 2, 2]]
        assert cut.tolist() == [[False, True, True, False, False, False]]
    else:  # 1 2 end | end -> 3, 3 -> end | end -> 4 ...
        assert found.tolist() == [[0, 0, 1, 1, 2, 2, 2, 2]]
        assert not cut.any()


# fmt: off
MODELS = {
    "rope": ModelConfig(vocab_size=37, max_context=16, n_layers=2, width=16, n_heads=2, mlp_hidden=32, qk_norm=True),
    "convolution": ModelConfig(
        vocab_size=37, max_context=16, n_layers=2, width=16, n_heads=2, embedding_conv=3, embedding_norm=True,
        norm_gains="none",
    ),
    "learned": ModelConfig(
        vocab_size=37, max_context=16, n_layers=2, width=16, n_heads=2, mlp_hidden=32, positions="learned"
    ),
    "tiny": ModelConfig(
        family="tiny", norm="post", vocab_size=37, max_context=16, n_layers=2, width=16, n_heads=2,
        positions="sinusoid", tied=False, head_bias=True,
    ),
    "stacks": ModelConfig(
        family="stacks", norm_kind="layer", mlp="relu", vocab_size=37, max_context=16, n_layers=2, n_stacks=2,
        width=16, n_heads=2, positions="sinusoid", tied=False, bias=True,
    ),
    "stacks with rope": ModelConfig(
        family="stacks", norm_kind="layer", mlp="relu", vocab_size=37, max_context=16, n_layers=2, n_stacks=2,
        width=16, n_heads=2, tied=False,
    ),
}
# fmt: on


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_documents_in_one_window_are_as_if_each_were_alone(name: str, recompute: bool) -> None:
    model = build_model(MODELS[name], seed=1)
    model.activation_checkpointing = recompute
    ids_BT = torch.randint(36, (2, 16), generator=torch.Generator().manual_seed(0))
    numbers_BT = torch.tensor([[0] * 5 + [1] * 1 + [2] * 10, [4] * 16])
    whole = summed_cross_entropy(model, ids_BT, ids_BT, numbers_BT)
    whole.backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    alone = torch.zeros(())
    for row, cuts in ((0, (0, 5, 6, 16)), (1, (0, 16))):
        for a, b in itertools.pairwise(cuts):
            part = summed_cross_entropy(model, ids_BT[row : row + 1, a:b], ids_BT[row : row + 1, a:b])
            part.backward()
            alone += part.detach()
    assert whole.item() == pytest.approx(alone.item(), rel=1e-5)
    for gradient, parameter in zip(gradients, model.parameters(), strict=True):
        assert torch.allclose(gradient, parameter.grad, atol=2e-5)


def test_compressed_attention_refuses_documents_by_name() -> None:
    from pylm.config import from_flat

    settings = {"train.steps": 1, "train.context": 16, "train.document_masking": True}
    with pytest.raises(ConfigError, match=r"train.document_masking: model.attention compressed"):
        from_flat({**settings, "model.attention": "compressed"})


@pytest.mark.parametrize("end", [END, None])
def test_evaluation_with_documents_is_each_document_by_itself(end: int | None) -> None:
    model = build_model(MODELS["rope"], seed=1)
    documents = _documents(3, n=12, end=end)
    split = _split(documents)
    lengths_V = np.ones(37, np.int64)
    found = evaluate(
        model, split.tokens, lengths_V, end, context=16, batch_size=2, max_tokens=10**6, offsets=split.offsets
    )
    total, count, position = 0.0, 0, 0
    model.requires_grad_(False)
    first_target = 0 if end is not None else 1
    for document in documents:
        # Windows cut documents too; what a document is predicted from begins with it or with the window.
        for index, token in enumerate(document):
            target = position + index
            if target < first_target or (end is None and index == 0):
                continue
            window = (target - first_target) // 16 * 16 + first_target - 1
            begin = max(window, position - 1 if end is not None else position)
            past = [END if p < 0 else int(split.tokens[p]) for p in range(begin, target)]
            logits_V = model(torch.tensor([past]))[0, -1]
            total -= float(torch.log_softmax(logits_V, -1)[token])
            count += 1
        position += len(document)
    assert found.n_tokens == count
    assert found.loss == pytest.approx(total / count, rel=1e-5)


def test_the_thread_brings_the_samples_in_order_and_ends() -> None:
    samples = _samples([_split(_documents(1, end=None))], [1.0], end=None, document_masking=True)
    feed = Feed(samples, 6, 2, 12, torch.device("cpu"))
    for step in range(25):
        batch, expected = feed.take(), samples.batch(12 + 6 * step, 6)
        parts = list(batch)
        assert [len(part.inputs_BT) for part in parts] == [2, 2, 2]
        assert torch.cat([part.inputs_BT for part in parts]).tolist() == expected.inputs_NT.tolist()
        assert torch.cat([part.targets_BT for part in parts]).tolist() == expected.targets_NT.tolist()
        assert batch.n_targets == expected.n_targets == int((expected.targets_NT != IGNORED).sum()) < 96
        assert parts[0].inputs_BT.dtype == torch.int64
    feed.close()
    assert not feed._thread.is_alive()


def test_what_goes_wrong_in_the_thread_is_raised_where_batches_are_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    samples = _samples([_split(_documents(1))], [1.0])
    monkeypatch.setattr(samples, "batch", lambda first, n: (_ for _ in ()).throw(OSError("gone")))
    feed = Feed(samples, 6, 2, 0, torch.device("cpu"))
    with pytest.raises(OSError, match="gone"):
        feed.take()
    feed.close()


def test_datasets_of_other_tokenizers_do_not_mix(tmp_path: Path, make_dataset: object) -> None:
    paths = [
        make_dataset(tmp_path / name, [[1, 2, 3]], tokenizer_json=text)  # type: ignore[operator]
        for name, text in (("a", b"{}"), ("b", b"{ }"), ("c", b"{}"))
    ]
    a, b, c = (Dataset.open(path) for path in paths)
    with pytest.raises(ConfigError, match="different tokenizers"):
        Mixture.of([a, b], None)
    with pytest.raises(ConfigError, match="named twice"):
        Mixture.of([a, a], None)
    assert Mixture.of([a, c], None).weights == (3, 3)
    assert Mixture.of([a, c], None).name == "a+c"
    assert Mixture.of([a], None).sha256 == a.sha256


def test_joined_splits_read_like_one() -> None:
    parts = [_documents(seed, n=5) for seed in (1, 2, 3)]
    whole, found = _split([d for part in parts for d in part]), joined([_split(part) for part in parts])
    assert np.array_equal(found.tokens[np.arange(len(found.tokens))], whole.tokens)
    assert np.array_equal(found.offsets, whole.offsets)
    assert (found.n_tokens, found.n_documents, found.text_bytes) == (
        whole.n_tokens, whole.n_documents, whole.text_bytes
    )  # fmt: skip
