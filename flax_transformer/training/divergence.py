"""Notice when a training goes wrong: updates that are left out, and a loss that rises."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from flax_transformer.errors import DivergenceError
from flax_transformer.training.training_config import TrainingConfig

_DECAY = 0.95
_WARMUP = 20
"""Losses that are averaged before an average counts."""


class StepOutcome(NamedTuple):
    """What came of a step.

    Attributes:
        step: its number.
        loss: mean over the batch's target tokens.
        gradient_norm: global norm before clipping.
        num_skipped_in_a_row: updates left out since the last one that was made.
        loss_scale: what the loss was multiplied by.
        pair_ids: indices in the corpus of the pairs of this process's rows.
    """

    step: int
    loss: float
    gradient_norm: float
    num_skipped_in_a_row: int
    loss_scale: float
    pair_ids: Sequence[int]

    @property
    def is_finite(self) -> bool:
        """Whether the update was made. A finite loss may have a gradient that is not."""
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm)


class DivergenceWatch:
    """Ends a run that does no good any more, as Marian's ``--throw-on-divergence`` does.

    Args:
        config: says when.
        advise: is told the last step whose parameters are known to be good, and returns what to do
            now, for the message.
    """

    def __init__(self, config: TrainingConfig, advise: Callable[[int], str]) -> None:
        self._config = config
        self._advise = advise
        self._average = 0.0
        self._num_losses = 0
        self._lowest = math.inf
        self._lowest_step = 0

    def check(self, outcome: StepOutcome) -> None:
        """Take note of a step.

        Raises:
            DivergenceError: too many updates in a row were left out, or the loss has risen.
        """
        config = self._config
        if outcome.num_skipped_in_a_row >= config.max_skipped_steps:
            # The last update may have spoilt the parameters: their loss has not been finite.
            last_good = outcome.step - outcome.num_skipped_in_a_row - 1
            raise DivergenceError(
                f"the updates of {outcome.num_skipped_in_a_row} steps in a row were left out: the "
                f"loss of step {outcome.step} is {outcome.loss}, its gradient norm "
                f"{outcome.gradient_norm}; {self._advise(last_good)}"
            )
        if not outcome.is_finite or config.max_loss_rise is None:
            return
        self._num_losses += 1
        decay = min(_DECAY, 1.0 - 1.0 / self._num_losses)  # a plain mean at first
        self._average = decay * self._average + (1.0 - decay) * outcome.loss
        if self._num_losses < _WARMUP:
            return
        if self._average < self._lowest:
            self._lowest, self._lowest_step = self._average, outcome.step
        if self._average > self._lowest + config.max_loss_rise:
            raise DivergenceError(
                f"the loss has risen from {self._lowest:.3f} to {self._average:.3f} at step "
                f"{outcome.step}, by more than training.max_loss_rise; "
                f"{self._advise(self._lowest_step)}"
            )
