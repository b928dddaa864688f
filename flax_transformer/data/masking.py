"""Hide tokens from a masked language model, as BERT does (Devlin et al., 2018, 1810.04805)."""

from typing import NamedTuple

import numpy as np

from flax_transformer.array_types import Bool, Int

SHARE_MASKED = 0.8
"""Of the tokens to predict: the share that the mask token stands for."""

SHARE_REPLACED = 0.1
"""Of the tokens to predict: the share that a random token stands for; the rest can be seen."""


class MaskedTokens(NamedTuple):
    """What is read in place of some tokens, and which of them are to be predicted."""

    tokens: Int[np.ndarray, "*B T"]
    is_predicted: Bool[np.ndarray, "*B T"]


def mask_tokens(
    tokens: Int[np.ndarray, "*B T"],
    can_be_hidden: Bool[np.ndarray, "*B T"],
    rng: np.random.Generator,
    *,
    rate: float,
    mask_id: int,
    vocab_size: int,
) -> MaskedTokens:
    """Choose tokens to predict, each with probability ``rate``, and hide most of them.

    Args:
        tokens: ids.
        can_be_hidden: which tokens may be chosen: those that stand for text.
        rng: draws all choices, equally often whatever the tokens are.
        rate: from 0 to 1.
        mask_id: the mask token.
        vocab_size: random tokens are from 0 to ``vocab_size`` - 1, as in BERT.
    """
    chance, fate = rng.random((2, *tokens.shape))
    others = rng.integers(vocab_size, size=tokens.shape, dtype=np.int32)
    is_predicted = can_be_hidden & (chance < rate)
    is_masked = is_predicted & (fate < SHARE_MASKED)
    is_replaced = is_predicted & (fate >= 1.0 - SHARE_REPLACED)
    hidden = np.where(is_masked, np.int32(mask_id), np.where(is_replaced, others, tokens))
    return MaskedTokens(hidden, is_predicted)
