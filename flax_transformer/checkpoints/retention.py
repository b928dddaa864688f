"""Decide which checkpoints to keep: the last ones and the best ones."""

import math
from collections.abc import Mapping


def steps_to_keep(
    scores: Mapping[int, float | None], *, keep_last: int, keep_best: int
) -> set[int]:
    """Choose the steps to keep.

    A step without a score (None or not finite) neither counts as one of the best nor takes the
    place of one: it is kept for as long as it is among the last.

    Args:
        scores: the score of every step there is; higher is better.
        keep_last: number of latest steps to keep, at least 1.
        keep_best: number of best steps to keep.

    >>> sorted(steps_to_keep({1: 30.0, 2: 20.0, 3: None, 4: 10.0}, keep_last=2, keep_best=1))
    [1, 3, 4]
    """
    return set(sorted(scores)[-keep_last:]) | set(rank_steps(scores)[:keep_best])


def rank_steps(scores: Mapping[int, float | None]) -> list[int]:
    """List the steps that have a finite score, best first; of equal ones the earlier first.

    >>> rank_steps({1: 20.0, 2: 30.0, 3: float("nan"), 4: 30.0, 5: None})
    [2, 4, 1]
    """
    finite = {step: s for step, s in scores.items() if s is not None and math.isfinite(s)}
    return sorted(finite, key=lambda step: (-finite[step], step))
