"""A block of logits becomes losses and gradients: by torch's operations and by the GPU's kernel, against float64."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pylm import logits
from pylm.logits import IGNORED, by_chunks

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
