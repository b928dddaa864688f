"""Notice when a training goes wrong: updates that are left out, and a loss that rises."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from flax_transformer.errors import DivergenceError
from flax_transformer.training.training_config import TrainingConfig

_DECAY = 0.95
_WARMUP = 20
"""Losses that are averaged before an average counts."""

# Names in the metrics of a checkpoint.
_AVERAGE = "loss_average"
_NUM_LOSSES = "num_losses_averaged"
_LOWEST = "lowest_loss_average"
_LOWEST_STEP = "lowest_loss_average_step"


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
        start_step: steps already done.
        metrics: those of the checkpoint that the run goes on from, with :meth:`as_metrics` in them.
    """

    def __init__(
        self,
        config: TrainingConfig,
        advise: Callable[[int], str],
        *,
        start_step: int = 0,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        stored = metrics or {}
        self._config = config
        self._advise = advise
        self._last_update = start_step
        self._average = stored.get(_AVERAGE, 0.0)
        self._num_losses = int(stored.get(_NUM_LOSSES, 0))
        self._lowest = stored.get(_LOWEST, math.inf)
        self._lowest_step = int(stored.get(_LOWEST_STEP, 0))

    def as_metrics(self) -> dict[str, float]:
        """Return what a run needs to go on watching, to be stored with a checkpoint."""
        metrics = {_AVERAGE: self._average, _NUM_LOSSES: float(self._num_losses)}
        if self._lowest < math.inf:
            metrics |= {_LOWEST: self._lowest, _LOWEST_STEP: float(self._lowest_step)}
        return metrics

    def check(self, outcome: StepOutcome) -> None:
        """Take note of a step.

        Raises:
            DivergenceError: too many updates in a row were left out, or the loss has risen.
        """
        config = self._config
        if outcome.num_skipped_in_a_row >= config.max_skipped_steps:
            # The last update may have spoilt the parameters: their loss has not been finite.
            last_update = min(self._last_update, outcome.step - outcome.num_skipped_in_a_row)
            last_good = last_update - 1
            raise DivergenceError(
                f"the updates of {outcome.num_skipped_in_a_row} steps in a row were left out: the "
                f"loss of step {outcome.step} is {outcome.loss}, its gradient norm "
                f"{outcome.gradient_norm}; {self._advise(last_good)}"
            )
        if not outcome.is_finite:
            return
        self._last_update = outcome.step
        if config.max_loss_rise is None:
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
