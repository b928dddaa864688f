"""Beam search gives the n-best lists and the scores of the transformers library.

Each side computes the same half-trained models of Marian and searches by itself. Outputs must be
the same token by token, all ``beam_size`` of each source, in the same order.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from parity.half_trained_marian import EOS, PAD, make_half_trained, make_sources
from parity.peers import Peer, torch

from flax_transformer.decoding.beam_strategy import BeamSearch, EarlyStopping
from flax_transformer.decoding.generate import generate
from flax_transformer.decoding.greedy import Greedy
from flax_transformer.decoding.hypotheses import Hypotheses
from flax_transformer.decoding.repetition import NoRepeatNgram
from flax_transformer.decoding.strategies import Strategy
from flax_transformer.decoding.token_constraints import BadWords, SuppressedTokens

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

BEAM_SIZES = (1, 2, 4, 8)
ALPHAS = (0.0, 0.6, 1.0, 2.0)
RULES: tuple[EarlyStopping, ...] = ("first", "bound", "never")
MAX_LENGTH = 13
SOURCES = make_sources(seed=5, num_rows=7)


class NBest(NamedTuple):
    """What a search finds for each source, best first, and the scores as an array [B, W]."""

    outputs: list[list[tuple[int, ...]]]
    scores: np.ndarray


@pytest.fixture(scope="module", autouse=True)
def compile_quickly() -> Iterator[None]:
    """Compile without optimisation, and keep all that many strategies have in common."""
    without_optimization = jax.config.read("jax_disable_most_optimizations")
    least_seconds = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    yield
    jax.config.update("jax_disable_most_optimizations", without_optimization)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", least_seconds)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Peer]:
    """One model that has learnt little, one that has learnt more; of one shape."""
    return [
        make_half_trained(tmp_path_factory.mktemp("marian"), seed=seed, num_steps=num_steps)
        for seed, num_steps in ((6, 100), (9, 300))
    ]


def search_theirs(
    peer: Peer, beam_size: int, alpha: float, early_stopping: bool | str, **options: Any
) -> NBest:
    found = _generate_theirs(
        peer,
        num_beams=beam_size,
        num_return_sequences=beam_size,
        length_penalty=alpha,
        early_stopping=early_stopping,
        return_dict_in_generate=True,
        output_scores=True,
        # With one beam it would search greedily, without a stop rule and without scores.
        custom_generate=type(peer.model)._beam_search if beam_size == 1 else None,
        **options,
    )
    outputs = _cut(found.sequences)
    rows = [outputs[start : start + beam_size] for start in range(0, len(outputs), beam_size)]
    return NBest(rows, found.sequences_scores.numpy().reshape(-1, beam_size))


def _generate_theirs(peer: Peer, **options: Any) -> Any:
    return peer.model.generate(
        torch.tensor(SOURCES.tokens),
        attention_mask=torch.tensor(SOURCES.mask.astype(np.int64)),
        do_sample=False,
        **{"max_new_tokens": MAX_LENGTH, **options},
    )


def _cut(outputs: torch.Tensor) -> list[tuple[int, ...]]:
    """Return the tokens of each output after the start token, up to its end token."""
    rows = outputs[:, 1:].tolist()
    return [tuple(row[: row.index(EOS) + 1] if EOS in row else row) for row in rows]


def search_ours(
    peer: Peer,
    beam_size: int,
    alpha: float,
    early_stopping: EarlyStopping,
    constraints: Mapping[str, int | None] | None = None,
    **options: Any,
) -> NBest:
    strategy = BeamSearch(
        beam_size=beam_size,
        num_best=beam_size,
        length_penalty=alpha,
        length_normalization="power",
        early_stopping=early_stopping,
        **{"max_length": MAX_LENGTH, **options},
    )
    hypotheses = _generate_ours(peer, strategy, constraints or {})
    return NBest(_outputs_of(hypotheses), np.asarray(hypotheses.scores))


def _generate_ours(
    peer: Peer, strategy: Strategy, constraints: Mapping[str, int | None]
) -> Hypotheses:
    """Search under the constraints that the model came with, but for those given here."""
    model, params, _, _, generation, _ = peer.pretrained
    return generate(
        model,
        params,
        SOURCES.tokens,
        mask=SOURCES.mask,
        strategy=dataclasses.replace(generation, **constraints).constrain(strategy),
        bos_id=generation.start_id,
        eos_id=generation.eos_ids[0],
        pad_id=generation.pad_id,
    )


def _outputs_of(hypotheses: Hypotheses) -> list[list[tuple[int, ...]]]:
    rows = zip(hypotheses.tokens.tolist(), hypotheses.lengths.tolist(), strict=True)
    return [
        [tuple(ids[:length]) for ids, length in zip(tokens, lengths, strict=True)]
        for tokens, lengths in rows
    ]


def assert_same(ours: NBest, theirs: NBest) -> None:
    assert ours.outputs == theirs.outputs
    np.testing.assert_allclose(ours.scores, theirs.scores, rtol=0.0, atol=1e-4)


def right_rule(rule: EarlyStopping, alpha: float) -> bool | str:
    """Return what the rule is called there; see the test of their bound for a positive α."""
    if rule == "first":
        return True
    return False if rule == "bound" and alpha <= 0.0 else "never"


@pytest.mark.slow
@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("beam_size", BEAM_SIZES)
def test_all_beam_sizes_penalties_and_rules(
    models: list[Peer], beam_size: int, alpha: float
) -> None:
    for rule in RULES:
        for peer in models:
            theirs = search_theirs(peer, beam_size, alpha, right_rule(rule, alpha))
            assert_same(search_ours(peer, beam_size, alpha, rule), theirs)


@pytest.mark.slow
def test_their_bound_for_a_positive_penalty_stops_too_early(models: list[Peer]) -> None:
    # With early_stopping=False they divide the log-probability of what is unfinished by its
    # present length. With a positive penalty it may still be divided by a greater one, so that
    # this is no bound. What they find otherwise is what they have missed.
    num_wrong = dict.fromkeys(BEAM_SIZES, 0)
    for alpha in ALPHAS[1:]:
        for beam_size in BEAM_SIZES:
            for peer in models:
                theirs = search_theirs(peer, beam_size, alpha, early_stopping=False)
                right = search_ours(peer, beam_size, alpha, "never")
                assert_same(search_ours(peer, beam_size, alpha, "bound"), right)
                assert_same(search_theirs(peer, beam_size, alpha, "never"), right)
                for row, found in enumerate(theirs.outputs):
                    missed = set(right.outputs[row]) - set(found)
                    gains = right.scores[row] - theirs.scores[row]
                    if not missed:
                        assert right.outputs[row] == found
                        assert np.abs(gains).max() <= 1e-4
                        continue
                    num_wrong[beam_size] += 1
                    assert gains.min() >= -1e-4
                    assert gains.max() > 1e-3  # far above rounding
                    # These end after the step at which they stop.
                    assert min(map(len, missed)) > max(map(len, found))
    assert all(num_wrong.values())


def test_one_beam_is_their_greedy_search(models: list[Peer]) -> None:
    for peer in models:
        expected = [[output] for output in _cut(_generate_theirs(peer, num_beams=1))]
        assert search_ours(peer, 1, 1.0, "first").outputs == expected
        assert _outputs_of(_generate_ours(peer, Greedy(max_length=MAX_LENGTH), {})) == expected


@dataclasses.dataclass(frozen=True)
class Option:
    """An option as they name it, as :class:`BeamSearch` does, and constraints of the model.

    Where there are several names, they mean the same.
    """

    theirs: tuple[dict[str, Any], ...]
    ours: dict[str, Any]
    constraints: dict[str, int | None] = dataclasses.field(default_factory=dict)


_IDS = SOURCES.tokens.tolist()
BAD_WORDS = ((_IDS[0][0],), (_IDS[1][0], _IDS[1][1]), tuple(_IDS[6][1:4]))
SUPPRESSED = (_IDS[3][0], _IDS[4][1])
FIRST = _IDS[6][0]
NO_BAD_WORDS = {"bad_words_ids": [[PAD], *map(list, BAD_WORDS)]}  # the models' own are [[PAD]]

OPTIONS = {
    # Their lengths count the start token, their new tokens leave the end token out.
    "minimum": Option(({"min_length": 8}, {"min_new_tokens": 7}), {"min_length": 8}),
    "maximum": Option(
        ({"max_new_tokens": 6}, {"max_length": 7, "max_new_tokens": None}), {"max_length": 6}
    ),
    "one length": Option(
        ({"min_length": 6, "max_new_tokens": 6},), {"min_length": 6, "max_length": 6}
    ),
    "longer than the first cache": Option(({"max_new_tokens": 21},), {"max_length": 21}),
    "no_repeat_ngram_size 2": Option(
        ({"no_repeat_ngram_size": 2},), {"processors": (NoRepeatNgram(2),)}
    ),
    "no_repeat_ngram_size 3": Option(
        ({"no_repeat_ngram_size": 3},), {"processors": (NoRepeatNgram(3),)}
    ),
    "bad_words_ids": Option((NO_BAD_WORDS,), {"processors": (BadWords(BAD_WORDS),)}),
    "suppress_tokens": Option(
        ({"suppress_tokens": list(SUPPRESSED)},), {"processors": (SuppressedTokens(SUPPRESSED),)}
    ),
    "forced_bos_token_id": Option(
        ({"forced_bos_token_id": FIRST},), {}, {"forced_first_id": FIRST}
    ),
    "without forced_eos_token_id": Option(
        ({"forced_eos_token_id": None},), {}, {"forced_last_id": None}
    ),
    "most of them": Option(
        (
            {
                "min_length": 5,
                "max_new_tokens": 9,
                "no_repeat_ngram_size": 1,
                "suppress_tokens": list(SUPPRESSED),
                "forced_bos_token_id": FIRST,
                **NO_BAD_WORDS,
            },
        ),
        {
            "min_length": 5,
            "max_length": 9,
            "processors": (NoRepeatNgram(1), BadWords(BAD_WORDS), SuppressedTokens(SUPPRESSED)),
        },
        {"forced_first_id": FIRST},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_options(models: list[Peer], name: str) -> None:
    option, shift = OPTIONS[name], list(OPTIONS).index(name)
    num_changed = 0
    # Two beam sizes each, with another penalty and another rule from one option to the next.
    for turn, beam_size in enumerate(BEAM_SIZES[shift % 2 :: 2], shift // 2):
        alpha, rule = ALPHAS[turn % len(ALPHAS)], RULES[turn % len(RULES)]
        for peer in models:
            search = peer, beam_size, alpha, right_rule(rule, alpha)
            ours = search_ours(peer, beam_size, alpha, rule, option.constraints, **option.ours)
            for options in option.theirs:
                assert_same(ours, search_theirs(*search, **options))
            num_changed += ours.outputs != search_theirs(*search).outputs
    assert num_changed


def test_outputs_vary_and_compete(models: list[Peer]) -> None:
    """What the others compare is worth it: lengths differ, penalties and a rule matter."""
    for peer in models:
        first = search_theirs(peer, 4, 1.0, early_stopping=True).outputs
        by_alpha = [search_theirs(peer, 4, alpha, "never").outputs for alpha in ALPHAS]
        assert first != by_alpha[ALPHAS.index(1.0)]
        assert all(one != other for one, other in itertools.pairwise(by_alpha))
        for row in by_alpha[0]:
            assert len({len(output) for output in row}) > 1
