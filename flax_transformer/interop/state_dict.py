"""Parameters of ours as the tensors of another library, and back.

A table of rules says which tensor each parameter is, and how it lies there. Everything follows
from the table and the shapes of the parameters: the tensors' names and shapes, reading and
writing.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np

Layout: TypeAlias = Literal["same", "vector", "row", "linear", "conv"]
"""How a parameter lies in a tensor.

``same``: as it is. ``vector``: in one dimension. ``row``: in one row of a matrix. ``linear``: a
matrix ``[out, in]``, as PyTorch's linear maps. ``conv``: a matrix ``[in, out]``, as GPT-2's.
"""


@dataclasses.dataclass(frozen=True)
class Rule:
    """Where one parameter lies.

    Attributes:
        path: of the parameter, names joined by ``/``.
        tensor: name of the tensor.
        layout: see :data:`Layout`.
        in_axes: dimensions of the parameter, the first ones, that a map sums over.
        part: which of how many equal parts of the tensor's last dimension it is.
    """

    path: str
    tensor: str
    layout: Layout = "same"
    in_axes: int = 1
    part: tuple[int, int] = (0, 1)

    def tensor_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the whole tensor, from that of the parameter.

        >>> Rule("query/kernel", "q.weight", "linear").tensor_shape((6, 2, 5))
        (10, 6)
        """
        *rest, last = self._part_shape(shape)
        return (*rest, last * self.part[1])

    def take(self, tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Return the parameter, of ``shape``, out of the tensor.

        >>> Rule("b", "qkv.bias", "vector", part=(1, 3)).take(np.arange(6), (2,))
        array([2, 3])
        """
        index, count = self.part
        size = tensor.shape[-1] // count
        part = tensor[..., index * size : (index + 1) * size]
        return (part.T if self.layout == "linear" else part).reshape(shape)

    def lay_out(self, parameter: np.ndarray) -> np.ndarray:
        """Return the parameter as its part of the tensor; the inverse of :meth:`take`.

        >>> Rule("kernel", "weight", "linear").lay_out(np.array([[1, 2, 3], [4, 5, 6]]))
        array([[1, 4],
               [2, 5],
               [3, 6]])
        """
        shape = self._part_shape(parameter.shape)
        if self.layout == "linear":
            return parameter.reshape(shape[::-1]).T
        return parameter.reshape(shape)

    def _part_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        first, rest = math.prod(shape[: self.in_axes]), math.prod(shape[self.in_axes :])
        match self.layout:
            case "same":
                return shape
            case "vector":
                return (first * rest,)
            case "row":
                return (1, first * rest)
            case "linear":
                return (rest, first)
            case "conv":
                return (first, rest)


def linear(path: str, tensor: str, *, bias: bool, in_axes: int = 1) -> Iterator[Rule]:
    """Yield the rules of a linear map: ``kernel`` and ``bias``, ``.weight`` and ``.bias``."""
    yield Rule(f"{path}/kernel", f"{tensor}.weight", "linear", in_axes)
    if bias:
        yield Rule(f"{path}/bias", f"{tensor}.bias", "vector")


def norm(path: str, tensor: str, *, bias: bool = True) -> Iterator[Rule]:
    """Yield the rules of a normalisation: ``scale`` and ``bias``, ``.weight`` and ``.bias``."""
    yield Rule(f"{path}/scale", f"{tensor}.weight")
    if bias:
        yield Rule(f"{path}/bias", f"{tensor}.bias")


def attention(path: str, tensors: Sequence[str], *, bias: bool) -> Iterator[Rule]:
    """Yield the rules of an attention; ``tensors`` names query, key, value and output."""
    for name, tensor in zip(("query", "key", "value", "output"), tensors, strict=True):
        yield from linear(f"{path}/{name}", tensor, bias=bias, in_axes=2 if name == "output" else 1)


def tensor_shapes(
    rules: Sequence[Rule], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """Map every tensor to its shape.

    Raises:
        ValueError: the rules do not name each parameter of ``shapes`` once, or share a tensor in
            parts that do not make it whole; the table is wrong.
    """
    if sorted(rule.path for rule in rules) != sorted(shapes):
        wrong = sorted(set(shapes) ^ {rule.path for rule in rules})
        raise ValueError(f"rules must name each parameter once; not so with {wrong}.")
    parts: dict[str, list[int]] = {}
    for rule in rules:
        parts.setdefault(rule.tensor, []).append(rule.part[0])
    for rule in rules:
        if sorted(parts[rule.tensor]) != list(range(rule.part[1])):
            raise ValueError(f"rules must make {rule.tensor} whole.")
    return {rule.tensor: rule.tensor_shape(shapes[rule.path]) for rule in rules}


def to_state_dict(
    rules: Sequence[Rule], parameters: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the tensors of parameters named by their paths.

    >>> rules = [*linear("head", "fc", bias=True)]
    >>> tensors = to_state_dict(rules, {"head/kernel": np.ones((2, 3)), "head/bias": np.ones(3)})
    >>> {name: tensor.shape for name, tensor in tensors.items()}
    {'fc.weight': (3, 2), 'fc.bias': (3,)}
    """
    parts: dict[str, list[np.ndarray]] = {}
    for rule in sorted(rules, key=lambda rule: rule.part):
        parts.setdefault(rule.tensor, []).append(rule.lay_out(np.asarray(parameters[rule.path])))
    return {rule.tensor: _join(parts[rule.tensor]) for rule in rules}


def _join(parts: Sequence[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
