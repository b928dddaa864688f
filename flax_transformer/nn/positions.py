"""Position encodings: the sinusoids of section 3.5 of arXiv 1706.03762, and learned ones."""

from typing import Literal, TypeAlias

import flax.linen as nn
import numpy as np

from flax_transformer.array_types import Array, Float, Int
from flax_transformer.nn.embedding import take_rows

SinusoidLayout: TypeAlias = Literal["interleaved", "halves"]


def sinusoidal_table(
    num_positions: int, dim: int, *, layout: SinusoidLayout
) -> Float[np.ndarray, "P D"]:
    """Tabulate sines and cosines of wavelengths from 2π to 10000 · 2π, float32.

    The angle of position p and pair i is ``p / 10000^(2i / dim)``. ``"interleaved"`` stores
    ``sin, cos, sin, cos, …`` as the paper writes it; ``"halves"`` stores all sines and then all
    cosines, as many public checkpoints do.

    Raises:
        ValueError: ``dim`` is odd.

    >>> sinusoidal_table(2, 4, layout="interleaved").round(2)
    array([[0.  , 1.  , 0.  , 1.  ],
           [0.84, 0.54, 0.01, 1.  ]], dtype=float32)
    >>> sinusoidal_table(2, 4, layout="halves").round(2)
    array([[0.  , 0.  , 1.  , 1.  ],
           [0.84, 0.01, 0.54, 1.  ]], dtype=float32)
    """
    if dim % 2:
        raise ValueError(f"dim must be even to hold pairs of sine and cosine, got {dim}.")
    frequencies = 10000.0 ** (-np.arange(0, dim, 2) / dim)
    angles = np.arange(num_positions)[:, None] * frequencies[None, :]
    table = np.empty((num_positions, dim), np.float32)
    if layout == "interleaved":
        sines, cosines = table[:, ::2], table[:, 1::2]
    else:
        sines, cosines = np.split(table, 2, axis=1)
    # Computed in float64 and rounded once.
    sines[:], cosines[:] = np.sin(angles), np.cos(angles)
    return table


class SinusoidalPositions(nn.Module):
    """Fixed sinusoidal position encodings.

    Attributes:
        num_positions: positions that can be encoded, 0 to ``num_positions - 1``.
        dim: size of an encoding.
        layout: order of sines and cosines, see :func:`sinusoidal_table`.
    """

    num_positions: int
    dim: int
    layout: SinusoidLayout = "interleaved"

    def __call__(self, positions: Int[Array, "*B"]) -> Float[Array, "*B D"]:
        """Return the float32 encodings; NaN for a position outside the table."""
        table = sinusoidal_table(self.num_positions, self.dim, layout=self.layout)
        return take_rows(table, positions)


class LearnedPositions(nn.Module):
    """A learned vector for each position.

    Attributes:
        num_positions: positions that can be encoded, 0 to ``num_positions - 1``.
        dim: size of an encoding.
        offset: row of the table that holds position 0; the rows before it are not used.
    """

    num_positions: int
    dim: int
    offset: int = 0

    @nn.compact
    def __call__(self, positions: Int[Array, "*B"]) -> Float[Array, "*B D"]:
        """Return the float32 encodings; NaN for a position outside the table."""
        table = self.param(
            "embedding",
            nn.initializers.normal(0.02),
            (self.offset + self.num_positions, self.dim),
        )
        return take_rows(table[self.offset :], positions)
