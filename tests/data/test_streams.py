"""Many processes: the same global batches whatever their number, and every pair once an epoch."""

import json
from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_corpus import (
    NUM_PAIRS,
    PAIRS,
    RANDOM_TOKENIZER,
    TOKENIZER,
    assert_same,
    make_batches,
    make_config,
)

from flax_transformer.data.batch import Batch, batch_pair_ids
from flax_transformer.data.sentence_pair import SentencePair
from flax_transformer.data.streams import find_streams
from flax_transformer.errors import InputError

# Four rows a batch, which 1, 2 or 4 processes share.
STREAMS = [("packed", 1), ("packed", 2), ("packed", 4), ("bucketed", 1)]
shared_streams = pytest.mark.parametrize(("batching", "num_streams"), STREAMS)


def make_parts(part_count, batching, num_streams, **arguments):
    """The iterators of ``part_count`` processes."""
    config = make_config(batching, num_streams=num_streams)
    return [
        make_batches(
            batching,
            config=config,
            part_index=index,
            part_count=part_count,
            row_multiple=4,
            **arguments,
        )
        for index in range(part_count)
    ]


def take_global(parts, count):
    """The next batches of all processes, put together."""
    return [
        Batch(*(np.concatenate(arrays) for arrays in zip(*map(next, parts), strict=True)))
        for _ in range(count)
    ]


def merge_states(parts):
    """What all processes save, read back as one position."""
    states = [json.loads(json.dumps(part.get_state())) for part in parts]
    merged = {}
    for state in states:
        for stream, position in state["position"].items():
            assert merged.setdefault(stream, position) == position
        assert state["stream"] == states[0]["stream"]
    return {"position": merged, "stream": states[0]["stream"]}


@shared_streams
def test_the_global_batches_are_the_same_for_any_number_of_processes(batching, num_streams):
    expected = take_global(make_parts(1, batching, num_streams), 30)
    assert sum(len(batch_pair_ids(batch)) for batch in expected) > 2 * NUM_PAIRS
    for part_count in (2, 4):
        assert_same(take_global(make_parts(part_count, batching, num_streams), 30), expected)


@shared_streams
@pytest.mark.parametrize("tokenizer", [TOKENIZER, RANDOM_TOKENIZER], ids=["best", "sampled"])
def test_resuming_with_more_processes_or_fewer_is_exact(batching, num_streams, tokenizer):
    expected = take_global(make_parts(1, batching, num_streams, tokenizer=tokenizer), 32)
    parts = make_parts(1, batching, num_streams, tokenizer=tokenizer)
    seen = take_global(parts, 7)
    for part_count, count in ((2, 8), (4, 9), (1, 1), (4, 7)):
        state = merge_states(parts)
        parts = make_parts(part_count, batching, num_streams, tokenizer=tokenizer)
        for part in parts:
            part.set_state(state)
        assert merge_states(parts) == state
        seen += take_global(parts, count)
    assert_same(seen, expected)


@pytest.mark.parametrize("num_streams", [1, 2, 4])
def test_the_streams_share_out_an_epoch(num_streams):
    pairs = PAIRS[:60]
    # A window is a stream's share of the epoch, and no row has pairs of two windows.
    config = make_config("packed", window_size=1000, num_streams=num_streams)
    batches = make_batches("packed", pairs=pairs, config=config, row_multiple=4)
    ids = [[] for _ in range(num_streams)]
    for batch in islice(batches, 60):
        for row, row_ids in enumerate(batch.pair_ids):
            ids[row * num_streams // 4] += dict.fromkeys(row_ids[row_ids >= 0].tolist())
    for epoch in range(2):
        share = slice(epoch * 60 // num_streams, (epoch + 1) * 60 // num_streams)
        assert sorted(pair for stream in ids for pair in stream[share]) == list(range(60))


class CountingPairs(list):
    """Counts how often each pair is read while ``counts`` is set."""

    counts: Counter | None = None

    def __getitem__(self, index):
        if self.counts is not None:
            self.counts[index] += 1
        return super().__getitem__(index)


def test_a_process_reads_its_own_part_of_the_data():
    config = make_config("packed", num_streams=4, window_size=15)
    for part_count, share in ((4, 15), (2, 30), (1, 60)):
        pairs = CountingPairs(PAIRS[:60])
        batches = make_batches(
            "packed", pairs=pairs, config=config, part_index=part_count - 1, part_count=part_count
        )
        pairs.counts = Counter()
        next(batches)
        streams = batches.get_state()["position"]
        assert len(streams) == 4 // part_count
        batches.close()
        # Two windows of a stream are prepared ahead of the one that is read, at most.
        assert share <= pairs.counts.total() <= 3 * share


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4))
def test_parts_have_all_rows_in_order(num_streams, part_count, multiple):
    num_rows = int(np.lcm(num_streams, part_count)) * multiple
    size = num_rows // num_streams
    rows = [
        stream * size + row
        for part_index in range(part_count)
        for stream, kept in find_streams(
            num_rows, num_streams, part_index=part_index, part_count=part_count
        ).items()
        for row in range(size)[kept]
    ]
    assert rows == list(range(num_rows))


def test_a_position_without_a_stream_that_is_needed_is_refused():
    one, both = (make_parts(count, "packed", 2)[0] for count in (2, 1))
    take_global([one], 3)
    state, before = one.get_state(), both.get_state()
    with pytest.raises(InputError, match=r"must hold streams 0, 1, got none for 1\. .*--restart-"):
        both.set_state(state)
    assert both.get_state() == before


def test_rows_that_cannot_be_shared_out_are_refused():
    with pytest.raises(InputError, match=r"row_multiple must be a multiple of part_count \(3\)"):
        make_batches("packed", part_count=3)


@pytest.mark.parametrize("num_streams", [1, 3, 4])
def test_rows_are_a_multiple_of_the_streams(num_streams):
    config = make_config("packed", num_streams=num_streams, batch_tokens=40 * 14)
    batch = next(make_batches("packed", config=config, row_multiple=2))
    assert len(batch.source) == {1: 14, 3: 12, 4: 12}[num_streams]


def test_more_streams_than_pairs_give_batches_all_the_same():
    pairs = [*PAIRS[:2], SentencePair("", "")]
    batches = make_batches("packed", pairs=pairs, config=make_config("packed", num_streams=4))
    seen = Counter(pair for batch in islice(batches, 40) for pair in batch_pair_ids(batch))
    assert set(seen) == {0, 1}


@pytest.mark.parametrize("batching", ["packed", "bucketed"])
@pytest.mark.parametrize(("num_pairs", "window_size"), [(1, 17), (7, 1)])
def test_windows_may_be_of_one_pair(batching, num_pairs, window_size):
    config = make_config(batching, window_size=window_size)
    batches = make_batches(batching, pairs=PAIRS[:num_pairs], config=config)
    seen = Counter(pair for batch in islice(batches, 40) for pair in batch_pair_ids(batch))
    assert set(seen) == set(range(num_pairs))


@shared_streams
def test_ids_are_those_of_the_pairs_in_the_batch(batching, num_streams):
    (batches,) = make_parts(1, batching, num_streams)
    for batch in islice(batches, 20):
        used = batch.target_segment_ids > 0
        assert np.array_equal(batch.pair_ids >= 0, used)
        ids = []
        for row, segments in enumerate(batch.target_segment_ids):
            for segment in range(1, segments.max() + 1):
                (pair_id,) = set(batch.pair_ids[row][segments == segment].tolist())
                ids.append(pair_id)
                source = batch.source[row][batch.source_segment_ids[row] == segment]
                labels = batch.labels[row][segments == segment]
                assert TOKENIZER.source.decode(source) == PAIRS[pair_id].source
                assert TOKENIZER.target.decode(labels) == PAIRS[pair_id].target
        assert batch_pair_ids(batch) == sorted(ids)


@pytest.mark.parametrize("batching", ["packed", "bucketed"])
def test_ids_cover_every_epoch_once_although_training_is_resumed(batching):
    unusable = [SentencePair("word " * 50, "x"), SentencePair("", "x")]
    pairs = [*unusable, *PAIRS]
    # One window an epoch and, packed, one row a batch: batches end with the epoch.
    config = make_config(batching, batch_tokens=40, window_size=1000)
    ids, state = [], make_batches(batching, pairs=pairs, config=config).get_state()
    while len(ids) < 3 * NUM_PAIRS:
        batches = make_batches(batching, pairs=pairs, config=config)
        batches.set_state(json.loads(json.dumps(state)))
        for batch in islice(batches, 7):
            ids += batch_pair_ids(batch)
        state = batches.get_state()
    for epoch in range(3):
        order = ids[epoch * NUM_PAIRS : (epoch + 1) * NUM_PAIRS]
        assert sorted(order) == list(range(2, NUM_PAIRS + 2))


def test_data_begun_anew_is_the_data_from_the_beginning():
    # What follows when a position is left unused on purpose: the fresh stream of the new config.
    (old,) = make_parts(1, "packed", 1)
    take_global([old], 5)
    new = make_parts(1, "packed", 2, seed=1)
    assert_same(take_global(new, 9), take_global(make_parts(1, "packed", 2, seed=1), 9))
