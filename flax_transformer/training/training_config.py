"""How long to train, and what to do how often."""

import dataclasses
import typing
from typing import Literal, TypeAlias

from flax_transformer.errors import InputError
from flax_transformer.training.guard import LossScaleConfig
from flax_transformer.training.lora import LoraConfig
from flax_transformer.training.objective import LogitsDtype
from flax_transformer.training.trained_part import check_patterns

Task: TypeAlias = Literal[
    "translation", "language_modelling", "masked_language_modelling", "sequence_classification"
]
"""What a model learns: from sentence pairs, from running text, or from texts with a class each."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long to train, and what to do how often.

    Attributes:
        task: what the model learns.
        num_steps: updates of the parameters, those counted that are left out.
        checkpoint_every: steps between checkpoints; each evaluation makes one, too. None is made
            while updates are left out, but at the last step: it is put off.
        eval_every: steps between evaluations on the dev set.
        log_every: steps between lines of the log.
        seed: of parameters, dropout, and the order of the data.
        label_smoothing: ε of the smoothed labels.
        accumulation_steps: parts that a batch is computed in, to save memory; the result is the
            same, but for the masks of dropout.
        vocab_chunks: parts of the vocabulary that the loss is computed in, to save memory; the
            result is the same.
        logits_dtype: of the logits; the sums over them are float32.
        loss_scale: scaling of the loss, for ``model.compute_dtype`` float16.
        frozen: regular expressions, looked for in the paths of parameters, such as ``encoder/``:
            these stay what they are at the start, and the optimizer keeps nothing for them.
        lora: low-rank adapters, which are trained in place of the kernels.
        adopt_architecture: where a run starts from another model, let the model be as that one,
            but for its head, its dropout, its dtypes, and how its layers are computed. Otherwise
            it must fit the config's.
        max_skipped_steps: stop after this many updates in a row that were left out because the
            loss or the gradient was not finite.
        max_loss_rise: stop when the loss, averaged over some 20 steps, is this many nats a token
            above the lowest such average so far; None for never.
        log_examples: write the pairs of every batch to ``examples.jsonl``.
        keep_last: checkpoints to keep.
        keep_best: checkpoints to keep besides, the best by dev score.
        patience: stop after this many evaluations without a better score; None for never.
        average_last: checkpoints to average at the end, of the last ones that are kept; the
            average is used if it scores better on the dev set than the best checkpoint does. 1 for
            no average.
    """

    task: Task = "translation"
    num_steps: int = 100_000
    checkpoint_every: int = 1000
    eval_every: int = 1000
    log_every: int = 100
    seed: int = 0
    label_smoothing: float = 0.1
    accumulation_steps: int = 1
    vocab_chunks: int = 1
    logits_dtype: LogitsDtype = "float32"
    loss_scale: LossScaleConfig = LossScaleConfig()
    frozen: tuple[str, ...] = ()
    lora: LoraConfig = LoraConfig()
    adopt_architecture: bool = False
    max_skipped_steps: int = 10
    max_loss_rise: float | None = 3.0
    log_examples: bool = False
    keep_last: int = 5
    keep_best: int = 1
    patience: int | None = None
    average_last: int = 5

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        for name in (
            "num_steps",
            "checkpoint_every",
            "eval_every",
            "log_every",
            "accumulation_steps",
            "vocab_chunks",
            "max_skipped_steps",
            "keep_last",
            "keep_best",
            "average_last",
        ):
            if getattr(self, name) < 1:
                raise InputError(f"training.{name} must be at least 1, got {getattr(self, name)}.")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"training.seed must be from 0 to 2^32 - 1, got {self.seed}.")
        if not 0.0 <= self.label_smoothing < 1.0:
            raise InputError(
                f"training.label_smoothing must lie in [0, 1), got {self.label_smoothing}."
            )
        if self.task not in typing.get_args(Task):
            raise InputError(
                f"training.task must be one of {', '.join(typing.get_args(Task))}, "
                f"got {self.task!r}."
            )
        if self.logits_dtype not in typing.get_args(LogitsDtype):
            raise InputError(
                f"training.logits_dtype must be one of {', '.join(typing.get_args(LogitsDtype))}, "
                f"got {self.logits_dtype!r}."
            )
        check_patterns(self.frozen, name="training.frozen")
        if self.frozen and self.lora.rank:
            raise InputError(
                "training.frozen must be empty with training.lora.rank, where all is frozen but "
                f"the adapters and training.lora.trained, got {list(self.frozen)}."
            )
        if self.max_loss_rise is not None and not self.max_loss_rise > 0.0:
            raise InputError(
                f"training.max_loss_rise must be positive or None, got {self.max_loss_rise}."
            )
        if self.average_last > self.keep_last:
            raise InputError(
                f"training.average_last must be at most training.keep_last = {self.keep_last}, "
                f"got {self.average_last}."
            )
        if self.patience is not None and self.patience < 1:
            raise InputError(f"training.patience must be at least 1 or None, got {self.patience}.")
