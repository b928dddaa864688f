"""Keep a training from being spoilt by a gradient that is not finite.

An update with a NaN or an infinity would stay in the parameters and in the optimizer's moments for
ever. It is left out, and counted. In float16 infinities are a matter of course: gradients are small
there, and are lifted into its range by scaling the loss; the scale is halved whenever it proves too
large and doubled when it has held for long (Micikevicius et al., 2018, arXiv 1710.03740, section
3.2).
"""

import dataclasses
import math

import flax.struct
import jax.numpy as jnp

from flax_transformer.array_types import Array, Bool, Float, Int
from flax_transformer.errors import InputError

_LARGEST_SCALE = 2.0**24


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossScaleConfig:
    """How the loss is scaled.

    Attributes:
        initial: scale at the start, a power of two up to 2²⁴; None for no scaling.
        growth_interval: updates in a row after which the scale doubles.
    """

    initial: float | None = None
    growth_interval: int = 2000

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        if self.initial is not None and not (
            1.0 <= self.initial <= _LARGEST_SCALE and math.frexp(self.initial)[0] == 0.5
        ):
            raise InputError(
                "loss_scale.initial must be None or a power of two from 1 to "
                f"{_LARGEST_SCALE:.0f}, got {self.initial}."
            )
        if self.growth_interval < 1:
            raise InputError(
                f"loss_scale.growth_interval must be at least 1, got {self.growth_interval}."
            )


class Guard(flax.struct.PyTreeNode):
    """What is remembered of the updates that were left out.

    Attributes:
        num_skipped: updates left out so far.
        num_skipped_in_a_row: updates left out since the last one that was made, those not counted
            that a smaller loss scale may mend.
        loss_scale: what the loss is multiplied by before gradients are taken; 1 for no scaling.
        num_updates_at_scale: updates made in a row at this scale, where the loss is scaled.
    """

    num_skipped: Int[Array, ""]
    num_skipped_in_a_row: Int[Array, ""]
    loss_scale: Float[Array, ""]
    num_updates_at_scale: Int[Array, ""]


def init_guard(config: LossScaleConfig) -> Guard:
    """Return the guard of a training that has not begun."""
    return Guard(  # an array each: a step that takes the memory of one must not take another's
        num_skipped=jnp.zeros((), jnp.int32),
        num_skipped_in_a_row=jnp.zeros((), jnp.int32),
        loss_scale=jnp.float32(config.initial or 1.0),
        num_updates_at_scale=jnp.zeros((), jnp.int32),
    )


def advance_guard(guard: Guard, is_finite: Bool[Array, ""], config: LossScaleConfig) -> Guard:
    """Note whether an update was finite, and adapt the loss scale.

    >>> overflown = advance_guard(
    ...     init_guard(LossScaleConfig(initial=8.0)), jnp.array(False), LossScaleConfig(initial=8.0)
    ... )
    >>> float(overflown.loss_scale), int(overflown.num_skipped)
    (4.0, 1)
    """
    scale, held = guard.loss_scale, guard.num_updates_at_scale + 1
    if config.initial is not None:
        grows = held >= config.growth_interval
        grown = jnp.where(grows & (scale < _LARGEST_SCALE), 2.0 * scale, scale)
        scale = jnp.where(is_finite, grown, jnp.maximum(0.5 * scale, 1.0))
        held = jnp.where(grows | ~is_finite, 0, held)
    can_shrink = guard.loss_scale > 1.0
    in_a_row = jnp.where(can_shrink, guard.num_skipped_in_a_row, guard.num_skipped_in_a_row + 1)
    return Guard(
        num_skipped=guard.num_skipped + ~is_finite,
        num_skipped_in_a_row=jnp.where(is_finite, 0, in_a_row),
        loss_scale=scale,
        num_updates_at_scale=held,
    )
