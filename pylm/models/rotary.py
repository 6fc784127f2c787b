"""Rotary positions: a query's and a key's features turn, in pairs, by an angle that grows with the position.

Neighbouring features (2i, 2i + 1) are a pair, as in Su et al. 2021 and in S3. Llama in transformers pairs
feature i with i + head_size / 2: `to_halves` reorders the rows of a q or k matrix for it.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

# Axes: B sequences, T positions, H heads, d features of a head, D model width.


class Rotary(nn.Module):
    """Turns heads at the given positions; the angles of position p are p * base^(-2i / d)."""

    table_Td2: Tensor

    def __init__(self, positions_T: NDArray[np.float64], head_size: int, base: float) -> None:
        """The positions may lie between tokens (the mean position of a compressed slot)."""
        super().__init__()
        angles_Td = positions_T[:, None] * base ** (-np.arange(0, head_size, 2) / head_size)
        table_Td2 = np.stack((np.cos(angles_Td), np.sin(angles_Td)), axis=-1).astype(np.float32)
        # By numpy, not torch: arithmetic on the meta device imports sympy first, 5 seconds.
        self.register_buffer("table_Td2", torch.as_tensor(table_Td2), persistent=False)
        self._angles: tuple[Tensor, NDArray[np.float32]] | None = None  # of which table, and all of them

    def forward(self, x_BTHd: Tensor, start: int | Tensor = 0, step: int = 1) -> Tensor:
        """Rotate (B, T, H, d), by the table's rows start, start + step, .. or by those named (B, T); in float32."""
        if isinstance(start, Tensor):
            table_T1d2 = self.table_Td2[start][:, :, None]
        else:
            table_T1d2 = self.table_Td2[start : start + step * x_BTHd.shape[1] : step, None]
        table_T1d2 = table_T1d2.float()  # of a model that was made one of 16 bits as well
        pairs_BTHd2 = x_BTHd.float().view(*x_BTHd.shape[:-1], x_BTHd.shape[-1] // 2, 2)
        if x_BTHd.device.type == "cpu" and not torch.compiler.is_compiling():
            # 2 x 1,024 positions, 24 heads of 64, both passes, 2 cores: 3.4 ms; by halves and cat 10.5.
            turned_BTHd2 = torch.view_as_real(
                torch.view_as_complex(pairs_BTHd2) * torch.view_as_complex(table_T1d2)
            )
        else:
            # Each feature with its partner, and no halves to be joined: the compiler makes one kernel of it, and one
            # of its gradient, together with what is around them.
            cos_T1d1, sin_T1d1 = torch.split(table_T1d2, 1, dim=-1)
            signed_T1d2 = torch.cat((-sin_T1d1, sin_T1d1), dim=-1)
            turned_BTHd2 = pairs_BTHd2 * cos_T1d1 + pairs_BTHd2.flip(-1) * signed_T1d2
        return turned_BTHd2.flatten(-2).to(x_BTHd.dtype)

    def angles(self, length: int) -> NDArray[np.float32]:
        """Cosine and sine of the first positions' angles, one after another: (length x head_size,)."""
        table_Td2 = self.table_Td2
        if self._angles is None or self._angles[0] is not table_Td2:
            self._angles = table_Td2, table_Td2.float().reshape(-1).numpy()
        return self._angles[1][: length * 2 * table_Td2.shape[1]]


def to_halves(rows_D: Tensor, head_size: int) -> Tensor:
    """Reorder the rows of a q or k weight (or bias) from neighbouring pairs to pairs half a head apart."""
    heads = rows_D.reshape(-1, head_size // 2, 2, *rows_D.shape[1:])
    return heads.transpose(1, 2).reshape(rows_D.shape)


def from_halves(rows_D: Tensor, head_size: int) -> Tensor:
    """The inverse of `to_halves`."""
    heads = rows_D.reshape(-1, 2, head_size // 2, *rows_D.shape[1:])
    return heads.transpose(1, 2).reshape(rows_D.shape)
