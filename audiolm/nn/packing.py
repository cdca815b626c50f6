"""Matrices as int8 values with a step a row: how checkpoints store them, and how decoding on a CPU multiplies them.

A step of decoding reads every weight once for a handful of rows, so its time is the time of reading them: a quarter in
int8. The grid of steps is idempotent: weights that came out of a checkpoint file go back to the very values of that
file, so that multiplying with them changes no weight.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

EXACT_ROWS = 4
"""From this many rows on, a float32 product gives a row the same bits whatever the number and content of the others
(measured: MKL has other kernels for 1 and for 2 or 3 rows). int8 products do so from one row on."""


def pack_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """[R, K] -> int8 values [R, K], and a row's step as quarter powers of two (int16 [R]).

    The grid of steps makes packing idempotent: the largest value of a row is at least 107 steps, so that the next
    finer step could not hold it.
    """
    largest = rows.abs().amax(dim=1).double().clamp(min=1e-30)
    exponents = torch.ceil(4 * torch.log2(largest / 127) - 1e-4).to(torch.int16)
    values = torch.round(rows / steps(exponents)[:, None]).clamp(-127, 127).to(torch.int8)
    return values, exponents


def unpack_rows(values: Tensor, exponents: Tensor) -> Tensor:
    """Undoes `pack_rows` for what is on its grid, float32 [R, K]."""
    return values.float() * steps(exponents)[:, None]


def steps(exponents: Tensor) -> Tensor:
    """Quarter powers of two -> the steps themselves, float32."""
    return torch.exp2(exponents.double() / 4).float()


class PlainMatrix:
    """x [B, K] -> x @ weight.T [B, N], weight [N, K] as it is. A row is the same beside others if B >= EXACT_ROWS."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    @property
    def num_bytes(self) -> int:
        return self.weight.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)

    def plus(self, base: Tensor, x: Tensor) -> Tensor:
        """base [B, N] or [N] + the product."""
        return base + F.linear(x, self.weight)


class PackedMatrix:
    """The same with int8 weights on a CPU: inputs and products are rounded to bfloat16, sums are float32.

    Each row is the same alone and beside others.
    """

    def __init__(self, values: Tensor, exponents: Tensor) -> None:
        self.values, self.steps = values, steps(exponents)
        self.ones = torch.ones(values.shape[0], dtype=torch.bfloat16)

    @property
    def num_bytes(self) -> int:
        return self.values.nbytes + self.steps.nbytes

    def _whole(self, x: Tensor) -> Tensor:
        return torch._weight_int8pack_mm(x.bfloat16(), self.values, self.ones)

    def __call__(self, x: Tensor) -> Tensor:
        return self._whole(x) * self.steps

    def plus(self, base: Tensor, x: Tensor) -> Tensor:
        return torch.addcmul(base, self._whole(x), self.steps)


Matrix = PlainMatrix | PackedMatrix


def in_blocks(weight: Tensor) -> bool:
    """Whether a matrix [N, K] has a shape that the int8 product is made for."""
    return weight.shape[0] % 4 == 0 and weight.shape[1] % 32 == 0


def on_grid(weight: Tensor) -> bool:
    """Whether a matrix [N, K] on a CPU is what packing it gives back, so that nothing is lost as int8."""
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or not in_blocks(weight):
        return False
    return torch.equal(unpack_rows(*pack_rows(weight)), weight)


def matrix(weight: Tensor, packed: bool) -> Matrix:
    """weight [N, K] as int8 (rounding what is not on the grid) or as it is."""
    return PackedMatrix(*pack_rows(weight)) if packed else PlainMatrix(weight)
