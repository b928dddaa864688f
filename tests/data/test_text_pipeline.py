"""Batches of texts: what is in them, in which order, and that they can be gone on with exactly."""

import collections
import dataclasses
import functools
import itertools

import numpy as np
import pytest
from tiny_corpus import RANDOM_TOKENIZER, TOKENIZER, assert_same

from flax_transformer.data.batch import LabelledBatch, TextBatch, batch_pair_ids, padding_fraction
from flax_transformer.data.masking import mask_tokens
from flax_transformer.data.pipeline import PipelineConfig
from flax_transformer.data.text_pieces import TextPieces, encode_documents
from flax_transformer.data.text_pipeline import make_labelled_batches, make_text_batches
from flax_transformer.data.texts import LabelledText
from flax_transformer.errors import InputError

SIDE = TOKENIZER.source
LENGTH = 11
DOCUMENTS = [f"document {n}\n" + "of few words " * (n % 4) for n in range(23)]
TEXTS = [LabelledText(f"text {n} " + "of few words " * (n % 3), n % 5) for n in range(37)]
PACKED = PipelineConfig(batch_tokens=LENGTH * 4, max_length=LENGTH, window_size=7)
BUCKETED = PipelineConfig(batching="bucketed", batch_tokens=160, max_length=40, window_size=9)


def make_texts(*, joined=False, is_masked=False, config=PACKED, seed=0, **arguments):
    return make_text_batches(
        DOCUMENTS, TOKENIZER, config, joined=joined, is_masked=is_masked, seed=seed, **arguments
    )


def make_labelled(*, config=BUCKETED, tokenizer=TOKENIZER, seed=0, **arguments):
    return make_labelled_batches(TEXTS, tokenizer, config, seed=seed, **arguments)


KINDS = {
    "joined": functools.partial(make_texts, joined=True),
    "separate": make_texts,
    "masked": functools.partial(make_texts, joined=True, is_masked=True),
    "labelled": make_labelled,
}


def take(batches, count):
    return list(itertools.islice(batches, count))


def make_pieces(*, joined, is_masked):
    documents = encode_documents(SIDE, DOCUMENTS, joined=joined)
    return TextPieces(documents, length=LENGTH, bos_id=SIDE.bos_id, is_masked=is_masked)


def flatten(lists):
    return list(itertools.chain.from_iterable(lists))


@pytest.mark.parametrize("joined", [False, True])
def test_pieces_predict_every_token_once_from_what_is_before_it(joined):
    pieces = list(make_pieces(joined=joined, is_masked=False))
    encoded = [[*ids, SIDE.eos_id] for ids in SIDE.encode_batch(DOCUMENTS)]
    assert np.concatenate([piece.labels for piece in pieces]).tolist() == flatten(encoded)
    assert max(len(piece.labels) for piece in pieces) == LENGTH
    read = np.concatenate([piece.tokens for piece in pieces]).tolist()
    assert read == flatten([SIDE.bos_id, *ids[:-1]] for ids in encoded)


@pytest.mark.parametrize("joined", [False, True])
def test_masked_pieces_hold_the_text_between_start_and_end(joined):
    pieces = list(make_pieces(joined=joined, is_masked=True))
    texts = [piece.labels[1:-1].tolist() for piece in pieces]
    assert all(piece.labels[0] == SIDE.bos_id for piece in pieces)
    assert all(piece.labels[-1] == SIDE.eos_id for piece in pieces)
    encoded = SIDE.encode_batch(DOCUMENTS)
    if joined:
        encoded = [[*ids, SIDE.eos_id] for ids in encoded]
        encoded[-1].pop()
    assert flatten(texts) == flatten(encoded)


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_has_everything_once(kind):
    make = KINDS[kind]
    size = {
        "joined": len(make_pieces(joined=True, is_masked=False)),
        "separate": len(make_pieces(joined=False, is_masked=False)),
        "masked": len(make_pieces(joined=True, is_masked=True)),
        "labelled": len(TEXTS),
    }[kind]
    counts = collections.Counter()
    batches = make()
    while sum(counts.values()) < 3 * size:
        counts.update(batch_pair_ids(next(batches)))
    assert set(counts) == set(range(size))
    assert min(counts.values()) >= 2


@pytest.mark.parametrize("kind", KINDS)
def test_resuming_goes_on_exactly(kind):
    batches = KINDS[kind]()
    take(batches, 5)
    state = batches.get_state()
    expected = take(batches, 9)
    again = KINDS[kind]()
    again.set_state(state)
    assert_same(take(again, 9), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_together_are_the_whole(kind):
    whole = take(KINDS[kind](row_multiple=2), 6)
    parts = [
        take(KINDS[kind](row_multiple=2, part_index=index, part_count=2), 6) for index in (0, 1)
    ]
    joined = [
        type(one)(*map(np.concatenate, zip(one, other, strict=True)))
        for one, other in zip(*parts, strict=True)
    ]
    assert_same(joined, whole)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("joined", {"seed": 1}, "seed must be the same"),
        ("joined", {"joined": False}, "join_documents must be the same"),
        ("joined", {"is_masked": True}, "masking must be the same"),
        ("labelled", {"tokenizer": RANDOM_TOKENIZER}, "tokenizer must be the same"),
    ],
)
def test_a_position_in_another_stream_is_refused(kind, changes, message):
    state = KINDS[kind]().get_state()
    with pytest.raises(InputError, match=message):
        KINDS[kind](**changes).set_state(state)


@pytest.mark.parametrize("joined", [False, True])
def test_a_position_in_other_documents_is_refused_whichever_has_changed(joined):
    def make(documents):
        return make_text_batches(
            documents, TOKENIZER, PACKED, joined=joined, is_masked=False, seed=0
        )

    documents = [f"document {n}" for n in range(1500)]
    state = make(documents).get_state()
    documents[1201] = "document 1021"
    with pytest.raises(InputError, match="texts must be the same"):
        make(documents).set_state(state)


def test_documents_that_are_separate_have_segments_of_their_own():
    batch = next(make_texts())
    assert isinstance(batch, TextBatch)
    assert batch.segment_ids.max() > 1
    for tokens, positions, labels, is_predicted in zip(
        batch.tokens, batch.positions, batch.labels, batch.is_predicted, strict=True
    ):
        starts = np.flatnonzero((positions == 0) & (is_predicted == 1))
        inner = np.setdiff1d(np.flatnonzero(is_predicted), starts)
        assert (tokens[inner] == labels[inner - 1]).all()


def test_a_document_begins_with_the_start_token_even_behind_another():
    batch = next(make_texts(joined=True))
    ends = batch.labels[:, :-1] == SIDE.eos_id
    assert ends.any()
    assert (batch.tokens[:, 1:][ends] == SIDE.bos_id).all()
    assert not (batch.tokens == SIDE.eos_id).any()


def test_joined_documents_fill_their_rows():
    paddings = [padding_fraction(batch) for batch in take(make_texts(joined=True), 8)]
    assert np.mean(paddings) < 0.05


def test_tokens_are_hidden_as_in_bert():
    shape, rate = (200, 100), 0.15
    tokens = np.random.default_rng(0).integers(4, 1000, shape).astype(np.int32)
    can_be_hidden = tokens % 7 != 0
    hidden, is_predicted = mask_tokens(
        tokens, can_be_hidden, np.random.default_rng(1), rate=rate, mask_id=3, vocab_size=1000
    )
    assert not is_predicted[~can_be_hidden].any()
    np.testing.assert_array_equal(hidden[~is_predicted], tokens[~is_predicted])
    assert is_predicted[can_be_hidden].mean() == pytest.approx(rate, rel=0.05)
    chosen, original = hidden[is_predicted], tokens[is_predicted]
    assert (chosen == 3).mean() == pytest.approx(0.8, abs=0.02)
    assert (chosen == original).mean() == pytest.approx(0.1, abs=0.02)


def test_what_is_hidden_changes_from_epoch_to_epoch_and_is_no_special_token():
    num_pieces = len(make_pieces(joined=True, is_masked=True))
    seen = collections.defaultdict(set)
    for batch in take(make_texts(joined=True, is_masked=True), num_pieces):
        is_predicted = batch.is_predicted == 1
        assert not np.isin(batch.labels[is_predicted], (SIDE.bos_id, SIDE.eos_id)).any()
        assert not is_predicted[batch.segment_ids == 0].any()
        for row, piece in zip(is_predicted, batch.pair_ids[:, 0].tolist(), strict=True):
            seen[piece].add(row.tobytes())
    assert max(map(len, seen.values())) > 1


def test_rows_hold_one_text_and_its_class():
    for batch in take(make_labelled(), 9):
        assert isinstance(batch, LabelledBatch)
        for tokens, segments, label, pair_ids in zip(
            batch.tokens, batch.segment_ids, batch.labels, batch.pair_ids, strict=True
        ):
            if label < 0:
                assert not segments.any()
                continue
            text = TEXTS[pair_ids[0]]
            ids = [SIDE.bos_id, *SIDE.encode(text.text), SIDE.eos_id]
            assert tokens[segments == 1].tolist() == ids
            assert (text.label, segments.max()) == (label, 1)


@pytest.mark.parametrize("long_pairs", ["drop", "cut"])
def test_long_texts_are_dropped_or_cut_and_counted(long_pairs, caplog):
    config = dataclasses.replace(BUCKETED, max_length=12, batch_tokens=48, long_pairs=long_pairs)
    batches = take(make_labelled(config=config), 30)
    found = {index for batch in batches for index in batch_pair_ids(batch)}
    lengths = {n: 2 + len(SIDE.encode(text.text)) for n, text in enumerate(TEXTS)}
    num_long = sum(length > 12 for length in lengths.values())
    assert f"Of {len(TEXTS)} training texts examined, {num_long} have more than 12" in caplog.text
    assert found == {n for n, length in lengths.items() if length <= 12 or long_pairs == "cut"}


def test_random_segmentations_differ_from_epoch_to_epoch():
    seen = collections.defaultdict(set)
    for batch in take(make_labelled(tokenizer=RANDOM_TOKENIZER), 60):
        for row, pair_ids in zip(batch.tokens, batch.pair_ids, strict=True):
            seen[int(pair_ids[0])].add(tuple(row[row != SIDE.pad_id].tolist()))
    assert max(len(rows) for text_id, rows in seen.items() if text_id >= 0) > 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_texts(config=BUCKETED), r"pipeline\.batching must be packed"),
        (lambda: make_labelled(config=PACKED), r"pipeline\.batching must be bucketed"),
        (
            lambda: make_labelled(config=dataclasses.replace(BUCKETED, max_length=3)),
            r"texts must have at most pipeline\.max_length \(3\) tokens, got 37 that are all",
        ),
        (lambda: make_texts(part_count=3), "row_multiple must be a multiple of part_count"),
        (
            lambda: make_text_batches(
                DOCUMENTS, RANDOM_TOKENIZER, PACKED, joined=True, is_masked=False, seed=0
            ),
            r"tokenizer\.subword_regularization must be 0 for running text",
        ),
        (lambda: dataclasses.replace(PACKED, mask_rate=0.0), "mask_rate must be above 0"),
    ],
)
def test_what_cannot_work_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
