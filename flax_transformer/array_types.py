"""The axis alphabet and the array types of every public signature.

=======  ==================================================================
letter   axis
=======  ==================================================================
``B``    batch
``T``    the stream being computed (target, query)
``S``    the stream attended to (source, key, cache)
``D``    model dimension
``N``    query heads
``K``    key/value heads
``H``    dimension of one head
``F``    feed-forward dimension
``V``    vocabulary
``W``    beam
``L``    layers
``P``    position rows
=======  ==================================================================

The letters extend those of :func:`jax.nn.dot_product_attention`. The same letters are used in
annotations, in einsum equations and, where a shape changes on the way, as suffixes of local names.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

from jax import Array
from jaxtyping import Bool, Float, Int, Key, UInt32

Parameters: TypeAlias = Mapping[str, Any]
"""A tree of parameters: nested mappings whose leaves are plain arrays."""

__all__ = ["Array", "Bool", "Float", "Int", "Key", "Parameters", "UInt32"]
