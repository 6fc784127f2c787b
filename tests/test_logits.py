"""A block of logits to losses and gradients: by torch, the extension and the GPU's kernel, against float64."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pylm import kernels, logits
from pylm.errors import ConfigError
from pylm.logits import IGNORED, by_chunks, by_extension, to_gradients, to_losses

CASES = [
    (torch.float32, 301, 301, True),
    (torch.float32, 301, 320, False),
    (torch.bfloat16, 301, 320, True),
    (torch.float16, 9_001, 9_024, False),  # more columns than the kernel takes at a time
]


def _case(
    dtype: torch.dtype, n_ids: int, width: int, with_bias: bool
) -> tuple[Tensor, Tensor | None, Tensor]:
    generator = torch.Generator().manual_seed(n_ids)
    logits_RW = (3 * torch.randn(7, width, generator=generator)).to(dtype)
    targets_R = torch.randint(n_ids, (7,), generator=generator)
    targets_R[2] = IGNORED
    targets_R[3] = n_ids - 1
    return logits_RW, torch.randn(n_ids, generator=generator) if with_bias else None, targets_R


def check(each_row, device: str, dtype: torch.dtype, n_ids: int, width: int, with_bias: bool) -> None:
    logits_RW, bias_V, targets_R = _case(dtype, n_ids, width, with_bias)
    exact_RV = logits_RW[:, :n_ids].double().requires_grad_()
    biased_RV = exact_RV if bias_V is None else exact_RV + bias_V
    expected_R = F.cross_entropy(biased_RV, targets_R, reduction="none", ignore_index=IGNORED)
    expected_R.sum().backward()
    there = [None if tensor is None else tensor.to(device) for tensor in (logits_RW, bias_V, targets_R)]
    found_R = each_row(there[0].clone(), *there[1:], n_ids, gradient=False)
    assert torch.allclose(found_R.cpu().double(), expected_R.detach(), rtol=1e-6, atol=1e-6)
    again_R = each_row(*there, n_ids, gradient=True)
    assert torch.equal(found_R, again_R)
    grad_RW = there[0].cpu().double()
    assert grad_RW[:, n_ids:].eq(0).all()
    unit = {torch.float32: 1e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}[dtype]  # of rounding
    assert (grad_RW[:, :n_ids] - exact_RV.grad).norm() <= unit * exact_RV.grad.norm()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("chunk_bytes", [1, 4 * 301 * 3, 1 << 20])
def test_chunks(case: tuple, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logits, "CHUNK_BYTES", chunk_bytes)
    check(by_chunks, "cpu", *case)


@pytest.mark.parametrize("case", [case for case in CASES if case[0] != torch.float16])
@pytest.mark.parametrize("n_threads", [1, 3])
def test_extension(case: tuple, n_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: n_threads)
    check(by_extension, "cpu", *case)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extension_agrees_with_chunks(dtype: torch.dtype) -> None:
    """Over widths with and without a rest behind the vectors, rows for several threads, and what is no number."""
    for n_ids in (1, 15, 16, 65, 1_025, 4_100):
        generator = torch.Generator().manual_seed(n_ids)
        logits_RV = (5 * torch.randn(300, n_ids, generator=generator)).to(dtype)
        logits_RV[7] = -float("inf")
        logits_RV[8, 0] = float("nan")
        logits_RV[9, 0] = float("inf")
        targets_R = torch.randint(-1, n_ids, (300,), generator=generator)
        targets_R[7:10] = 0
        ours, theirs = logits_RV.clone(), logits_RV.clone()
        losses_R = by_extension(ours, None, targets_R, n_ids, gradient=True)
        expected_R = by_chunks(theirs, None, targets_R, n_ids, gradient=True)
        torch.testing.assert_close(losses_R, expected_R, rtol=2e-6, atol=2e-6, equal_nan=True)
        assert losses_R[7:10].isnan().all()
        finite_R = torch.ones(300, dtype=torch.bool)
        finite_R[7:10] = False
        rounding = 1e-5 if dtype == torch.float32 else 2**-7
        torch.testing.assert_close(ours[finite_R], theirs[finite_R], rtol=rounding, atol=1e-6)


def test_extension_is_what_a_cpu_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is fast, and for the dtypes that it knows; elsewhere torch's operations."""
    taken: list[str] = []
    for name in ("by_extension", "by_chunks"):
        monkeypatch.setattr(logits, name, lambda *_, _name=name, **__: taken.append(_name))
    for dtype, is_fast in ((torch.float32, True), (torch.bfloat16, True), (torch.bfloat16, False)):
        monkeypatch.setattr(kernels, "_are_fast", lambda is_fast=is_fast: is_fast)
        to_losses(torch.zeros(1, 3, dtype=dtype), None, torch.zeros(1, dtype=torch.int64), 3)
    to_gradients(torch.zeros(1, 3, dtype=torch.float16), None, torch.zeros(1, dtype=torch.int64), 3)
    assert taken == ["by_extension", "by_extension", "by_chunks", "by_chunks"]


def test_extension_leaves_a_bias_that_can_be_emptied() -> None:
    """FSDP frees a gathered parameter by resizing its storage."""
    bias_V = torch.zeros(3)
    by_extension(torch.zeros(1, 3), bias_V, torch.zeros(1, dtype=torch.int64), 3, gradient=True)
    bias_V.untyped_storage().resize_(0)


def test_extension_refuses_what_does_not_fit() -> None:
    rows, targets = torch.zeros(2, 3), torch.tensor([0, 3])
    with pytest.raises(ConfigError, match="the target 3 is none of 3 ids"):
        by_extension(rows, None, targets, 3, gradient=True)
    with pytest.raises(ConfigError, match="6 logits are not 1 rows of 3 columns"):
        by_extension(rows, None, targets[:1], 3, gradient=True)
    with pytest.raises(ConfigError, match="with 3 ids and 2 biases"):
        by_extension(rows, torch.zeros(2), targets, 3, gradient=True)
    assert rows.eq(0).all()


def test_kernel() -> None:
    """Triton's interpreter runs it without a GPU; it is chosen before the kernel is imported."""
    pytest.importorskip("triton", minversion="3.7")  # earlier interpreters do not know numpy 2.4
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "TRITON_INTERPRET": "1"}
    result = subprocess.run([sys.executable, __file__], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("case", CASES)
def test_on_a_gpu(case: tuple) -> None:
    from pylm.logits_kernel import each_row

    check(each_row, "cuda", *case)
    check(by_chunks, "cuda", *case)


if __name__ == "__main__":
    from pylm.logits_kernel import each_row

    for case in CASES:
        check(each_row, "cpu", *case)
