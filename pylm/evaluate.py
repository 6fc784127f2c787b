"""The loss on held-out text, in nats per token and in bits per byte."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from pylm.dataset import Ids, ShardedTokens
from pylm.loss import IGNORED, target_losses
from pylm.models.build import Decoder
from pylm.parallel import Parallel
from pylm.samples import document_numbers, input_documents


@dataclass(frozen=True)
class Evaluation:
    """What a model loses on n_tokens targets that stand for n_bytes of text."""

    loss: float  # nats per token
    n_tokens: int
    n_bytes: int
    whole: bool  # the whole split, or windows spread evenly over it

    @property
    def bits_per_byte(self) -> float:
        """Nats of all targets, end-of-text ones included, / ln 2 / bytes of text; nan where there is no text."""
        return self.loss * self.n_tokens / math.log(2) / self.n_bytes if self.n_bytes else math.nan


def evaluate(
    model: Decoder,
    tokens: Ids | ShardedTokens,
    token_bytes_V: npt.NDArray[np.int64],
    end_of_text_id: int | None,
    *,
    context: int,
    batch_size: int,
    max_tokens: int,
    offsets: npt.NDArray[np.uint64] | None = None,
    parallel: Parallel | None = None,
) -> Evaluation:
    """Evaluate on a split's tokens, in windows of `context` that do not overlap, each target once.

    token_bytes_V is the length of each token in bytes of text, 0 for special tokens. The first token of the split is
    predicted from an end of text where there is one, and is no target otherwise. Of a split longer than `max_tokens`,
    evenly spread windows are taken. With the split's `offsets`, attention stays within documents as in training. The
    model's mode and the random state are left as they were. Processes that have the model in `parallel` share the
    windows out, and all return the sum.
    """
    parallel = parallel or Parallel(model)
    first_target = 0 if end_of_text_id is not None else 1
    n_targets = len(tokens) - first_target
    n_windows = math.ceil(n_targets / context)
    n_taken = min(n_windows, max(1, max_tokens // context))
    taken = np.arange(n_taken, dtype=np.int64) * n_windows // n_taken
    device = next(model.parameters()).device
    rank, n_processes = parallel.world.rank, parallel.world.size
    # The same number for each process; window n_windows lies past the end and has no targets.
    mine = np.append(taken, np.full(-n_taken % n_processes, n_windows))[rank::n_processes]

    total = torch.zeros((), dtype=torch.float64)
    n_tokens = n_bytes = 0
    was_training = model.training
    model.eval()
    try:
        for begin in range(0, len(mine), batch_size):
            starts = first_target + mine[begin : begin + batch_size] * context
            inputs_BT, targets_BT = _window(tokens, starts, context, end_of_text_id)
            documents_BT = None
            if offsets is not None:
                positions_BL = np.maximum(starts[:, None] + np.arange(-1, context), 0)
                numbers_BL = document_numbers(offsets, positions_BL)
                documents_BT, cut_BT = input_documents(numbers_BL, separated=end_of_text_id is not None)
                targets_BT = np.where(cut_BT, IGNORED, targets_BT)
            valid = targets_BT >= 0
            losses_BT = parallel.look(
                target_losses,
                torch.from_numpy(inputs_BT).to(device),
                torch.from_numpy(targets_BT).to(device),
                None if documents_BT is None else torch.from_numpy(documents_BT).to(device),
            )
            total += losses_BT.double().sum().cpu()
            n_tokens += int(valid.sum())
            n_bytes += int(token_bytes_V[targets_BT[valid]].sum())
    finally:
        model.train(was_training)
    counted = torch.tensor([float(total), n_tokens, n_bytes], dtype=torch.float64)
    loss, tokens_seen, bytes_seen = parallel.world.sum(counted).tolist()
    return Evaluation(loss / tokens_seen, int(tokens_seen), int(bytes_seen), n_taken == n_windows)


def _window(
    tokens: Ids | ShardedTokens,
    starts_B: npt.NDArray[np.int64],
    context: int,
    end_of_text_id: int | None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Inputs and targets (B, context) whose first targets are at `starts_B`; targets past the end are -1."""
    positions_BT = starts_B[:, None] + np.arange(context)
    inside = positions_BT < len(tokens)
    targets_BT = np.where(inside, tokens[np.minimum(positions_BT, len(tokens) - 1)].astype(np.int64), -1)
    inputs_BT = tokens[np.clip(positions_BT - 1, 0, len(tokens) - 1)].astype(np.int64)
    if end_of_text_id is not None:
        inputs_BT[positions_BT == 0] = end_of_text_id
    return inputs_BT, targets_BT
