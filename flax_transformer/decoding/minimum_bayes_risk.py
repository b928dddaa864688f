"""The choice of the output that is most like the others."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from flax_transformer.errors import InputError

Utility: TypeAlias = Callable[[str, str], float]
"""Return how good a hypothesis (the first) is if the reference (the second) is right."""


def minimum_bayes_risk(samples: Sequence[str], utility: Utility) -> int:
    """Return the index of the sample of the greatest expected utility.

    The utility of each is its mean over all samples as references (Eikema and Aziz, 2020, arXiv
    2005.10283), which stand for the distribution that they were drawn from. Of equal ones the first
    is chosen; the utility is asked for once for each pair of different samples.

    >>> def overlap(hypothesis, reference):
    ...     return len(set(hypothesis) & set(reference))
    >>> minimum_bayes_risk(["xyz", "abc", "abd", "bcd"], overlap)
    1

    Raises:
        InputError: there are no samples.
    """
    if not samples:
        raise InputError("samples must hold at least one output, got none.")
    counts: dict[str, int] = {}
    for sample in samples:
        counts[sample] = counts.get(sample, 0) + 1
    expected = {
        hypothesis: sum(
            count * utility(hypothesis, reference) for reference, count in counts.items()
        )
        for hypothesis in counts
    }
    return samples.index(max(expected, key=expected.__getitem__))
