"""Which blocks of a long input attend to which (BigBird: Zaheer et al., 2020, arXiv 2007.14062)."""

import dataclasses

import numpy as np
from jaxtyping import Bool

from flax_transformer.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockSparseConfig:
    """The blocks that attend to each other; the defaults are BigBird's.

    The pattern is laid over the whole row, padding included: what a text becomes depends on the
    length that it is padded to, where there are random blocks, and on its place in a row.

    Attributes:
        block_size: positions of a block; 0 lets all attend to all.
        num_global_blocks: blocks at the start that attend to all and that all attend to.
        num_window_blocks: neighbouring blocks that a block attends to, itself in their middle.
        num_random_blocks: further blocks that each block but the global ones attends to.
        seed: of their choice.

    Raises:
        InputError: a number is out of its range.
    """

    block_size: int = 64
    num_global_blocks: int = 2
    num_window_blocks: int = 3
    num_random_blocks: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("block_size", "num_global_blocks", "num_random_blocks", "seed"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must not be negative, got {getattr(self, name)}.")
        if self.num_window_blocks < 1 or self.num_window_blocks % 2 == 0:
            raise InputError(
                "num_window_blocks must be odd, with a block's own in the middle, "
                f"got {self.num_window_blocks}."
            )


NO_SPARSITY = BlockSparseConfig(block_size=0)
"""All attend to all."""


def block_pattern(
    config: BlockSparseConfig, num_blocks: int, *, causal: bool = False
) -> Bool[np.ndarray, "blocks blocks"]:
    """Return which block, by row, attends to which; the same at every call.

    Args:
        config: see there.
        num_blocks: of the input.
        causal: leave out the blocks of the future. The pattern of an input is then the beginning
            of that of a longer one.

    >>> config = BlockSparseConfig(num_global_blocks=1, num_random_blocks=1)
    >>> block_pattern(config, 6).astype(int)
    array([[1, 1, 1, 1, 1, 1],
           [1, 1, 1, 0, 0, 1],
           [1, 1, 1, 1, 1, 0],
           [1, 1, 1, 1, 1, 0],
           [1, 1, 0, 1, 1, 1],
           [1, 1, 0, 0, 1, 1]])
    """
    block = np.arange(num_blocks)
    pattern = np.abs(block[:, None] - block) <= config.num_window_blocks // 2
    pattern[: config.num_global_blocks] = True
    pattern[:, : config.num_global_blocks] = True
    may_attend = np.tril(np.ones_like(pattern)) if causal else np.ones_like(pattern)
    for row in range(config.num_global_blocks, num_blocks):
        others = np.flatnonzero(may_attend[row] & ~pattern[row])
        rng = np.random.default_rng((config.seed, row))
        pattern[row, rng.permutation(others)[: config.num_random_blocks]] = True
    return pattern & may_attend


def block_sparse_mask(
    config: BlockSparseConfig, length: int, *, causal: bool = False
) -> Bool[np.ndarray, "1 1 T T"]:
    """Return which position attends to which: the mask that gives dense attention the pattern.

    >>> config = BlockSparseConfig(block_size=2, num_global_blocks=0, num_window_blocks=1,
    ...                            num_random_blocks=0)
    >>> block_sparse_mask(config, 5)[0, 0].astype(int)
    array([[1, 1, 0, 0, 0],
           [1, 1, 0, 0, 0],
           [0, 0, 1, 1, 0],
           [0, 0, 1, 1, 0],
           [0, 0, 0, 0, 1]])
    """
    num_blocks = -(-length // config.block_size)
    pattern = block_pattern(config, num_blocks, causal=causal)
    size = config.block_size
    mask = pattern.repeat(size, axis=0).repeat(size, axis=1)[:length, :length]
    return (np.tril(mask) if causal else mask)[None, None]
