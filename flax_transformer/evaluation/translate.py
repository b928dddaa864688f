"""Translation of text: lines in, lines out."""

import concurrent.futures
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

from jax.sharding import Mesh

from flax_transformer.array_types import Parameters
from flax_transformer.data.sentence_pair import clean_text
from flax_transformer.data.tokenizer import TranslationTokenizer
from flax_transformer.decoding.model_combinations import AVERAGE, Combination
from flax_transformer.decoding.prepare import Precision
from flax_transformer.decoding.strategies import Strategy
from flax_transformer.errors import InputError
from flax_transformer.evaluation.batch_translator import BatchTranslator, make_batch_translator
from flax_transformer.evaluation.batching import PlannedBatch, plan_batches
from flax_transformer.evaluation.sources import check_texts, encode_sources
from flax_transformer.evaluation.translation import EMPTY_TRANSLATION, Request, Translation
from flax_transformer.models.encoder_decoder import EncoderDecoder
from flax_transformer.parallel.mesh import num_batch_shards

ProgressFn: TypeAlias = Callable[[int], None]
"""Is told the number of lines that have been finished since the last call."""


def translate(
    model: EncoderDecoder | tuple[EncoderDecoder, ...],
    params: Parameters | tuple[Parameters, ...],
    tokenizer: TranslationTokenizer,
    lines: Sequence[str | Request],
    *,
    strategy: Strategy,
    combine: Combination = AVERAGE,
    precision: Precision | None = None,
    batch_tokens: int = 4096,
    max_source_length: int | None = None,
    limit_by_source: bool = True,
    with_alignment: bool = False,
    num_streams: int = 1,
    mesh: Mesh | None = None,
    progress: ProgressFn | None = None,
) -> list[list[Translation]]:
    """Translate each line; return its translations, best first, in the order of the lines.

    What a line becomes does not depend on the others; with :class:`Sampling` it depends on the
    number of the line. There are ``num_best`` translations of it,
    fewer where the search found fewer, and one, the empty one, of a line of white space. A line
    that is too long is cut, and a warning names its number, counted from 1.

    Args:
        model: the model, or several with one tokenizer: an ensemble, see :func:`~.generate`.
        params: its parameters, or those of each.
        tokenizer: the tokenizers of both languages.
        lines: text, a sentence each, or requests.
        strategy: how to search. A line gets at most ``strategy.max_length`` tokens, and never more
            than the model has positions.
        combine: how several models decode together.
        precision: of the weights; see :func:`~.prepare_to_decode`.
        batch_tokens: source positions of a batch at most, padding included.
        max_source_length: source tokens read at most, with the end token; None for as many as the
            model has positions.
        limit_by_source: a line of which S tokens are read, padding included, gets at most
            ``2 S + 10``, or what a ratio of the strategy to its source asks for where that is more.
        with_alignment: align the words of each translation to those of its line.
        num_streams: batches that are worked at together; 1 where devices share a mesh. On a CPU
            :func:`~.generate` parts a batch of sixteen rows or more itself, so that more than one
            helps smaller ones.
        mesh: devices that share the rows of each batch, and that ``params`` may lie on, all or in
            parts; every process of the mesh must call this with the same lines, and gets all
            results. None for one device.
        progress: called after each batch.

    Raises:
        InputError: a length is out of range, several streams are to share a mesh, or one text is
            given in place of several.
    """
    windows = translate_windows(
        model,
        params,
        tokenizer,
        lines,
        strategy=strategy,
        combine=combine,
        precision=precision,
        batch_tokens=batch_tokens,
        max_source_length=max_source_length,
        limit_by_source=limit_by_source,
        with_alignment=with_alignment,
        num_streams=num_streams,
        window_size=max(1, len(lines)),
        mesh=mesh,
        progress=progress,
    )
    return list(itertools.chain.from_iterable(windows))


def translate_windows(
    model: EncoderDecoder | tuple[EncoderDecoder, ...],
    params: Parameters | tuple[Parameters, ...],
    tokenizer: TranslationTokenizer,
    lines: Iterable[str | Request],
    *,
    strategy: Strategy,
    combine: Combination = AVERAGE,
    precision: Precision | None = None,
    batch_tokens: int = 4096,
    max_source_length: int | None = None,
    limit_by_source: bool = True,
    with_alignment: bool = False,
    num_streams: int = 1,
    window_size: int,
    mesh: Mesh | None = None,
    progress: ProgressFn | None = None,
) -> Iterator[list[list[Translation]]]:
    """Translate a stream; yield what :func:`translate` returns for each ``window_size`` lines.

    Only the lines of one window are held in memory, and they are sorted into batches.
    """
    check_texts(lines, "lines")
    if window_size < 1:
        raise InputError(f"window_size must be at least 1, got {window_size}.")
    if num_streams < 1:
        raise InputError(f"num_streams must be at least 1, got {num_streams}.")
    if num_streams > 1 and mesh is not None and mesh.size > 1:
        # Programs of several devices that start in different orders wait for each other forever.
        raise InputError(f"num_streams must be 1 on a mesh of several devices, got {num_streams}.")
    models = model if isinstance(model, tuple) else (model,)
    all_params: Any = params if isinstance(model, tuple) else (params,)
    max_length = resolve_max_source_length(
        max_source_length, min(each.config.max_positions for each in models)
    )
    translator: BatchTranslator | None = None
    requests = (Request(line) if isinstance(line, str) else line for line in lines)
    numbered = enumerate(requests, start=1)
    while window := list(itertools.islice(numbered, window_size)):
        sources = encode_sources(
            tokenizer.source,
            [request.text for _, request in window],
            max_length=max_length,
            first_line=window[0][0],
        )
        results = [[EMPTY_TRANSLATION] for _ in window]
        with_text = [index for index, (_, line) in enumerate(window) if clean_text(line.text)]
        _report(progress, len(window) - len(with_text))
        if with_text and translator is None:
            translator = make_batch_translator(
                models,
                all_params,
                tokenizer,
                strategy,
                combine=combine,
                precision=precision,
                limit_by_source=limit_by_source,
                with_alignment=with_alignment,
                mesh=mesh,
            )
        if translator is not None:
            batches = plan_batches(
                [len(sources[index]) for index in with_text],
                batch_tokens=batch_tokens,
                max_length=max_length,
                row_multiple=1 if mesh is None else num_batch_shards(mesh),
            )
            batches = [
                batch._replace(indices=[with_text[index] for index in batch.indices])
                for batch in batches
            ]
            translate_one = functools.partial(_translate_batch, translator, sources, window)
            for batch, of_batch in _in_streams(translate_one, batches, num_streams):
                for index, translations in zip(batch.indices, of_batch, strict=True):
                    results[index] = translations
                _report(progress, len(batch.indices))
        yield results


def _translate_batch(
    translator: BatchTranslator,
    sources: Sequence[Sequence[int]],
    window: Sequence[tuple[int, Request]],
    batch: PlannedBatch,
) -> list[list[Translation]]:
    return translator.translate_batch(
        batch,
        [sources[index] for index in batch.indices],
        [window[index][1] for index in batch.indices],
        [window[index][0] for index in batch.indices],
    )


def _in_streams(
    translate_one: Callable[[PlannedBatch], list[list[Translation]]],
    batches: Sequence[PlannedBatch],
    num_streams: int,
) -> Iterator[tuple[PlannedBatch, list[list[Translation]]]]:
    """Yield each batch with its translations, ``num_streams`` batches at work at a time."""
    if num_streams == 1:
        yield from ((batch, translate_one(batch)) for batch in batches)
        return
    with concurrent.futures.ThreadPoolExecutor(num_streams) as pool:
        yield from zip(batches, pool.map(translate_one, batches), strict=True)


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


def _report(progress: ProgressFn | None, num_lines: int) -> None:
    if progress is not None and num_lines:
        progress(num_lines)
