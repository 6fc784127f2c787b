"""torch.compile of a model's blocks, where it pays.

Block by block: blocks of one shape are compiled once. So are what comes before the first and after the last one, where
that is more than one operation. Evaluations and samples, whose shapes change, stay eager.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from pylm.errors import TrainingError
from pylm.models.build import Decoder


def compiles(setting: str, device: torch.device) -> bool:
    """Whether `train.compile` ("on", "off", "auto") means yes: auto does on a GPU."""
    # Two cores, 6 layers x 384, context 256: between 0.6 and 1.04 times the speed of eager.
    return setting == "on" or (setting == "auto" and device.type == "cuda")


@contextmanager
def compiling(model: Decoder, backend: str | Callable[..., Any] = "inductor") -> Iterator[None]:
    """Make the blocks compile at their first call, inside. Raises TrainingError where that fails."""
    for part in (*model.blocks, model.embedding_convolution, model.input_norm, model.final_norm):
        if part is not None and not isinstance(part, nn.Identity):
            part.compile(backend=backend, dynamic=False)  # in place: names of weights stay as they are
    try:
        with warnings.catch_warnings():
            # Of dynamo's own look at inputs that are no leaves; nothing a user could mend.
            warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor")
            yield
    except Exception as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        reason = " ".join(str(error).split())[:200]
        raise TrainingError(f"torch.compile failed: {reason}; go on with --compile off") from error


def eagerly(compiled: bool = True) -> AbstractContextManager[object]:
    """Inside, compiled blocks run as they were written; where nothing is compiled there is nothing to do."""
    if not compiled:
        return nullcontext()  # the stance would import the compiler, two seconds
    stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance
