"""How a run's translations are made and chosen."""

import dataclasses

from flax_transformer.decoding.beam_search import BeamSearch
from flax_transformer.decoding.greedy import Greedy
from flax_transformer.decoding.strategies import Strategy
from flax_transformer.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How the dev set is translated during training and the test set at its end.

    Attributes:
        dev_beam_size: during training; 1 is greedy and the fastest.
        test_beam_size: for the choice of the final parameters on dev, and for the test set.
        length_penalty: α of ``((5 + length) / 6)^α``.
        max_length: generated tokens at most.
        batch_tokens: source positions of a batch at most.
        num_examples: test sentences to print at the end.
    """

    dev_beam_size: int = 1
    test_beam_size: int = 5
    length_penalty: float = 0.6
    max_length: int = 256
    batch_tokens: int = 4096
    num_examples: int = 3

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        if self.batch_tokens < 1:
            raise InputError(
                f"evaluation.batch_tokens must be at least 1, got {self.batch_tokens}."
            )
        if self.num_examples < 0:
            raise InputError(
                f"evaluation.num_examples must not be negative, got {self.num_examples}."
            )
        self.strategy(self.dev_beam_size)
        self.strategy(self.test_beam_size)

    def strategy(self, beam_size: int) -> Strategy:
        """Return the search for a beam of ``beam_size``."""
        if beam_size == 1:
            return Greedy(max_length=self.max_length)
        return BeamSearch(
            beam_size=beam_size, length_penalty=self.length_penalty, max_length=self.max_length
        )
