"""The stream of batches: every pair once an epoch, resumable anywhere, in shapes that fit."""

import json
import logging
from collections import Counter
from itertools import islice

import grain
import numpy as np
import orbax.checkpoint as ocp
import pytest
from tiny_corpus import (
    NUM_PAIRS,
    PAIRS,
    RANDOM_TOKENIZER,
    TOKENIZER,
    assert_same,
    make_batches,
    make_config,
    make_pairs,
)

from flax_transformer.data.batch import padding_fraction
from flax_transformer.data.pipeline import PipelineConfig, summarize_corpus
from flax_transformer.data.sentence_pair import SentencePair
from flax_transformer.data.tokens import TextTokens
from flax_transformer.errors import InputError

BATCHINGS = ("packed", "bucketed")


def read_pairs(batch, tokenizer=TOKENIZER):
    """The sentence pairs of a batch, read back from its rows."""
    pairs = []
    for row in range(len(batch.source)):
        for segment in range(1, batch.source_segment_ids[row].max() + 1):
            source = batch.source[row][batch.source_segment_ids[row] == segment]
            labels = batch.labels[row][batch.target_segment_ids[row] == segment]
            assert source[-1] == tokenizer.source.eos_id
            assert labels[-1] == tokenizer.target.eos_id
            pairs.append(
                SentencePair(tokenizer.source.decode(source), tokenizer.target.decode(labels))
            )
    return pairs


def read_until(batches, count):
    pairs = []
    while len(pairs) < count:
        pairs += read_pairs(next(batches))
    return pairs


@pytest.mark.parametrize("batching", BATCHINGS)
def test_every_pair_comes_once_an_epoch(batching):
    # Windows of an epoch: then the batches of the bucketed stream end with the epoch.
    config = make_config(batching, window_size=1000)
    seen = read_until(make_batches(batching, config=config), 5 * NUM_PAIRS)
    counts = Counter(seen)
    assert set(counts) == set(PAIRS)
    # The packed stream may have begun the next epoch in its last batch.
    assert min(counts.values()) >= 5
    assert max(counts.values()) <= 6


@pytest.mark.parametrize("batching", BATCHINGS)
@pytest.mark.parametrize("tokenizer", [TOKENIZER, RANDOM_TOKENIZER], ids=["best", "sampled"])
def test_resuming_from_any_state_goes_on_exactly(batching, tokenizer):
    batches = make_batches(batching, tokenizer=tokenizer)
    states, expected = [], []
    for _ in range(30):
        states.append(json.loads(json.dumps(batches.get_state())))
        expected.append(next(batches))
    assert sum(len(read_pairs(batch)) for batch in expected) > 2 * NUM_PAIRS
    resumed = make_batches(batching, tokenizer=tokenizer)
    for position in (17, 0, 22, 29, 3):
        resumed.set_state(states[position])
        assert resumed.get_state() == states[position]
        assert_same(list(islice(resumed, 30 - position)), expected[position:])


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("seed", {"seed": 1}),
        ("pairs", {"pairs": PAIRS[1:]}),
        ("tokenizer", {"tokenizer": RANDOM_TOKENIZER}),
        ("batching", {"batching": "bucketed"}),
        ("batch shapes", {"config": make_config("packed", batch_tokens=200)}),
        ("long_pairs", {"config": make_config("packed", long_pairs="cut")}),
        ("window_size", {"config": make_config("packed", window_size=19)}),
        ("num_streams", {"config": make_config("packed", num_streams=2)}),
    ],
)
def test_a_position_in_another_stream_is_refused(name, changes):
    state = make_batches("packed").get_state()
    other = make_batches(**{"batching": "packed", **changes})
    with pytest.raises(InputError, match=rf"^{name}.* must be the same as when the") as caught:
        other.set_state(state)
    message = str(caught.value)
    named = next(key for key in state["stream"] if key.startswith(name))
    assert f"({state['stream'][named]}), got {other.get_state()['stream'][named]}." in message
    assert message.endswith("start a new run, or begin the data anew with --restart-data.")


def test_threads_and_shards_may_change_when_the_shapes_stay():
    batches = make_batches("packed")
    next(batches)
    state = batches.get_state()
    config = make_config("packed", num_threads=3)
    other = make_batches("packed", config=config, row_multiple=4)
    other.set_state(state)
    assert_same(list(islice(other, 9)), list(islice(batches, 9)))


def test_position_is_saved_and_restored_by_orbax(tmp_path):
    batches = make_batches("bucketed", tokenizer=RANDOM_TOKENIZER)
    list(islice(batches, 5))
    with ocp.CheckpointManager(tmp_path / "checkpoints") as manager:
        manager.save(5, args=ocp.args.Composite(data=grain.checkpoint.CheckpointSave(batches)))
        expected = list(islice(batches, 9))
        resumed = make_batches("bucketed", tokenizer=RANDOM_TOKENIZER)
        restore = grain.checkpoint.CheckpointRestore(resumed)
        manager.restore(5, args=ocp.args.Composite(data=restore))
        restore = grain.checkpoint.CheckpointRestore(make_batches("bucketed", seed=1))
        with pytest.raises(InputError, match="tokenizer must be the same"):
            manager.restore(5, args=ocp.args.Composite(data=restore))
    assert_same(list(islice(resumed, 9)), expected)


@pytest.mark.parametrize("batching", BATCHINGS)
def test_epochs_and_seeds_have_orders_of_their_own(batching):
    config = make_config(batching, window_size=1000)
    order = read_until(make_batches(batching, config=config), 2 * NUM_PAIRS)
    assert order[:NUM_PAIRS] != order[NUM_PAIRS : 2 * NUM_PAIRS]
    again = read_until(make_batches(batching, config=config), 2 * NUM_PAIRS)
    assert order == again
    other = read_until(make_batches(batching, config=config, seed=1), 2 * NUM_PAIRS)
    assert order[:NUM_PAIRS] != other[:NUM_PAIRS]


def test_segmentations_differ_between_epochs():
    batches = make_batches("packed", tokenizer=RANDOM_TOKENIZER)
    segmentations = set()
    for batch in islice(batches, 40):
        for row in range(len(batch.source)):
            for segment in range(1, batch.source_segment_ids[row].max() + 1):
                ids = batch.source[row][batch.source_segment_ids[row] == segment]
                segmentations.add(tuple(ids.tolist()))
    assert len(segmentations) > 2 * NUM_PAIRS


@pytest.mark.parametrize("batching", BATCHINGS)
def test_batches_share_no_memory(batching):
    batches = list(islice(make_batches(batching), 12))
    copies = [tuple(array.copy() for array in batch) for batch in batches[1:]]
    for array in batches[0]:
        array[...] = -1
    assert_same(batches[1:], copies)


@pytest.mark.parametrize("batching", BATCHINGS)
@pytest.mark.parametrize("row_multiple", [1, 2, 4])
def test_shapes_fit_the_budget_and_the_shards(batching, row_multiple):
    for batch in islice(make_batches(batching, row_multiple=row_multiple), 12):
        num_rows, row_length = batch.target.shape
        assert num_rows % row_multiple == 0
        assert num_rows * row_length <= 160
        assert row_length <= 40
        assert batch.source.shape == batch.target.shape
        assert all(array.dtype == np.int32 for array in batch)


def test_packing_leaves_little_padding():
    batches = make_batches("packed", pairs=make_pairs(500), config=PipelineConfig())
    assert np.mean([padding_fraction(batch) for batch in islice(batches, 5)]) < 0.2


def test_over_long_and_empty_pairs_are_dropped_and_counted(caplog):
    bad = [SentencePair("word " * 50, "x"), SentencePair("", "x"), SentencePair("x", " \t")]
    pairs = [*PAIRS, *bad]
    text = TextTokens(pairs=pairs, tokenizer=TOKENIZER)
    assert summarize_corpus(text, len(pairs), make_config("packed")) == (NUM_PAIRS + 3, 2, 1)
    with caplog.at_level(logging.WARNING):
        batches = make_batches("packed", pairs=pairs)
    assert "64 training pairs examined, 2 have an empty side" in caplog.text
    assert "1 have more than 40 tokens on a side and are dropped" in caplog.text
    assert set(read_until(batches, 4 * NUM_PAIRS)) == set(PAIRS)


@pytest.mark.parametrize("batching", BATCHINGS)
def test_over_long_pairs_are_cut_on_demand(batching):
    pairs = [SentencePair("word " * 50, "x"), SentencePair("x", "word " * 10_000)]
    config = make_config(batching, long_pairs="cut")
    batches = make_batches(batching, pairs=pairs, config=config)
    seen = read_until(batches, 6)
    assert all(
        whole.startswith(cut)
        for pair in seen
        for cut, whole in zip(pair, pairs[0] if pair.target == "x" else pairs[1], strict=True)
    )
    assert len(set(seen)) == 2


@pytest.mark.parametrize("batching", BATCHINGS)
@pytest.mark.parametrize(
    "pairs",
    [[], [SentencePair("", "")] * 7, [SentencePair("word " * 50, "word " * 50)] * 7],
    ids=["no pairs", "all empty", "all too long"],
)
def test_nothing_to_train_on_is_refused_with_counts(batching, pairs):
    with pytest.raises(InputError, match=f"got {len(pairs)} pairs, . with an empty side"):
        make_batches(batching, pairs=pairs)


@pytest.mark.parametrize("batching", BATCHINGS)
def test_more_shards_than_rows_are_refused(batching):
    with pytest.raises(InputError, match="batch_tokens must be at least 240"):
        make_batches(batching, row_multiple=6)


@pytest.mark.parametrize(
    "bad",
    [
        {"batching": "padded"},
        {"long_pairs": "keep"},
        {"batch_tokens": 0},
        {"batch_tokens": 127},
        {"max_length": 1},
        {"window_size": 0},
        {"bucket_growth": 1.0},
        {"bucket_growth": float("nan")},
        {"num_threads": 0},
        {"num_streams": 0},
        {"num_streams": 2, "batching": "bucketed"},
    ],
)
def test_configs_that_cannot_work_are_refused(bad):
    with pytest.raises(InputError, match=f"{next(iter(bad))} must"):
        PipelineConfig(**bad)


def test_seeds_out_of_range_are_refused():
    with pytest.raises(InputError, match="seed must be from 0"):
        make_batches("packed", seed=-1)
