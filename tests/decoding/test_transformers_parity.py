"""Beam search against the one of the transformers library, on tables of logits.

Both search the same tables, so that only the searches can differ.
"""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from logit_tables import EOS, START, init_cache, make_tables, reorder, table_step

from flax_transformer.decoding.beam_search import beam_search
from flax_transformer.decoding.beam_strategy import BeamSearch
from flax_transformer.decoding.forced_token import ForcedToken
from flax_transformer.decoding.greedy import Greedy, greedy_search
from flax_transformer.decoding.repetition import NoRepeatNgram, RepetitionPenalty
from flax_transformer.decoding.token_constraints import BadWords, SuppressedTokens

HOW_TO_INSTALL = 'needs torch and transformers: pip install -e ".[parity]"'

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch", reason=HOW_TO_INSTALL)
    transformers = pytest.importorskip("transformers", reason=HOW_TO_INSTALL)

transformers.logging.set_verbosity_error()

# More tokens than hypotheses: the library fills a beam that has too few with impossible ones, and
# counts those that end as finished.
B, T, V = 9, 8, 11
NUM_BEST = 2


class TableModel(transformers.PreTrainedModel, transformers.GenerationMixin):
    """A decoder that looks its logits up; its first token, V or more, says in which table."""

    main_input_name = "input_ids"

    def __init__(self, tables):
        super().__init__(transformers.PretrainedConfig(vocab_size=V + len(tables)))
        self.tables = torch.tensor(tables)
        self.parameter = torch.nn.Parameter(torch.zeros(1))

    def prepare_inputs_for_generation(self, input_ids, attention_mask=None, **_):
        return {"input_ids": input_ids}

    def forward(self, input_ids, **_):
        num_rows, length = input_ids.shape
        tokens = torch.cat([torch.full((num_rows, 2), START), input_ids[:, 1:]], dim=1)
        logits = torch.full((num_rows, 1, V + len(self.tables)), -torch.inf)
        tables = self.tables[input_ids[:, 0] - V, length - 1]
        logits[:, 0, :V] = tables[torch.arange(num_rows), tokens[:, -2], tokens[:, -1]]
        return transformers.modeling_outputs.CausalLMOutput(logits=logits)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


def search_peer(tables, **options):
    """Return the outputs of each row, best first, and their scores."""
    starts = V + torch.arange(len(tables))[:, None]
    with torch.no_grad():
        found = TableModel(tables).generate(
            starts,
            attention_mask=torch.ones_like(starts),
            max_new_tokens=T,
            num_return_sequences=min(NUM_BEST, options["num_beams"]),
            eos_token_id=EOS,
            pad_token_id=EOS,
            use_cache=False,
            return_dict_in_generate=True,
            output_scores=True,
            **options,
        )
    outputs = []
    for tokens in found.sequences[:, 1:].tolist():
        outputs.append(tuple(tokens[: tokens.index(EOS) + 1] if EOS in tokens else tokens))
    per_row = len(outputs) // len(tables)
    rows = [outputs[i : i + per_row] for i in range(0, len(outputs), per_row)]
    scores = getattr(found, "sequences_scores", None)
    return rows, None if scores is None else scores.numpy().reshape(len(tables), -1)


@functools.partial(jax.jit, static_argnames="strategy")
def search(tables, strategy):
    starts = jnp.full(len(tables), START)
    ids = {"strategy": strategy, "eos_id": EOS, "pad_id": -1}
    if isinstance(strategy, Greedy):
        return greedy_search(table_step, init_cache(tables, 1), starts, **ids)
    cache = init_cache(tables, strategy.beam_size)
    return beam_search(table_step, reorder, cache, starts, **ids)


def search_ours(tables, beam_size, alpha, early_stopping, **options):
    hypotheses = search(
        tables,
        BeamSearch(
            beam_size=beam_size,
            num_best=min(NUM_BEST, beam_size),
            max_length=T,
            length_penalty=alpha,
            length_normalization="power",
            early_stopping=early_stopping,
            **options,
        ),
    )
    return outputs_of(hypotheses), np.asarray(hypotheses.scores)


def outputs_of(hypotheses):
    return [
        [tuple(ids[:length]) for ids, length in zip(tokens, lengths, strict=True)]
        for tokens, lengths in zip(
            hypotheses.tokens.tolist(), hypotheses.lengths.tolist(), strict=True
        )
    ]


def assert_same(ours, theirs):
    assert ours[0] == theirs[0]
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-4)


@pytest.fixture(scope="module")
def tables():
    tables = make_tables(91, B, T, V)
    tables[..., EOS] += np.linspace(-1.0, 2.0, B)[:, None, None, None]
    return tables


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("beam_size", [2, 4, 8])
def test_outputs_and_scores_are_the_same(tables, beam_size, alpha):
    options = {"num_beams": beam_size, "length_penalty": alpha}
    theirs = search_peer(tables, early_stopping="never", **options)
    assert_same(search_ours(tables, beam_size, alpha, "bound"), theirs)
    if beam_size == 4:
        assert_same(search_ours(tables, beam_size, alpha, "never"), theirs)
        first = search_ours(tables, beam_size, alpha, "first")
        assert_same(first, search_peer(tables, early_stopping=True, **options))
        # The stop rule matters.
        assert alpha == 0.0 or first[0] != theirs[0]


def test_one_beam_is_their_greedy_search(tables):
    outputs, _ = search_peer(tables, num_beams=1)
    assert outputs == outputs_of(search(tables, Greedy(max_length=T)))
    assert outputs == search_ours(tables, 1, 1.0, "first")[0]


@pytest.mark.parametrize("alpha", [-1.0, 0.0, 0.6, 1.0])
def test_their_heuristic_stops_too_early_where_longer_outputs_are_favoured(alpha):
    # Their bound of what is to come divides by the present length. That is right unless the
    # penalty is positive: then an output can still become better. Here two outputs end early, and
    # a third is certain from then on.
    probs = np.full((1, T, V, V, V), 1e-4)
    probs[0, 0, ..., EOS], probs[0, 0, ..., 3] = 0.5, 0.4
    probs[0, 1, ..., EOS], probs[0, 1, ..., 4] = 0.55, 0.44
    probs[0, 2:, ..., 5] = 1.0
    table = np.log(probs).astype(np.float32)
    options = {"num_beams": 2, "length_penalty": alpha}
    heuristic = search_peer(table, early_stopping=False, **options)
    right = search_peer(table, early_stopping="never", **options)
    ours = search_ours(table, 2, alpha, "bound")
    assert_same(ours, right)
    if alpha <= 0.0:
        assert_same(ours, heuristic)
    else:
        assert heuristic[0][0][0] == (EOS,)
        assert ours[0][0][0] == (3, 4, *(5,) * (T - 2))
        assert ours[1][0, 0] > heuristic[1][0, 0] + 0.1


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        # Theirs counts the start token, ours the end token.
        ({"min_length": 5}, {"min_length": 5}),
        ({"min_new_tokens": 5}, {"min_length": 6}),
        ({"no_repeat_ngram_size": 2}, {"processors": (NoRepeatNgram(2),)}),
        ({"repetition_penalty": 1.7}, {"processors": (RepetitionPenalty(1.7),)}),
        (
            {"bad_words_ids": [[3], [4, 5], [6, 7, 8]]},
            {"processors": (BadWords(((3,), (4, 5), (6, 7, 8))),)},
        ),
        ({"suppress_tokens": [3, 8]}, {"processors": (SuppressedTokens((3, 8)),)}),
        (
            {"forced_bos_token_id": 7, "forced_eos_token_id": EOS},
            {"processors": (ForcedToken(7, place=0), ForcedToken(EOS, place=T - 1))},
        ),
    ],
    ids=lambda options: "-".join(options),
)
def test_what_they_call_processors_gives_the_same(tables, theirs, ours):
    options = {"num_beams": 4, "length_penalty": 0.6, "early_stopping": True}
    outputs, scores = search_peer(tables, **options, **theirs)
    assert_same(search_ours(tables, 4, 0.6, "first", **ours), (outputs, scores))
    assert outputs != search_peer(tables, **options)[0]
