"""The loss head against torch's own, whole and in chunks: `python benches/loss_head.py [--device D] [--dtype T]`.

Forward and backward pass of the head alone, the best of up to four rounds; relative errors of the loss and of both
gradients against float64.
"""

import argparse
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pylm.loss import head_loss

# Rows, features, vocabulary: the auto preset's step, a GPT-2 of 384, a sixth of S0's step.
SHAPES = [(1024, 384, 8_000), (1024, 384, 50_257), (512, 1024, 200_019)]
N_ROUNDS = 3
ROUNDS_S = 15.0  # no further round after so many seconds
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def whole(x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    """All logits at once."""
    return F.cross_entropy(F.linear(x_ND, weight_VD).float(), targets_N, reduction="sum")


def chunked(x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    """torch.nn.functional.linear_cross_entropy as it comes; from torch 2.13 on."""
    from torch.nn.modules.linear_cross_entropy_options import LinearCrossEntropyOptions

    options = LinearCrossEntropyOptions()
    return F.linear_cross_entropy(x_ND, weight_VD, targets_N, reduction="sum", options=options)


def ours(x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    """By blocks, gradients in the forward pass."""
    return head_loss(x_ND, weight_VD, None, targets_N)


def measure(loss: Loss, x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> tuple[float, list[Tensor]]:
    """Seconds of both passes, and the loss with its gradients."""
    best, found = float("inf"), []
    first = time.perf_counter()
    for _ in range(1 + N_ROUNDS):
        if found and time.perf_counter() - first > ROUNDS_S:
            break
        x, weight = x_ND.detach().requires_grad_(), weight_VD.detach().requires_grad_()
        began = _now(x_ND.device)
        value = loss(x, weight, targets_N)
        value.backward()
        best = min(best, _now(x_ND.device) - began)
        found = [value.detach(), x.grad, weight.grad]
    return best, found


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def main() -> None:
    """Print a table a shape."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    for n, d, v in SHAPES:
        generator = torch.Generator(options.device).manual_seed(0)
        numbers = {"device": options.device, "generator": generator}
        x_ND = torch.randn(n, d, **numbers).to(getattr(torch, options.dtype))
        weight_VD = (0.05 * torch.randn(v, d, **numbers)).to(x_ND.dtype)
        targets_N = torch.randint(v, (n,), **numbers)
        print(f"{n:,} rows x {d:,}, V {v:,}, {options.dtype} on {options.device}")
        exact = measure_once(x_ND.double(), weight_VD.double(), targets_N) if n * v < 2e8 else None
        for name, loss in (("ours", ours), ("torch, chunked", chunked), ("torch, whole", whole)):
            try:
                seconds, found = measure(loss, x_ND, weight_VD, targets_N)
            except ImportError:
                print(f"  {name:15} torch {torch.__version__} has none")
                continue
            errors = ""
            if exact is not None:
                relative = [float((a - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True)]
                errors = "  errors: loss {:.0e}, features {:.0e}, matrix {:.0e}".format(*relative)
            print(f"  {name:15} {seconds * 1e3:9.1f} ms{errors}", flush=True)


def measure_once(x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> list[Tensor]:
    """The loss and its gradients in float64."""
    x, weight = x_ND.requires_grad_(), weight_VD.requires_grad_()
    value = F.cross_entropy(F.linear(x, weight), targets_N, reduction="sum")
    value.backward()
    return [value.detach(), x.grad, weight.grad]


if __name__ == "__main__":
    main()
