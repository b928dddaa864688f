"""How the distributions of several models become that of a step."""

import dataclasses
import math
from collections.abc import Sequence
from typing import TypeAlias, get_args

from flax_transformer.decoding.hypotheses import StepFn
from flax_transformer.decoding.step_functions import (
    Average,
    make_contrastive_step,
    make_ensemble_step,
)
from flax_transformer.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ensemble:
    """Average several models, as :func:`.make_ensemble_step` does.

    Attributes:
        weights: of each, in relation to their sum; None for equal ones.
        average: ``"probabilities"`` or ``"log_probabilities"``.
    """

    weights: tuple[float, ...] | None = None
    average: Average = "probabilities"

    def __post_init__(self) -> None:
        """Refuse options that cannot work."""
        if self.weights is not None:
            object.__setattr__(self, "weights", tuple(self.weights))
            if not all(0.0 < weight < math.inf for weight in self.weights):
                raise InputError(f"weights must be positive and finite, got {list(self.weights)}.")
        if self.average not in get_args(Average):
            raise InputError(
                f"average must be one of {', '.join(get_args(Average))}, got {self.average!r}."
            )

    def check_count(self, num_models: int) -> None:
        """Raise InputError unless there is a weight for each model."""
        if self.weights is not None and len(self.weights) != num_models:
            raise InputError(
                f"weights must be as many as models, {num_models}, got {len(self.weights)}."
            )

    def make_step(self, step_fns: Sequence[StepFn]) -> StepFn:
        """Return the step function of the average."""
        return make_ensemble_step(step_fns, weights=self.weights, average=self.average)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contrast:
    """Follow the first of two models where the second does not, by :func:`.make_contrastive_step`.

    Attributes:
        strength: what the second model's log-probabilities are multiplied by; with 0 only
            ``plausibility`` is left.
        plausibility: tokens count that are at least this times as probable to the first model as
            its most probable one.
        amateur_temperature: divides the logits of the second model.
    """

    strength: float = 1.0
    plausibility: float = 0.1
    amateur_temperature: float = 1.0

    def __post_init__(self) -> None:
        """Refuse options that cannot work."""
        if not 0.0 <= self.strength < math.inf:
            raise InputError(f"strength must be finite and not negative, got {self.strength}.")
        if not 0.0 < self.plausibility <= 1.0:
            raise InputError(
                f"plausibility must lie above 0 and not above 1, got {self.plausibility}."
            )
        if not 0.0 < self.amateur_temperature < math.inf:
            raise InputError(
                f"amateur_temperature must be positive and finite, got {self.amateur_temperature}."
            )

    def check_count(self, num_models: int) -> None:
        """Raise InputError unless there are two models."""
        if num_models != 2:
            raise InputError(f"there must be two models to contrast, got {num_models}.")

    def make_step(self, step_fns: Sequence[StepFn]) -> StepFn:
        """Return the step function of the contrast."""
        expert, amateur = step_fns
        return make_contrastive_step(
            expert,
            amateur,
            strength=self.strength,
            plausibility=self.plausibility,
            amateur_temperature=self.amateur_temperature,
        )


Combination: TypeAlias = Ensemble | Contrast
"""How several models decode together."""

AVERAGE = Ensemble()
"""The mean of the probabilities, all models alike."""
