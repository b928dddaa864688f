"""The token ids of a corpus, kept in a file from which any pair is read by its index.

Without subword regularisation the tokens of a pair never change, so they are made once, in front of
the first epoch. The file is a cache: it is made again whenever it is missing, damaged or of other
data, and training goes on without it where it cannot be written. What is read from it is the same
as what the text gives.
"""

import fcntl
import hashlib
import json
import logging
import struct
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from flax_transformer.data.corpus import spread_indices
from flax_transformer.data.fingerprint import digest_all_pairs
from flax_transformer.data.rows import TokenizedPair
from flax_transformer.data.tokenizer import TranslationTokenizer
from flax_transformer.data.tokens import ReadTokens, TextTokens
from flax_transformer.errors import InputError, one_line
from flax_transformer.json_config import read_json_object
from flax_transformer.parallel.processes import is_first_process, say, tell_all
from flax_transformer.whole_file import replacing, write_file

_LOGGER = logging.getLogger(__name__)
_RECORDS_FILE = "tokens.array_record"
_MANIFEST_FILE = "tokens.json"
# Every record can be read by itself. Token ids hardly get smaller by compression.
_WRITER_OPTIONS = "group_size:1,uncompressed"
# Records are read in random order, so what follows them is of no use.
_READER_OPTIONS = "readahead_buffer_size:0"
_READER_BUFFER_BYTES = 1 << 15
_CHUNK_SIZE = 8192
_NUM_COMPARED_PAIRS = 1000
_MIN_ANNOUNCED_PAIRS = 100_000
_SOURCE_LENGTH = struct.Struct("<I")
_DAMAGE = (RuntimeError, ValueError, struct.error)
"""What reading a damaged file raises."""


def keep_tokens(text: TextTokens, directory: Path) -> ReadTokens:
    """Return what gives the same tokens as ``text``, from a file in ``directory`` where possible.

    The first process makes the file, unless it is there, and the others wait. ``directory`` holds
    the tokens of one corpus: another one takes their place.

    Raises:
        InputError: a pair cannot be read or tokenised; the message names its index.
        ValueError: ``text`` is segmented at random.
    """
    if text.is_random:
        raise ValueError("text must have one segmentation, got a tokenizer with regularisation")
    tokens: _KeptTokens | None = None
    if is_first_process():
        try:
            with _locked(directory):
                tokens = _open_current(text, directory)
        except (OSError, RuntimeError) as error:  # array_record raises RuntimeError
            _LOGGER.warning(
                "%s could not keep the tokens, so that text is tokenised in every epoch: %s",
                directory,
                one_line(error),
            )
    # What lies there may be of another corpus, unless the first process has seen to it.
    if not tell_all(tokens is not None):
        return text
    return tokens or _open(text, directory) or text


def encode_record(pair: TokenizedPair, dtype: np.dtype) -> bytes:
    """Return the length of the source (uint32) and the ids of source and labels, little-endian.

    >>> encode_record(TokenizedPair([7, 2], [8, 9, 2], 0), np.dtype("<u2")).hex(" ", 2)
    '0200 0000 0700 0200 0800 0900 0200'
    """
    ids = np.array([*pair.source, *pair.labels], dtype)
    return _SOURCE_LENGTH.pack(len(pair.source)) + ids.tobytes()


def decode_record(record: bytes, pair_id: int, dtype: np.dtype) -> TokenizedPair:
    """Return the pair of a record; ``pair_id`` is its index in the corpus.

    Raises:
        ValueError, struct.error: ``record`` is too short to be one.

    >>> decode_record(bytes.fromhex("02000000 0700 0200 0800 0900 0200"), 5, np.dtype("<u2"))
    TokenizedPair(source=[7, 2], labels=[8, 9, 2], pair_id=5)
    """
    (length,) = _SOURCE_LENGTH.unpack_from(record)
    ids = np.frombuffer(record, dtype, offset=_SOURCE_LENGTH.size).tolist()
    return TokenizedPair(ids[:length], ids[length:], pair_id)


class _KeptTokens:
    """Reads tokens from a file; from the text, should the file turn out to be damaged."""

    def __init__(self, path: Path, text: TextTokens) -> None:
        self._path = path
        self._text = text
        self._dtype = _id_type(text.tokenizer)
        self._warned = False
        self._reader = ArrayRecordReader(
            str(path), _READER_OPTIONS, file_reader_buffer_size=_READER_BUFFER_BYTES
        )
        # A file that was cut may open without an error.
        if self._reader.num_records() != len(text.pairs):
            raise RuntimeError(f"{path} has not one record for each of the pairs")

    def __call__(
        self, pair_ids: Sequence[int], rng: np.random.Generator | None
    ) -> list[TokenizedPair]:
        try:
            return self.read(pair_ids)
        except _DAMAGE as error:
            if not self._warned:
                _LOGGER.warning(
                    "%s is damaged, so that text is tokenised in its place: %s",
                    self._path,
                    one_line(error),
                )
            self._warned = True
            return self._text(pair_ids, rng)

    def read(self, pair_ids: Sequence[int]) -> list[TokenizedPair]:
        """Return what the file gives, or raise one of ``_DAMAGE``."""
        records = zip(self._reader.read(pair_ids), pair_ids, strict=True)
        pairs = [decode_record(record, pair_id, self._dtype) for record, pair_id in records]
        return [pair for pair in pairs if pair.source]


def _open(text: TextTokens, directory: Path) -> _KeptTokens | None:
    """Open the file that the manifest is of, if there are both."""
    try:
        if (directory / _MANIFEST_FILE).exists():
            return _KeptTokens(directory / _RECORDS_FILE, text)
    except (OSError, RuntimeError):
        pass
    return None


def _open_current(text: TextTokens, directory: Path) -> _KeptTokens:
    """Open the file if it holds the tokens of ``text``, whole; make it first if it does not."""
    fingerprint = _fingerprint(text)
    path = directory / _RECORDS_FILE
    if _is_whole(directory, fingerprint):
        tokens = _open(text, directory)
        if tokens is not None and _agree(tokens, text):
            return tokens
    (directory / _MANIFEST_FILE).unlink(missing_ok=True)
    if len(text.pairs) >= _MIN_ANNOUNCED_PAIRS:
        say(f"tokenising {len(text.pairs):,} sentence pairs, once for all epochs")
    with replacing(path) as temporary:
        _write_records(text, temporary)
    manifest = {"fingerprint": fingerprint, "sha256": _sha256(path)}
    write_file(directory / _MANIFEST_FILE, json.dumps(manifest, indent=2) + "\n")
    return _KeptTokens(path, text)


def _write_records(text: TextTokens, path: Path) -> None:
    """Write a record for each pair, in their order; those of empty pairs hold no ids."""
    dtype = _id_type(text.tokenizer)
    with closing(ArrayRecordWriter(str(path), _WRITER_OPTIONS)) as writer:
        for start in range(0, len(text.pairs), _CHUNK_SIZE):
            pair_ids = range(start, min(start + _CHUNK_SIZE, len(text.pairs)))
            pairs = {pair.pair_id: pair for pair in text(pair_ids, None)}
            for pair_id in pair_ids:
                pair = pairs.get(pair_id, TokenizedPair([], [], pair_id))
                writer.write(encode_record(pair, dtype))


def _is_whole(directory: Path, fingerprint: str) -> bool:
    """Whether the file is of this fingerprint, and unchanged since it was written."""
    path = directory / _RECORDS_FILE
    try:
        manifest = read_json_object(directory / _MANIFEST_FILE)
        if manifest.get("fingerprint") != fingerprint:
            return False
        if manifest.get("sha256") == _sha256(path):
            return True
    except (InputError, OSError):
        return False
    _LOGGER.warning("%s has changed since it was written; it is made again.", path)
    return False


def _agree(tokens: _KeptTokens, text: TextTokens) -> bool:
    """Compare a sample: the code that reads and tokenises text may have changed, too."""
    sample = spread_indices(len(text.pairs), _NUM_COMPARED_PAIRS)
    try:
        return tokens.read(sample) == text(sample, None)
    except _DAMAGE:
        return False


def _fingerprint(text: TextTokens) -> str:
    """Return a hash of the corpus, the models and the libraries that split text by them."""
    tokenizer = text.tokenizer
    parts = [
        digest_all_pairs(text.pairs),
        *(hashlib.sha256(side.model).hexdigest() for side in (tokenizer.source, tokenizer.target)),
        version("sentencepiece"),
        version("tokenizers"),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _id_type(tokenizer: TranslationTokenizer) -> np.dtype:
    """Return the smallest type that holds all ids."""
    vocab_size = max(tokenizer.source.vocab_size, tokenizer.target.vocab_size)
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Make ``directory`` and hold its lock, which goes with the process, also when it is killed."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
