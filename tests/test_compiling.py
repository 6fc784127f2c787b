"""Compiled blocks train as the others do, keep their names, and stay out of what changes its shape."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from pylm import checkpoint
from pylm.checkpoint import State
from pylm.compiling import compiles, compiling, eagerly
from pylm.config import OptimizerConfig
from pylm.errors import TrainingError
from pylm.feed import StepBatch
from pylm.models.build import build_model
from pylm.models.config import ModelConfig
from pylm.optim import build_optimizers
from pylm.step import Stepper

# What dynamo makes of a block, run by torch itself: generating code would take half a minute.
SHAPE = ModelConfig(vocab_size=37, max_context=16, n_layers=3, width=16, n_heads=2, mlp_hidden=32)
STACKS = ModelConfig(
    vocab_size=37, max_context=16, n_layers=2, width=16, n_heads=2, family="stacks", n_stacks=10, tied=False,
    mlp="relu", norm_kind="layer", positions="sinusoid", bias=True,
)  # fmt: skip


def _stepper(shape: ModelConfig = SHAPE) -> Stepper:
    model = build_model(shape, seed=1)
    return Stepper(model, build_optimizers(model, OptimizerConfig(lr=1e-2)), clip=1.0)


class Graphs(list[torch.fx.GraphModule]):
    """A compiler that keeps what it is given, and runs it as it is."""

    def keep(self, graph: torch.fx.GraphModule, _: Any) -> Any:
        self.append(graph)
        return graph.forward


def _batch(number: int) -> StepBatch:
    ids_BL = torch.randint(37, (4, 17), generator=torch.Generator().manual_seed(number))
    documents_BT = (torch.arange(16) // 5).expand(4, 16)
    return StepBatch((ids_BL[:, :-1], ids_BL[:, 1:], documents_BT), 2, 64)


def test_compiled_blocks() -> None:
    """In a process of its own: after the compiler has run in this one, no test could fork it to kill its child."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert result.returncode == 0, result.stderr[-3000:]


def check_compiled_blocks_take_the_same_steps_under_the_same_names(tmp_path: Path) -> None:
    graphs = Graphs()
    compiled, plain = _stepper(), _stepper()
    with compiling(compiled.model, graphs.keep):
        for number in range(3):
            compiled.step(_batch(number))
            plain.step(_batch(number))
    assert len(graphs) == 2, "three blocks of one shape are one graph, the last norm another"
    for a, b in zip(compiled.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    with eagerly(), torch.no_grad():
        for length in range(1, 6):
            compiled.model(torch.zeros(1, length, dtype=torch.int64))
    assert len(graphs) == 2, "other shapes are not compiled"
    checkpoint.save(tmp_path, State(step=3), compiled.model, compiled.optimizers)
    fresh = build_model(SHAPE)
    checkpoint.load_weights(tmp_path, 3, fresh)
    assert list(fresh.state_dict()) == list(compiled.model.state_dict())
    assert not any("_orig_mod" in name for name in compiled.model.state_dict())


def check_stacks_are_compiled_in_the_parts_that_are_recomputed() -> None:
    graphs = Graphs()
    compiled, plain = _stepper(STACKS), _stepper(STACKS)
    compiled.model.activation_checkpointing = True
    with compiling(compiled.model, graphs.keep):
        for number in range(2):
            compiled.step(_batch(number))
            plain.step(_batch(number))
    assert len(graphs) == 5, "layers and FFN of a stack, the same of the last one, the last norm"
    for a, b in zip(compiled.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def check_a_failing_compiler_is_one_line() -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no compiler here")

    stepper = _stepper()
    message = r"torch.compile failed: .*no compiler here.*--compile off"
    with pytest.raises(TrainingError, match=message), compiling(stepper.model, fail):
        stepper.step(_batch(0))
    with pytest.raises(ZeroDivisionError), compiling(_stepper().model):
        raise ZeroDivisionError


def test_auto_compiles_where_it_pays() -> None:
    assert [compiles("auto", torch.device(kind)) for kind in ("cpu", "cuda", "mps")] == [False, True, False]
    assert compiles("on", torch.device("cpu"))
    assert not compiles("off", torch.device("cuda"))


if __name__ == "__main__":
    check_a_failing_compiler_is_one_line()
    with tempfile.TemporaryDirectory() as _folder:
        check_compiled_blocks_take_the_same_steps_under_the_same_names(Path(_folder))
    torch._dynamo.reset()
    check_stacks_are_compiled_in_the_parts_that_are_recomputed()
