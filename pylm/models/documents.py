"""Documents side by side in one window: attention stays within each, and positions begin anew with it."""

import torch
from torch import Tensor

# Axes: B sequences, T positions.


class Documents:
    """Where the documents of a batch begin. Blocks take it in the place of a cache: it is what they know besides x."""

    def __init__(self, numbers_BT: Tensor) -> None:
        """numbers_BT: int, the document that each position belongs to, growing along T."""
        length = numbers_BT.shape[1]
        positions_T = torch.arange(length, device=numbers_BT.device)
        begins_BT = torch.ones_like(numbers_BT, dtype=torch.bool)
        begins_BT[:, 1:] = numbers_BT[:, 1:] != numbers_BT[:, :-1]
        first_BT = torch.where(begins_BT, positions_T, 0).cummax(1).values
        self.positions_BT = positions_T - first_BT  # int64, from 0 in each document
        # bool (B, 1, T, T), true where a query may look: what torch's attention takes, for all heads.
        self.mask_B1TT = (numbers_BT[:, :, None] == numbers_BT[:, None, :]).tril()[:, None]
