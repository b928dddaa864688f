"""Low-rank adapters (LoRA; Hu et al., 2021, arXiv 2106.09685).

An adapted kernel W is frozen, and ``W + (alpha / rank) A B`` takes its place, with A ``[in, rank]``
and B ``[rank, out]``, which are trained. They lie beside the kernel, as ``lora_a`` and ``lora_b``.
The modules know nothing of it: the sum is made before they are applied.
"""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp

from flax_transformer.array_types import Array, Float, Key, Parameters
from flax_transformer.errors import InputError
from flax_transformer.parallel.parameter_sharding import STACKED_PREFIX
from flax_transformer.training.trained_part import check_patterns, match_paths
from flax_transformer.tree_paths import flatten_tree, unflatten_tree

_KERNEL = "kernel"
_FACTORS = ("lora_a", "lora_b")
_FACTOR = re.compile(r"(^|/)lora_[ab]$")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Which kernels are adapted, and how; without a rank, none is.

    Attributes:
        rank: of the product A B; 0 for no adapters, and everything is trained.
        alpha: scale of the product, times ``1 / rank``.
        kernels: regular expressions, looked for in the paths of kernels. The paper's choice is
            the default: queries and values.
        trained: regular expressions, looked for in the paths of all parameters: what is trained
            besides, as a whole, such as a new head. All else is frozen.
    """

    rank: int = 0
    alpha: float = 16.0
    kernels: tuple[str, ...] = (r"_attention/(query|value)/kernel",)
    trained: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        if self.rank < 0:
            raise InputError(f"training.lora.rank must not be negative, got {self.rank}.")
        if not 0.0 < self.alpha < math.inf:
            raise InputError(f"training.lora.alpha must be positive and finite, got {self.alpha}.")
        if not self.kernels:
            raise InputError("training.lora.kernels must hold a pattern, got none.")
        check_patterns(self.kernels, name="training.lora.kernels")
        check_patterns(self.trained, name="training.lora.trained")
        if not self.rank:
            self._refuse_others()

    def _refuse_others(self) -> None:
        """Refuse what would be of no effect without a rank, where everything is trained."""
        for field in dataclasses.fields(self):
            if getattr(self, field.name) != field.default:
                raise InputError(
                    f"training.lora.rank must be at least 1 where training.lora.{field.name} is "
                    "set, got 0."
                )


def add_adapters(params: Parameters, config: LoraConfig, key: Key[Array, ""]) -> Parameters:
    """Put A and B beside every kernel that is adapted: A normal with variance 1 / in, B zero.

    So the model is at first what it is without them. Both are float32.

    Raises:
        InputError: a pattern matches no kernel.
    """
    if not config.rank:
        return params
    leaves = flatten_tree(params)
    kernels = [path for path in leaves if path.rpartition("/")[-1] == _KERNEL]
    adapted = sorted(match_paths(kernels, config.kernels, name="training.lora.kernels"))
    for path, path_key in zip(adapted, jax.random.split(key, len(adapted)), strict=True):
        *stack, inputs, outputs = _matrix_shape(path, leaves[path].shape)
        name_a, name_b = _factor_paths(path)
        leaves[name_a] = jax.random.normal(path_key, (*stack, inputs, config.rank)) * inputs**-0.5
        leaves[name_b] = jnp.zeros((*stack, config.rank, outputs))
    return unflatten_tree(leaves)


def merge_adapters(params: Parameters, config: LoraConfig) -> Parameters:
    """Return the parameters of the model: the sums in place of adapted kernels, no A and no B.

    Parameters without adapters are returned as they are.
    """
    if not config.rank:
        return params
    leaves = flatten_tree(params)
    merged = {path: leaf for path, leaf in leaves.items() if not _FACTOR.search(path)}
    for path, kernel in merged.items():
        name_a, name_b = _factor_paths(path)
        if name_a in leaves:
            product = _multiply(leaves[name_a], leaves[name_b]) * (config.alpha / config.rank)
            total = kernel.astype(jnp.float32) + product.reshape(kernel.shape)
            merged[path] = total.astype(kernel.dtype)
    return unflatten_tree(merged)


def take_adapters(params: Parameters) -> Parameters:
    """Return A and B of every adapted kernel alone.

    >>> take_adapters({"query": {"kernel": 0, "lora_a": 1, "lora_b": 2}, "scale": 3})
    {'query': {'lora_a': 1, 'lora_b': 2}}
    """
    leaves = flatten_tree(params)
    return unflatten_tree({path: leaf for path, leaf in leaves.items() if _FACTOR.search(path)})


def _multiply(
    a: Float[Array, "*L in rank"], b: Float[Array, "*L rank out"]
) -> Float[Array, "*L in out"]:
    return jnp.einsum("...ir,...ro->...io", a, b)


def _factor_paths(kernel_path: str) -> tuple[str, str]:
    parent = kernel_path.removesuffix(_KERNEL)
    return parent + _FACTORS[0], parent + _FACTORS[1]


def _matrix_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a kernel as a matrix ``(in, out)``, or as a stack of them.

    Kernels with heads are ``[D, N, H]``, or, of the attention's output, ``[N, H, D]``.

    >>> _matrix_shape("self_attention/query/kernel", (8, 2, 3))
    (8, 6)
    >>> _matrix_shape("layers/self_attention/output/kernel", (5, 2, 3, 8))
    (5, 6, 8)
    """
    num_stacked = 1 if re.search(STACKED_PREFIX, path) else 0
    stack, axes = shape[:num_stacked], shape[num_stacked:]
    num_inputs = len(axes) - 1 if "_attention/output/" in path else 1
    return (*stack, math.prod(axes[:num_inputs]), math.prod(axes[num_inputs:]))
