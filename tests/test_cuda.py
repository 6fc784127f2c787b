"""What only a GPU shows; skipped without one. The same promises as on a CPU: see test_train, test_step, test_loss."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pylm.compiling import compiling
from pylm.config import OptimizerConfig
from pylm.feed import StepBatch
from pylm.loss import IGNORED, head_loss
from pylm.models.attention import fastest_kernels
from pylm.models.build import build_model
from pylm.models.config import ModelConfig
from pylm.optim import build_optimizers
from pylm.precision import Precision
from pylm.step import Stepper

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

CUDA = torch.device("cuda")
SHAPE = ModelConfig(
    vocab_size=1_003, max_context=128, n_layers=2, width=128, n_heads=2, mlp="relu2", qk_norm=True,
    norm_kind="layer", norm_gains="none", embedding_norm=True, embedding_conv=3, tied=False, init="zero_out",
)  # fmt: skip
TINY = (
    "--context 64 --batch-size 16 --set model.n_layers=2 --set model.width=64 --set model.n_heads=2 "
    "--set train.eval_tokens=4096 --set train.save_every=10 --set train.log_every=1"
).split()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("n_ids", "with_bias"), [(1_003, False), (50_257, True)])
def test_head_loss_equals_float64(dtype: torch.dtype, n_ids: int, with_bias: bool, monkeypatch) -> None:
    from pylm import loss

    monkeypatch.setitem(
        loss.BLOCK_BYTES, "cuda", 300 * n_ids * dtype.itemsize
    )  # several blocks, the last smaller
    generator = torch.Generator(CUDA).manual_seed(0)
    leaves = [
        torch.randn(1000, 256, device=CUDA, generator=generator),
        torch.randn(n_ids, 256, device=CUDA, generator=generator) / 16,
        torch.randn(n_ids, device=CUDA, generator=generator) if with_bias else None,
    ]
    targets_N = torch.randint(n_ids, (1000,), device=CUDA, generator=generator)
    targets_N[5:9] = IGNORED
    found = _loss_and_gradients(leaves, lambda *given: _autocast_head(*given, targets_N, dtype))
    if dtype == torch.bfloat16:  # the products' rounded factors are given; what is added up counts
        leaves[:2] = [leaf.to(dtype) for leaf in leaves[:2]]
    exact = _loss_and_gradients(
        [None if leaf is None else leaf.double() for leaf in leaves],
        lambda x_ND, weight_VD, bias_V: F.cross_entropy(
            F.linear(x_ND, weight_VD, bias_V), targets_N, reduction="sum", ignore_index=IGNORED
        ),
    )
    limits = (1e-6, 1e-5) if dtype == torch.float32 else (1e-4, 5e-3)
    for number, (a, b) in enumerate(zip(found, exact, strict=True)):
        assert (a.double() - b).norm() <= limits[number > 0] * b.norm()


def _autocast_head(
    x_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, targets_N: Tensor, dtype
) -> Tensor:
    with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        return head_loss(x_ND, weight_VD, bias_V, targets_N)


def _loss_and_gradients(leaves: list[Tensor | None], function) -> list[Tensor]:
    taken = [None if leaf is None else leaf.detach().clone().requires_grad_() for leaf in leaves]
    value = function(*taken)
    value.backward()
    return [value.detach(), *(leaf.grad for leaf in taken if leaf is not None)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_steps_follow_those_of_a_cpu(dtype: str, optimizer: str) -> None:
    losses = [
        _losses(device, dtype if device == "cuda" else "float32", optimizer) for device in ("cpu", "cuda")
    ]
    # Muon's iterations are in bfloat16 on a GPU; what is rounded differently grows at rates as high as these.
    limit = 1e-4 if dtype == "float32" and optimizer == "adamw" else 0.1
    assert losses[0] == pytest.approx(losses[1], abs=limit)
    assert losses[0][-1] < losses[0][0] - 0.5


def test_compiled_steps_follow_the_others() -> None:
    plain, compiled = (_losses("cuda", "bfloat16", "adamw", compiles=compiles) for compiles in (False, True))
    assert plain == pytest.approx(compiled, abs=0.1)


def _losses(device: str, dtype: str, optimizer: str, *, compiles: bool = False) -> list[float]:
    stepper = _stepper(device, dtype, optimizer)
    losses = []
    for number in range(8):
        batch = _batch(number % 2, device)
        if compiles and number == 0:
            with compiling(stepper.model):
                stepper.step(batch)
        else:
            stepper.step(batch)
        losses.append(stepper.report().loss)
    assert stepper.report().skipped == 0
    return losses


def _stepper(device: str, dtype: str, optimizer: str = "adamw", clip: float = 1.0) -> Stepper:
    model = build_model(SHAPE, seed=1).to(device)
    settings = OptimizerConfig(name=optimizer, lr=1e-2, muon_lr=0.02)
    precision = Precision(dtype, torch.device(device))
    return Stepper(model, build_optimizers(model, settings), clip=clip, precision=precision)


def _batch(number: int, device: str) -> StepBatch:
    ids_BL = torch.randint(1_003, (8, 129), generator=torch.Generator().manual_seed(number)).to(torch.uint16)
    return StepBatch((ids_BL[:, :-1].to(device), ids_BL[:, 1:].to(device)), 4, 8 * 128)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_step_does_not_wait_for_the_device(dtype: str, optimizer: str) -> None:
    stepper = _stepper("cuda", dtype, optimizer)
    batches = [_batch(number, "cuda") for number in range(3)]
    stepper.step(batches[0])  # makes what the optimizers keep
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches[1:]:
            stepper.step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_float16_halves_its_scale_after_an_overflow_and_skips_the_step() -> None:
    stepper = _stepper("cuda", "float16")
    stepper.precision.scale = torch.tensor(2.0**24, device=CUDA)
    weight = next(stepper.model.parameters())
    before, at_first = weight.detach().clone(), stepper.precision.read()[0]
    stepper.model.head_weight.register_hook(lambda grad: grad * 1e36)
    stepper.step(_batch(0, "cuda"))
    assert torch.equal(weight, before)
    assert stepper.report().skipped == 1
    assert stepper.precision.read()[0] == at_first / 2


@pytest.mark.parametrize("heads", [(4, 4), (4, 2)])
def test_attention_kernels_agree(heads: tuple[int, int]) -> None:
    generator = torch.Generator(CUDA).manual_seed(0)
    qkv = [
        torch.randn(2, n, 256, 64, device=CUDA, dtype=torch.bfloat16, generator=generator)
        for n in (*heads, heads[1])
    ]
    with fastest_kernels(CUDA):
        found = F.scaled_dot_product_attention(*qkv, is_causal=True, enable_gqa=True)
    exact = F.scaled_dot_product_attention(*(x.double() for x in qkv), is_causal=True, enable_gqa=True)
    assert (found.double() - exact).norm() <= 1e-2 * exact.norm()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset of the standard library."""
    home = tmp_path_factory.mktemp("home")
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:60]
    (home / "text.txt").write_bytes(b"\n".join(file.read_bytes() for file in files))
    _pylm(home, "tokenize", "text.txt", "--vocab-size", "1000")
    return home


def _pylm(home: Path, *arguments: str, check: int = 0) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        [sys.executable, "-m", "pylm", *arguments],
        cwd=home, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert result.returncode == check, result.stdout + result.stderr
    return result


def test_a_run_resumes_with_the_same_losses_and_generates(home: Path) -> None:
    for run, ends in (("whole", ["30"]), ("parts", ["10", "20", "30"])):
        for end in ends:  # the schedule is of the run: constant, so that it does not matter where it ends
            options = [
                "--steps",
                end,
                "--set",
                "schedule.kind=constant",
                "--warmup",
                "1",
                "--compile",
                "off",
                *TINY,
            ]
            result = _pylm(home, "train", "--run", run, *options)
    assert "bits per byte" in result.stdout
    losses = [_losses_of(home, run) for run in ("whole", "parts")]
    assert len(losses[0]) >= 30
    assert losses[0] == pytest.approx(losses[1], abs=2e-2)
    assert _pylm(home, "generate", "parts", "--prompt", "import", "--max-tokens", "20").stdout


def _losses_of(home: Path, run: str) -> dict[int, float]:
    lines = (home / "runs" / run / "metrics.jsonl").read_text().splitlines()
    return {line["step"]: line["loss"] for line in map(json.loads, lines) if "loss" in line}


def test_a_compiled_run(home: Path) -> None:
    result = _pylm(home, "train", "--run", "compiled", "--steps", "12", *TINY)
    assert "torch.compile: done in" in result.stderr
    assert json.loads((home / "runs" / "compiled" / "run.json").read_text())["status"] == "finished"


def test_out_of_memory_is_one_line(home: Path) -> None:
    """Another process's tensor leaves too little for the step that the estimate let pass."""
    _, total = torch.cuda.mem_get_info()
    code = (
        f"import sys, torch; torch.cuda.set_per_process_memory_fraction({2.0 * 2**30 / total}); "
        "from pylm.cli.main import main; main(sys.argv[1:])"
    )
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    options = (
        "train --run large --steps 2 --context 1024 --batch-size 64 --micro-batch 64 --set model.n_layers=8 "
        "--set model.width=512 --set model.n_heads=8 --compile off"
    ).split()
    result = subprocess.run(
        [sys.executable, "-c", code, *options],
        cwd=home, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert result.returncode == 1
    assert "out of memory on cuda" in result.stderr
    assert "--micro-batch" in result.stderr
    assert "Traceback" not in result.stderr
