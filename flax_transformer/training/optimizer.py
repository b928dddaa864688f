"""Optimizers and their learning-rate schedules, made of Optax's parts."""

import dataclasses
import math
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from flax_transformer.errors import InputError
from flax_transformer.tree_paths import join_path

OptimizerName: TypeAlias = Literal["adam", "adamw", "adafactor"]
ScheduleName: TypeAlias = Literal["inverse_sqrt", "cosine", "constant"]

_DECAYED = ("kernel", "embedding", "lora_a", "lora_b")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimizer; the defaults are those of "Attention Is All You Need" (section 5.3).

    Attributes:
        name: Adam, AdamW (decoupled weight decay) or Adafactor (arXiv 1804.04235), which takes
            no more than the learning rate and the clipping from here.
        learning_rate: the highest, reached at the end of the warm-up.
        schedule: after the warm-up, fall as 1/√step, by half a cosine to zero at the run's last
            step, or stay.
        warmup_steps: updates of linear warm-up.
        b1: decay of Adam's first moment.
        b2: decay of Adam's second moment.
        epsilon: added to Adam's denominator.
        weight_decay: of AdamW, for matrices, those of adapters included; biases and scales do not
            decay.
        clip_norm: largest global norm of the gradient; None for no clipping.
    """

    name: OptimizerName = "adam"
    learning_rate: float = 7e-4
    schedule: ScheduleName = "inverse_sqrt"
    warmup_steps: int = 4000
    b1: float = 0.9
    b2: float = 0.98
    epsilon: float = 1e-9
    weight_decay: float = 0.0
    clip_norm: float | None = 1.0

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0.0):
            raise InputError(
                f"optimizer.learning_rate must be positive and finite, got {self.learning_rate}."
            )
        if self.name not in ("adam", "adamw", "adafactor"):
            raise InputError(f"optimizer.name must be adam, adamw or adafactor, got {self.name!r}.")
        if self.schedule not in ("inverse_sqrt", "cosine", "constant"):
            raise InputError(
                "optimizer.schedule must be inverse_sqrt, cosine or constant, "
                f"got {self.schedule!r}."
            )
        if self.warmup_steps < 1:
            raise InputError(f"optimizer.warmup_steps must be at least 1, got {self.warmup_steps}.")
        for name in ("b1", "b2"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise InputError(f"optimizer.{name} must lie in [0, 1), got {getattr(self, name)}.")
        if not 0.0 < self.epsilon < math.inf:
            raise InputError(f"optimizer.epsilon must be positive and finite, got {self.epsilon}.")
        if not 0.0 <= self.weight_decay < math.inf:
            raise InputError(
                f"optimizer.weight_decay must be finite and not negative, got {self.weight_decay}."
            )
        if self.weight_decay > 0.0 and self.name != "adamw":
            raise InputError("optimizer.weight_decay needs optimizer.name adamw.")
        if self.clip_norm is not None and not self.clip_norm > 0.0:
            raise InputError(f"optimizer.clip_norm must be positive or None, got {self.clip_norm}.")


def peak_learning_rate(*, model_dim: int, warmup_steps: int) -> float:
    """Return the highest learning rate of the paper's schedule, ``(D * warmup)^-0.5``.

    Equation 3: ``D^-0.5 * min(step^-0.5, step * warmup^-1.5)``, which is highest at the end of the
    warm-up.

    >>> round(peak_learning_rate(model_dim=512, warmup_steps=4000), 7)
    0.0006988
    """
    return (model_dim * warmup_steps) ** -0.5


def make_schedule(config: OptimizerConfig, *, num_steps: int) -> optax.Schedule:
    """Return the learning rate as a function of the number of updates made so far.

    The first update, after none so far, has ``1 / warmup_steps`` of the highest rate.

    >>> schedule = make_schedule(OptimizerConfig(learning_rate=1.0, warmup_steps=4), num_steps=99)
    >>> [float(schedule(updates)) for updates in (0, 3, 15)]
    [0.25, 1.0, 0.5]
    """
    peak, warmup = config.learning_rate, config.warmup_steps

    def schedule(updates: ArrayLike) -> jax.Array | np.ndarray:
        # Of a number of the host the rate is computed there: a log line needs no program.
        xp = jnp if isinstance(updates, jax.Array) else np
        step = xp.asarray(updates, xp.float32) + xp.float32(1.0)
        if config.schedule == "inverse_sqrt":
            after = xp.sqrt(warmup / step)
        elif config.schedule == "cosine":
            progress = (step - warmup) / max(num_steps - warmup, 1)
            after = 0.5 * (1.0 + xp.cos(xp.pi * xp.clip(progress, 0.0, 1.0)))
        else:
            after = xp.ones_like(step)
        return peak * xp.where(step < warmup, step / warmup, after)

    return schedule


def make_optimizer(config: OptimizerConfig, *, num_steps: int) -> optax.GradientTransformation:
    """Make the optimizer: clipping by the global norm, then the update by the schedule."""
    schedule = make_schedule(config, num_steps=num_steps)
    if config.name == "adafactor":
        update = optax.adafactor(schedule, multiply_by_parameter_scale=False)
    elif config.name == "adamw":
        update = optax.adamw(
            schedule,
            b1=config.b1,
            b2=config.b2,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
            mask=_is_decayed,
        )
    else:
        update = optax.adam(schedule, b1=config.b1, b2=config.b2, eps=config.epsilon)
    if config.clip_norm is None:
        return update
    return optax.chain(clip_by_global_norm(config.clip_norm), update)


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """Scale updates down to a global norm of ``max_norm`` where theirs is larger.

    As Optax's function of this name, but by one product with a scalar: of its quotients XLA makes
    an array, which the passes over the moments then read, where a product is part of each pass.

    >>> clip = clip_by_global_norm(1.0)
    >>> clip.update(jnp.array([3.0, 4.0]), clip.init(None))[0]
    Array([0.6, 0.8], dtype=float32)
    """

    def clip(
        updates: optax.Updates, state: optax.EmptyState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.EmptyState]:
        del params
        factor = jnp.minimum(1.0, max_norm / optax.global_norm(updates))
        return jax.tree.map(lambda leaf: leaf * factor.astype(leaf.dtype), updates), state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), clip)


def _is_decayed(params: optax.Params) -> optax.Params:
    # By name: where layers are stacked, their biases and scales are matrices, too.
    return jax.tree_util.tree_map_with_path(
        lambda path, _: join_path(path).rpartition("/")[-1] in _DECAYED, params
    )
