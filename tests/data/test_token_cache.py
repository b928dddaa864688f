"""Kept tokens: the same batches as from the text, whatever happens to the file."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from process_group import finish, start_group
from tiny_checkpoints import small_disk
from tiny_corpus import PAIRS, RANDOM_TOKENIZER, TOKENIZER, assert_same, make_batches, make_config

from flax_transformer.data import token_cache
from flax_transformer.data.rows import TokenizedPair
from flax_transformer.data.sentence_pair import SentencePair
from flax_transformer.data.sentencepiece_model import Tokenizer
from flax_transformer.data.token_cache import decode_record, encode_record, keep_tokens
from flax_transformer.data.tokenizer import TokenizerConfig, TranslationTokenizer, train_tokenizer
from flax_transformer.data.tokens import TextTokens
from flax_transformer.errors import InputError

FILES = ["tokens.array_record", "tokens.json"]
# Empty pairs and pairs that are too long, first, last and in between.
MIXED = [
    SentencePair("", "x"),
    *PAIRS[:30],
    SentencePair("word " * 50, "x"),
    SentencePair("x", " \t"),
    *PAIRS[30:],
    SentencePair("", ""),
]
TEXT = TextTokens(pairs=MIXED, tokenizer=TOKENIZER)
EVERYTHING = TEXT(range(len(MIXED)), None)


def read_all(tokens):
    return tokens(list(range(len(MIXED))), None)


def list_files(directory):
    return sorted(path.name for path in directory.iterdir() if path.name != ".lock")


def read_files(directory):
    return [(directory / name).read_bytes() for name in FILES]


class CountingTokenizer(Tokenizer):
    """Counts the texts that it tokenises."""

    count = 0

    def encode_batch(self, texts):
        self.count += len(texts)
        return super().encode_batch(texts)


def counting(pairs=MIXED):
    tokenizer = CountingTokenizer(TOKENIZER.source.model)
    return tokenizer, TextTokens(pairs=pairs, tokenizer=TranslationTokenizer(tokenizer, tokenizer))


@pytest.mark.parametrize("batching", ["packed", "bucketed"])
@pytest.mark.parametrize("long_pairs", ["drop", "cut"])
def test_batches_and_positions_are_the_same_with_kept_tokens(tmp_path, batching, long_pairs):
    config = make_config(batching, long_pairs=long_pairs)

    def make(cache_directory):
        return make_batches(batching, pairs=MIXED, config=config, cache_directory=cache_directory)

    from_text, made, kept = make(None), make(tmp_path), make(tmp_path)
    for _ in range(20):
        assert json.dumps(from_text.get_state()) == json.dumps(kept.get_state())
        expected = next(from_text)
        assert_same([next(made), next(kept)], [expected, expected])
    # A position may be saved with a cache and restored without, or the other way round.
    state = kept.get_state()
    expected = list(islice(kept, 10))
    for resumed in (make(None), make(tmp_path)):
        resumed.set_state(state)
        assert_same(list(islice(resumed, 10)), expected)


def test_an_epoch_does_not_tokenise_again(tmp_path):
    tokenizer, text = counting()
    batches = make_batches(
        "packed", pairs=text.pairs, tokenizer=text.tokenizer, cache_directory=tmp_path
    )
    assert 0 < tokenizer.count <= 2 * len(MIXED)
    tokenizer.count = 0
    list(islice(batches, 30))
    assert tokenizer.count == 0


def test_random_segmentations_are_not_kept(tmp_path):
    make_batches("packed", tokenizer=RANDOM_TOKENIZER, cache_directory=tmp_path / "tokens")
    assert not (tmp_path / "tokens").exists()
    with pytest.raises(ValueError, match="one segmentation"):
        keep_tokens(TextTokens(pairs=PAIRS, tokenizer=RANDOM_TOKENIZER), tmp_path)


@given(
    st.lists(st.integers(0, 65535)),
    st.lists(st.integers(0, 65535)),
    st.sampled_from(["<u2", "<u4"]),
    st.integers(0, 1 << 40),
)
def test_records_hold_pairs(source, labels, dtype, pair_id):
    pair = TokenizedPair(source, labels, pair_id)
    assert decode_record(encode_record(pair, np.dtype(dtype)), pair_id, np.dtype(dtype)) == pair


def test_only_the_file_of_the_present_data_is_kept(tmp_path):
    keep_tokens(TEXT, tmp_path)
    before = read_files(tmp_path)
    smaller = train_tokenizer(TokenizerConfig(vocab_size=290), PAIRS, seed=0)
    other_target = TranslationTokenizer(TOKENIZER.source, smaller.target)
    edited = [*MIXED[:40], SentencePair("new", "novo"), *MIXED[41:]]
    others = [
        TextTokens(pairs=edited, tokenizer=TOKENIZER),
        TextTokens(pairs=MIXED[::-1], tokenizer=TOKENIZER),
        TextTokens(pairs=MIXED[1:], tokenizer=TOKENIZER),
        TextTokens(pairs=MIXED, tokenizer=other_target),
    ]
    for other in others:
        ids = list(range(len(other.pairs)))
        assert keep_tokens(other, tmp_path)(ids, None) == other(ids, None)
        assert list_files(tmp_path) == FILES
        assert read_files(tmp_path) != before
    assert read_all(keep_tokens(TEXT, tmp_path)) == EVERYTHING
    assert read_files(tmp_path) == before


def test_another_way_to_tokenise_with_the_same_model_is_noticed(tmp_path):
    class Spelling(Tokenizer):
        def encode_batch(self, texts):
            return [ids[::-1] for ids in super().encode_batch(texts)]

    spelling = Spelling(TOKENIZER.source.model)
    other = TextTokens(pairs=MIXED, tokenizer=TranslationTokenizer(spelling, spelling))
    keep_tokens(TEXT, tmp_path)
    assert read_all(keep_tokens(other, tmp_path)) == read_all(other) != EVERYTHING


def cut(size):
    return lambda content: content[:size]


def flip_bit(place):
    def change(content):
        number = int(place * len(content))
        return content[:number] + bytes([content[number] ^ 4]) + content[number + 1 :]

    return change


DAMAGES = {
    "empty": cut(0),
    "first block": cut(1 << 16),
    "odd cut": cut(70_001),
    "last byte": cut(-1),
    "bit of the records": flip_bit(0.01),
    "bit in the middle": flip_bit(0.5),
    "bit at the end": flip_bit(0.999),
    "other content": lambda content: b"0" * len(content),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
def test_a_damaged_file_is_made_again(tmp_path, damage, caplog):
    keep_tokens(TEXT, tmp_path)
    whole = read_files(tmp_path)
    path = tmp_path / FILES[0]
    path.write_bytes(damage(whole[0]))
    tokens = keep_tokens(TEXT, tmp_path)
    assert f"{path} has changed since it was written; it is made again." in caplog.text
    assert read_files(tmp_path) == whole
    assert read_all(tokens) == EVERYTHING


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"{}", b"\xff", b'{"sha256": 1}'])
@pytest.mark.parametrize("name", FILES)
def test_what_is_missing_or_no_manifest_is_made_again(tmp_path, name, content):
    keep_tokens(TEXT, tmp_path)
    whole = read_files(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert read_all(keep_tokens(TEXT, tmp_path)) == EVERYTHING
    assert read_files(tmp_path) == whole


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
def test_a_file_that_is_damaged_while_it_is_read_loses_nothing(tmp_path, damage, caplog):
    tokens = keep_tokens(TEXT, tmp_path)
    path = tmp_path / FILES[0]
    damaged = damage(path.read_bytes())
    with path.open("r+b") as file:
        file.write(damaged)
        file.truncate()
    for _ in range(3):
        assert read_all(tokens) == EVERYTHING
    assert caplog.text.count("is damaged, so that text is tokenised in its place") <= 1


def test_a_full_disk_stops_nothing(tmp_path, caplog):
    with small_disk(tmp_path / "disk", "64k") as disk:
        tokens = keep_tokens(TEXT, disk / "tokens")
        assert list_files(disk / "tokens") == []
    assert read_all(tokens) == EVERYTHING
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "could not keep the tokens, so that text is tokenised in every epoch" in record.message
    assert "No space left on device" in record.message


def test_a_directory_that_cannot_be_made_stops_nothing(tmp_path, caplog):
    (tmp_path / "file").touch()
    assert read_all(keep_tokens(TEXT, tmp_path / "file" / "tokens")) == EVERYTHING
    assert "could not keep the tokens" in caplog.text


def test_a_damaged_pair_is_named_and_leaves_no_file(tmp_path):
    text = TextTokens(pairs=[*PAIRS[:7], None, *PAIRS[8:]], tokenizer=TOKENIZER)
    with pytest.raises(InputError, match="got None at index 7"):
        keep_tokens(text, tmp_path)
    assert list_files(tmp_path) == []


def test_of_two_that_need_the_file_one_makes_it(tmp_path):
    pairs = PAIRS * 20
    counters = [counting(pairs), counting(pairs)]
    threads = [threading.Thread(target=keep_tokens, args=(text, tmp_path)) for _, text in counters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # The other one tokenises a sample of 1,000, to compare it.
    assert sorted(tokenizer.count for tokenizer, _ in counters) == [2 * 1000, 2 * len(pairs)]


KILLED = """
import sys
import time
from pathlib import Path

from flax_transformer.data.token_cache import keep_tokens
from flax_transformer.data.tokens import TextTokens
from tiny_corpus import PAIRS, TOKENIZER

class Corpus(list):
    reads = 0

    def __getitem__(self, index):
        self.reads += 1
        if self.reads == len(self) + 9000:  # in the second chunk that is written
            print("writing", flush=True)
            time.sleep(600)
        return super().__getitem__(index)

keep_tokens(TextTokens(pairs=Corpus(PAIRS * 200), tokenizer=TOKENIZER), Path(sys.argv[1]))
"""


def test_a_kill_while_the_file_is_written_leaves_none(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "writing\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert list_files(tmp_path) == [".tokens.array_record.tmp"]
    text = TextTokens(pairs=PAIRS * 200, tokenizer=TOKENIZER)
    ids = [0, 9000, 61 * 200 - 1]
    assert keep_tokens(text, tmp_path)(ids, None) == text(ids, None)
    assert list_files(tmp_path) == FILES


TWO_PROCESSES = """
import sys
from pathlib import Path

from flax_transformer.cli.distributed import initialize_distributed
from flax_transformer.data.sentencepiece_model import Tokenizer
from flax_transformer.data.token_cache import keep_tokens
from flax_transformer.data.tokenizer import TranslationTokenizer
from flax_transformer.data.tokens import TextTokens
from tiny_corpus import PAIRS, TOKENIZER

class CountingTokenizer(Tokenizer):
    count = 0

    def encode_batch(self, texts):
        self.count += len(texts)
        return super().encode_batch(texts)

initialize_distributed(start_timeout=60, heartbeat_timeout=60)
tokenizer = CountingTokenizer(TOKENIZER.source.model)
text = TextTokens(pairs=PAIRS, tokenizer=TranslationTokenizer(tokenizer, tokenizer))
kept = keep_tokens(text, Path(sys.argv[1]))
print("tokenised", tokenizer.count)
ids = list(range(len(PAIRS)))
assert kept(ids, None) == TextTokens(pairs=PAIRS, tokenizer=TOKENIZER)(ids, None)
print("read", tokenizer.count)
"""


@pytest.mark.slow
@pytest.mark.parametrize("fault", [None, "no directory", "no lock on tokens of another corpus"])
def test_the_first_process_makes_the_file_and_all_read_it(tmp_path, fault):
    directory = tmp_path / "tokens"
    if fault == "no directory":
        directory.touch()
    elif fault is not None:
        other = [SentencePair(pair.target, pair.source) for pair in PAIRS]
        keep_tokens(TextTokens(pairs=other, tokenizer=TOKENIZER), directory)
        (directory / ".lock").unlink()
        (directory / ".lock").mkdir()
    ended = finish(*start_group("-c", TWO_PROCESSES, directory, num_devices=1))
    assert [process.status for process in ended] == [0, 0], ended
    counts = [re.findall(r"(?:tokenised|read) (\d+)", process.output) for process in ended]
    num_texts = str(2 * len(PAIRS))
    without = [["0", num_texts]] * 2
    assert counts == (without if fault else [[num_texts, num_texts], ["0", "0"]])


def test_a_file_that_cannot_be_read_is_made_again(tmp_path, monkeypatch, caplog):
    keep_tokens(TEXT, tmp_path)
    before = read_files(tmp_path)
    monkeypatch.setattr(token_cache, "_id_type", lambda tokenizer: np.dtype("<u4"))
    assert read_all(keep_tokens(TEXT, tmp_path)) == EVERYTHING
    assert read_files(tmp_path) != before
    assert not caplog.messages


def test_long_corpora_are_announced(tmp_path, capsys, monkeypatch):
    keep_tokens(TEXT, tmp_path)
    assert capsys.readouterr().out == ""
    keep_tokens(TextTokens(pairs=[SentencePair("a", "b")] * 100_000, tokenizer=TOKENIZER), tmp_path)
    expected = "tokenising 100,000 sentence pairs, once for all epochs\n"
    assert capsys.readouterr().out == expected
