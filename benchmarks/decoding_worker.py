"""A contender's process: reads its settings, then commands, and answers each by a line of JSON.

decode   decode all sentences:  {"seconds": ...}
outputs  the last ones:         {"tokens": ...}
report   what it took so far:   {"peak_memory_mib": ...}
"""

import concurrent.futures
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Source = TypeVar("Source")

Decoder = Callable[[], list[list[int]]]
"""Decode all sentences; return their outputs without end token."""


def main() -> None:
    """Serve until standard input ends."""
    # Only replies may go where the parent reads them, whatever a library prints.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    settings = json.loads(sys.stdin.readline())
    sources = json.loads((Path(settings["directory"]) / "sources.json").read_text())
    decode = make_decoder(settings, sources)
    outputs = decode()
    print(json.dumps({"ready": True}), file=replies, flush=True)
    for line in sys.stdin:
        answer: dict[str, Any] = {}
        match json.loads(line)["command"]:
            case "decode":
                started = time.perf_counter()
                outputs = decode()
                answer["seconds"] = time.perf_counter() - started
            case "outputs":
                answer["tokens"] = outputs
            case "report":
                peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                answer["peak_memory_mib"] = peak_kib / 1024
        print(json.dumps(answer), file=replies, flush=True)


def make_decoder(settings: dict[str, Any], sources: list[list[int]]) -> Decoder:
    """Import the contender's library, and only that, and load its model."""
    library, *options = settings["contender"].split("-")
    directory = Path(settings["directory"])
    if library == "ours":
        return make_ours(directory / "marian", options, settings, sources)
    if library == "ctranslate2":
        return make_ctranslate2(directory / "ctranslate2", options, settings, sources)
    return make_transformers(directory / "marian", settings, sources)


def make_ours(
    directory: Path, options: list[str], settings: dict[str, Any], sources: list[list[int]]
) -> Decoder:
    """Decode as ``flax_transformer.translate`` does, a stream in a thread."""
    import jax
    import numpy as np

    import flax_transformer as ft
    from flax_transformer.decoding.length_buckets import bucket_length
    from flax_transformer.decoding.prepare import prepare_to_decode
    from flax_transformer.evaluation.batching import make_length_mask, pad_rows
    from flax_transformer.parallel.threads import limit_threads

    precision, *threads = options
    if threads:
        limit_threads(int(threads[0].split("x")[1]))
    model, params, config, _, generation, _ = ft.load_pretrained(directory)
    model, prepared = prepare_to_decode(model, params, precision=precision)
    length, beam_size = settings["length"], settings["beam_size"]
    strategy = (
        ft.Greedy(max_length=length)
        if beam_size == 1
        else ft.BeamSearch(beam_size=beam_size, max_length=length)
    )

    def decode_batch(rows: list[list[int]]) -> list[list[int]]:
        longest = bucket_length(max(map(len, rows)), config.max_positions)
        size = {"num_rows": len(rows), "length": longest}
        hypotheses = ft.generate(
            model,
            prepared,
            pad_rows(rows, **size, pad_id=generation.pad_id),
            mask=make_length_mask(rows, **size),
            strategy=strategy,
            bos_id=generation.start_id,
            eos_id=generation.eos_ids[0],
            pad_id=generation.pad_id,
        )
        return np.asarray(jax.device_get(hypotheses.tokens))[:, 0].tolist()

    batches = split(sources, settings["batch_size"])

    def decode() -> list[list[int]]:
        if settings["num_streams"] == 1:
            return [tokens for batch in batches for tokens in decode_batch(batch)]
        with concurrent.futures.ThreadPoolExecutor(settings["num_streams"]) as pool:
            return [tokens for batch in pool.map(decode_batch, batches) for tokens in batch]

    return decode


def make_ctranslate2(
    directory: Path, options: list[str], settings: dict[str, Any], sources: list[list[int]]
) -> Decoder:
    """Decode by CTranslate2, in as many streams and threads as the options say."""
    import ctranslate2

    precision, threads = options
    streams, threads_each = map(int, threads.split("x"))
    translator = ctranslate2.Translator(
        str(directory),
        device="cpu",
        compute_type=precision,
        inter_threads=streams,
        intra_threads=threads_each,
    )
    rows = [[str(token) for token in source] for source in sources]
    batch_size, num_streams = settings["batch_size"], settings["num_streams"]

    def decode_batches(rows: list[list[str]]) -> list[list[int]]:
        results = translator.translate_batch(
            rows,
            beam_size=settings["beam_size"],
            max_decoding_length=settings["length"],
            max_input_length=0,
            max_batch_size=batch_size,
        )
        return [[int(token) for token in result.hypotheses[0]] for result in results]

    # It orders what it is given by length: batches of one stream are given one by one.
    parts = [rows] if num_streams > 1 else split(rows, batch_size)
    return lambda: [tokens for part in parts for tokens in decode_batches(part)]


def make_transformers(
    directory: Path, settings: dict[str, Any], sources: list[list[int]]
) -> Decoder:
    """Decode by ``MarianMTModel.generate``, the batches one after the other."""
    import torch
    from transformers import MarianMTModel

    model = MarianMTModel.from_pretrained(directory).eval()
    pad_id = model.config.pad_token_id

    def decode_batch(rows: list[list[int]]) -> list[list[int]]:
        longest = max(map(len, rows))
        inputs = torch.tensor([row + [pad_id] * (longest - len(row)) for row in rows])
        with torch.inference_mode():
            outputs = model.generate(
                inputs,
                attention_mask=(inputs != pad_id).long(),
                num_beams=settings["beam_size"],
                max_new_tokens=settings["length"],
                do_sample=False,
            )
        return outputs[:, 1:].tolist()

    batches = split(sources, settings["batch_size"])
    return lambda: [tokens for batch in batches for tokens in decode_batch(batch)]


def split(sources: list[Source], size: int) -> list[list[Source]]:
    """Split the sentences into batches of a size."""
    return [sources[start : start + size] for start in range(0, len(sources), size)]


if __name__ == "__main__":
    main()
