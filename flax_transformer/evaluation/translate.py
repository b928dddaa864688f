"""Translation of text: lines in, lines out."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from flax_transformer.array_types import Parameters
from flax_transformer.data.sentence_pair import clean_text
from flax_transformer.data.sentencepiece_model import Tokenizer
from flax_transformer.data.tokenizer import TranslationTokenizer
from flax_transformer.decoding.generate import Strategy, generate
from flax_transformer.decoding.hypotheses import Hypotheses
from flax_transformer.errors import InputError
from flax_transformer.evaluation.batching import (
    PlannedBatch,
    make_length_mask,
    pad_rows,
    plan_batches,
)
from flax_transformer.evaluation.sources import encode_sources
from flax_transformer.models.encoder_decoder import EncoderDecoder
from flax_transformer.parallel.mesh import batch_sharding, num_batch_shards
from flax_transformer.parallel.processes import fetch, place_whole

ProgressFn: TypeAlias = Callable[[int], None]
"""Is told the number of lines that have been finished since the last call."""


class Translation(NamedTuple):
    """One output for one line.

    Attributes:
        text: the translation, without line breaks or tabs.
        score: its log-probability, natural, divided by the length penalty of the search.
        num_tokens: its length with the end token.
        truncated: whether it reached the length limit without the end token.
    """

    text: str
    score: float
    num_tokens: int
    truncated: bool


EMPTY_TRANSLATION = Translation("", 0.0, 0, False)
"""What a line without any text becomes."""

IMPOSSIBLE_TRANSLATION = Translation("", -np.inf, 0, False)
"""What a line becomes to which the processors of the strategy leave no output."""


def translate(
    model: EncoderDecoder,
    params: Parameters,
    tokenizer: TranslationTokenizer,
    lines: Sequence[str],
    *,
    strategy: Strategy,
    batch_tokens: int = 4096,
    max_source_length: int | None = None,
    mesh: Mesh | None = None,
    progress: ProgressFn | None = None,
) -> list[list[Translation]]:
    """Translate each line; return its translations, best first, in the order of the lines.

    What a line becomes does not depend on the others; with :class:`Sampling` it depends on the
    number of the line. There are ``num_best`` translations of it,
    fewer where the search found fewer, and one, the empty one, of a line of white space. A line
    that is too long is cut, and a warning names its number, counted from 1.

    Args:
        model: the model.
        params: its parameters.
        tokenizer: the tokenizers of both languages.
        lines: text, a sentence each.
        strategy: how to search. A line of which S tokens are read, padding included, gets at most
            ``2 S + 10`` tokens, and never more than ``strategy.max_length`` or the positions of
            the model.
        batch_tokens: source positions of a batch at most, padding included.
        max_source_length: source tokens read at most, with the end token; None for as many as the
            model has positions.
        mesh: devices that share the rows of each batch, and that ``params`` may lie on, all or in
            parts; every process of the mesh must call this with the same lines, and gets all
            results. None for one device.
        progress: called after each batch.

    Raises:
        InputError: a length is out of range.
    """
    windows = translate_windows(
        model,
        params,
        tokenizer,
        lines,
        strategy=strategy,
        batch_tokens=batch_tokens,
        max_source_length=max_source_length,
        window_size=max(1, len(lines)),
        mesh=mesh,
        progress=progress,
    )
    return list(itertools.chain.from_iterable(windows))


def translate_windows(
    model: EncoderDecoder,
    params: Parameters,
    tokenizer: TranslationTokenizer,
    lines: Iterable[str],
    *,
    strategy: Strategy,
    batch_tokens: int = 4096,
    max_source_length: int | None = None,
    window_size: int,
    mesh: Mesh | None = None,
    progress: ProgressFn | None = None,
) -> Iterator[list[list[Translation]]]:
    """Translate a stream; yield what :func:`translate` returns for each ``window_size`` lines.

    Only the lines of one window are held in memory, and they are sorted into batches.
    """
    if window_size < 1:
        raise InputError(f"window_size must be at least 1, got {window_size}.")
    max_length = resolve_max_source_length(max_source_length, model.config.max_positions)
    params = jax.device_put(params) if mesh is None else _place_parameters(params, mesh)
    numbered = enumerate(lines, start=1)
    while window := list(itertools.islice(numbered, window_size)):
        sources = encode_sources(
            tokenizer.source,
            [line for _, line in window],
            max_length=max_length,
            first_line=window[0][0],
        )
        results = [[EMPTY_TRANSLATION] for _ in window]
        with_text = [index for index, (_, line) in enumerate(window) if clean_text(line)]
        _report(progress, len(window) - len(with_text))
        for batch in plan_batches(
            [len(sources[index]) for index in with_text],
            batch_tokens=batch_tokens,
            max_length=max_length,
            row_multiple=1 if mesh is None else num_batch_shards(mesh),
        ):
            indices = [with_text[index] for index in batch.indices]
            rows = [sources[index] for index in indices]
            numbers = [window[index][0] for index in indices]
            hypotheses = _generate_batch(
                model, params, tokenizer, rows, numbers, batch, strategy, mesh
            )
            for index, translations in zip(
                indices, _read_hypotheses(hypotheses, tokenizer.target), strict=False
            ):
                results[index] = translations
            _report(progress, len(indices))
        yield results


def resolve_max_source_length(max_source_length: int | None, max_positions: int) -> int:
    """Return the longest source to read, in tokens; None stands for ``max_positions``.

    Raises:
        InputError: it is not from 2 to ``max_positions``.

    >>> resolve_max_source_length(None, 1024)
    1024
    """
    if max_source_length is None:
        return max_positions
    if not 2 <= max_source_length <= max_positions:  # a token and the end token
        raise InputError(
            f"max_source_length must lie between 2 and max_positions = {max_positions}, "
            f"got {max_source_length}."
        )
    return max_source_length


def _place_parameters(params: Parameters, mesh: Mesh) -> Parameters:
    """Copy to every device of ``mesh`` what does not lie on all of them already."""
    sharding = NamedSharding(mesh, PartitionSpec())
    devices = set(mesh.devices.flat)

    def place(leaf: jax.Array | np.ndarray) -> jax.Array:
        if isinstance(leaf, jax.Array) and leaf.sharding.device_set == devices:
            return leaf
        return place_whole(np.asarray(leaf), sharding)

    return jax.tree.map(place, params)


def _generate_batch(
    model: EncoderDecoder,
    params: Parameters,
    tokenizer: TranslationTokenizer,
    rows: Sequence[Sequence[int]],
    numbers: Sequence[int],
    batch: PlannedBatch,
    strategy: Strategy,
    mesh: Mesh | None,
) -> Hypotheses:
    """Search the translations of ``rows``, lines ``numbers``; return arrays of the host."""
    num_rows, length = batch.num_rows, batch.length
    row_numbers = np.zeros(num_rows, np.int32)
    row_numbers[: len(numbers)] = numbers
    # By the padded length, so that the limit costs no program of its own.
    limit = min(strategy.max_length, 2 * length + 10, model.config.max_positions)
    hypotheses = generate(
        model,
        params,
        pad_rows(rows, num_rows=num_rows, length=length, pad_id=tokenizer.source.pad_id),
        strategy=dataclasses.replace(strategy, max_length=max(limit, strategy.min_length)),
        mask=make_length_mask(rows, num_rows=num_rows, length=length),
        row_numbers=row_numbers,
        sharding=None if mesh is None else batch_sharding(mesh),
        bos_id=tokenizer.target.bos_id,
        eos_id=tokenizer.target.eos_id,
        pad_id=tokenizer.target.pad_id,
    )
    return fetch(hypotheses)


def _read_hypotheses(hypotheses: Hypotheses, tokenizer: Tokenizer) -> Iterator[list[Translation]]:
    """Yield the translations of each row, without the places that the search left empty."""
    for tokens, scores, lengths in zip(
        hypotheses.tokens, hypotheses.scores, hypotheses.lengths, strict=True
    ):
        found = [
            Translation(
                # Byte tokens can spell a line break, and a line must stay a line.
                text=clean_text(tokenizer.decode(ids[:length].tolist())),
                score=float(score),
                num_tokens=int(length),
                truncated=bool(ids[length - 1] != tokenizer.eos_id),
            )
            for ids, score, length in zip(tokens, scores, lengths, strict=True)
            if score != -np.inf
        ]
        yield found or [IMPOSSIBLE_TRANSLATION]


def _report(progress: ProgressFn | None, num_lines: int) -> None:
    if progress is not None and num_lines:
        progress(num_lines)
