"""Which parameters a training changes; the others are frozen."""

import re
from collections.abc import Collection, Iterable, Sequence

from flax_transformer.array_types import Parameters
from flax_transformer.errors import InputError
from flax_transformer.tree_paths import flatten_tree, unflatten_tree


def match_paths(paths: Collection[str], patterns: Sequence[str], *, name: str) -> frozenset[str]:
    """Return the paths in which one of the regular expressions is found.

    Args:
        paths: of parameters, names joined by ``/``.
        patterns: regular expressions; each must be found in some path.
        name: of the field that holds the patterns, for messages.

    Raises:
        InputError: a pattern is no regular expression, or is found in no path.

    >>> sorted(match_paths(["encoder/bias", "encoder/kernel"], ["bias"], name="training.frozen"))
    ['encoder/bias']
    """
    check_patterns(patterns, name=name)
    matched: set[str] = set()
    for pattern in patterns:
        found = [path for path in paths if re.search(pattern, path)]
        if not found:
            raise InputError(
                f"{name} must match parameters, got {pattern!r}, which is found in none of "
                f"{len(paths)} paths such as {min(paths)}."
            )
        matched |= set(found)
    return frozenset(matched)


def check_patterns(patterns: Iterable[str], *, name: str) -> None:
    """Raise InputError if one of ``patterns`` is no regular expression."""
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise InputError(
                f"{name} must hold regular expressions, got {pattern!r}: {error}."
            ) from error


def split_parameters(
    params: Parameters, trained: Collection[str] | None
) -> tuple[Parameters, Parameters]:
    """Split a tree into what is trained and what is frozen.

    Args:
        params: the whole tree.
        trained: paths of what is trained; None for all.

    >>> split_parameters({"norm": {"scale": 1, "bias": 2}}, {"norm/bias"})
    ({'norm': {'bias': 2}}, {'norm': {'scale': 1}})
    """
    if trained is None:
        return params, {}
    leaves = flatten_tree(params)
    return (
        unflatten_tree({path: leaf for path, leaf in leaves.items() if path in trained}),
        unflatten_tree({path: leaf for path, leaf in leaves.items() if path not in trained}),
    )


def join_parameters(params: Parameters, others: Parameters) -> Parameters:
    """Return one tree with the leaves of both; of a path that both have, that of ``others``.

    >>> join_parameters({"norm": {"bias": 2}}, {"norm": {"scale": 1}})
    {'norm': {'bias': 2, 'scale': 1}}
    """
    return unflatten_tree(flatten_tree(params) | flatten_tree(others)) if others else params
