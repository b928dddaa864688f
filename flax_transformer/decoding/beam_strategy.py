"""The options of beam search."""

import dataclasses
import math
from typing import Literal, TypeAlias, get_args

from flax_transformer.decoding.length_limits import LengthLimits
from flax_transformer.decoding.length_penalty import LengthNormalization
from flax_transformer.decoding.logits_processors import LogitsProcessor, make_tuple
from flax_transformer.errors import InputError

EarlyStopping: TypeAlias = Literal["first", "bound", "never"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BeamSearch(LengthLimits):
    """Keep the ``beam_size`` best hypotheses at every step.

    Hypotheses are ranked by ``log P / divisor(length)`` and, where asked for, the coverage of the
    source. A length counts the end token. :class:`LengthLimits` has the other attributes.

    Attributes:
        beam_size: hypotheses kept, W.
        num_best: hypotheses returned for each input.
        length_penalty: the exponent α; 0 ranks by probability, more favours longer outputs.
        length_normalization: ``"power"`` for length^α, ``"gnmt"`` for ((5 + length) / 6)^α (Wu et
            al., 2016, arXiv 1609.08144, equation 14), ``"none"`` to rank by probability.
        early_stopping: ``"first"`` stops an input at ``beam_size`` finished hypotheses, ``"bound"``
            when no unfinished one can still become one of the ``num_best``, ``"never"`` at
            ``max_length``. The last two return the same.
        coverage_penalty: the strength β of the penalty of what is left untranslated, which needs
            the attention to the source (the same equation); 0 for none.
        num_groups: groups of ``beam_size / num_groups`` hypotheses, each a beam of its own, that
            are told to differ (Vijayakumar et al., 2016, arXiv 1610.02424).
        diversity_strength: what each use of a token by a group takes from its rank in the groups
            after it, at the same step.
        processors: applied to the logits of every step, in this order.
    """

    beam_size: int = 4
    num_best: int = 1
    length_penalty: float = 0.6
    length_normalization: LengthNormalization = "gnmt"
    early_stopping: EarlyStopping = "first"
    coverage_penalty: float = 0.0
    num_groups: int = 1
    diversity_strength: float = 0.5
    processors: tuple[LogitsProcessor, ...] = ()

    def __post_init__(self) -> None:
        """Refuse options that cannot work."""
        super().__post_init__()
        make_tuple(self, "processors")
        if self.beam_size < 1:
            raise InputError(f"beam_size must be at least 1, got {self.beam_size}.")
        if not 1 <= self.num_best <= self.beam_size:
            raise InputError(
                f"num_best must lie between 1 and beam_size = {self.beam_size}, "
                f"got {self.num_best}."
            )
        if not math.isfinite(self.length_penalty):
            raise InputError(f"length_penalty must be finite, got {self.length_penalty}.")
        for name, choices in (
            ("length_normalization", get_args(LengthNormalization)),
            ("early_stopping", get_args(EarlyStopping)),
        ):
            if getattr(self, name) not in choices:
                raise InputError(
                    f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}."
                )
        for name in ("coverage_penalty", "diversity_strength"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise InputError(
                    f"{name} must be finite and not negative, got {getattr(self, name)}."
                )
        if self.num_groups < 1 or self.beam_size % self.num_groups:
            raise InputError(
                f"num_groups must divide beam_size = {self.beam_size}, got {self.num_groups}."
            )

    @property
    def group_size(self) -> int:
        """Hypotheses of a group."""
        return self.beam_size // self.num_groups
