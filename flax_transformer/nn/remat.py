"""Rematerialisation: what the backward pass computes again instead of keeping.

The trade of work for memory is that of Chen et al. (2016, arXiv 1604.06174).
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import flax.linen as nn
import jax

RematPolicy: TypeAlias = Literal["none", "full", "dots", "dots_no_batch"]

POLICIES: Mapping[RematPolicy, Callable[..., bool]] = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_saveable,
    "dots_no_batch": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}
"""What is kept within a layer: nothing; the matrix products; those with weights, so that the tables
of attention weights are made again."""


def rematerialize(
    function: Callable[..., Any], policy: RematPolicy, *, in_scan: bool
) -> Callable[..., Any]:
    """Return ``function``, whose first argument is a module, to be computed again as named.

    Args:
        function: maps a module and arrays to arrays.
        policy: what is kept between its inputs and its outputs; ``"none"`` keeps everything.
        in_scan: whether it is the body of a scan, where XLA cannot merge the second computation
            with the first one and needs no barrier against that.
    """
    if policy == "none":
        return function
    return nn.remat(function, prevent_cse=not in_scan, policy=POLICIES[policy])
