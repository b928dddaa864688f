"""Time and memory of the implementations of attention over the length of the input.

    python benchmarks/attention.py [--lengths 128 256 ...] [--causal] [--json]

Self-attention of one row, forward alone and with the gradients of queries, keys and values. The
implementations take turns, and of each the fastest turn counts, so that other work on the machine
counts less; beside it stands the least processor time of the process, which other work changes
less still. Memory is what the compiled program allocates besides its inputs and outputs; what
would allocate more than ``--max-gigabytes`` is not run, and has no time. In parentheses is the
growth from half the length. The allocator is set up as for training (``--default-allocator``: not).
"""

import argparse
import functools
import json
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from flax_transformer.array_types import Array
from flax_transformer.cli.allocator import restart_with_tuned_allocator
from flax_transformer.errors import InputError
from flax_transformer.nn.attention_implementations import (
    AttentionImplementation,
    attend,
    choose_program,
)
from flax_transformer.nn.attention_mask import AttentionMask
from flax_transformer.nn.block_sparse_attention import block_sparse_attention
from flax_transformer.nn.block_sparse_pattern import BlockSparseConfig

LENGTHS = (128, 256, 512, 1024, 2048, 4096, 8192, 16384)
PASSES = ("forward", "both passes")


def main() -> None:
    """Measure every length and print the table."""
    parser = argparse.ArgumentParser(description="Time and memory of attention over length.")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--implementations", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--dtype", default="float32", help="of queries, keys, values and products")
    parser.add_argument("--causal", action="store_true", help="attend to the past only")
    parser.add_argument("--turns", type=int, default=5, help="runs of each program")
    parser.add_argument("--max-gigabytes", type=float, default=4.0, help="of a program to run")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    arguments = parser.parse_args(restart_with_tuned_allocator(sys.argv[1:]))
    results = []
    for length in arguments.lengths:
        shape = (arguments.batch_size, length, arguments.heads, arguments.head_dim)
        implementations = make_implementations(shape, arguments.dtype, causal=arguments.causal)
        results += measure(
            {name: implementations[name] for name in arguments.implementations or implementations},
            shape,
            arguments.dtype,
            num_turns=arguments.turns,
            max_bytes=1e9 * arguments.max_gigabytes,
        )
    results = add_growth(results)
    print(json.dumps(results, indent=2) if arguments.json else format_table(results), flush=True)


def measure(
    implementations: dict[str, Callable[..., Array]],
    shape: tuple[int, int, int, int],
    dtype: str,
    *,
    num_turns: int,
    max_bytes: float,
) -> list[dict[str, Any]]:
    """Compile ``implementations`` for queries of ``shape``, ``[B, T, N, H]``, and time them."""
    keys = jax.random.split(jax.random.key(0), 3)
    arrays = [jax.random.normal(key, shape, dtype) for key in keys]
    results, runs = [], []
    for name, function in implementations.items():
        for direction in PASSES:
            differentiated = function if direction == "forward" else with_gradients(function)
            program = jax.jit(differentiated).lower(*arrays).compile()
            num_bytes = program.memory_analysis().temp_size_in_bytes
            result = {
                "implementation": name,
                "passes": direction,
                "length": shape[1],
                "temporary_bytes": num_bytes,
                "seconds": math.inf,
                "processor_seconds": math.inf,
            }
            results.append(result)
            if num_bytes <= max_bytes:
                runs.append((result, program))
    for _ in range(num_turns):
        for result, program in runs:
            start, processor_start = time.perf_counter(), time.process_time()
            jax.block_until_ready(program(*arrays))
            processor_seconds = time.process_time() - processor_start
            result["seconds"] = min(result["seconds"], time.perf_counter() - start)
            result["processor_seconds"] = min(result["processor_seconds"], processor_seconds)
    return [
        {name: None if value == math.inf else value for name, value in result.items()}
        for result in results
    ]


def make_implementations(
    shape: tuple[int, int, int, int], dtype: str, *, causal: bool
) -> dict[str, Callable[..., Array]]:
    """Return the implementations that this machine has, by name, as functions of three arrays."""
    mask = AttentionMask(causal=causal)
    names: list[AttentionImplementation] = ["xla", "chunked"]
    try:
        choose_program("cudnn", shape, shape[1], dtype, has_pairs=False, has_dropout=False)
        names.append("cudnn")
    except InputError:
        pass
    implementations: dict[str, Callable[..., Array]] = {
        name: functools.partial(attend, name, mask=mask) for name in names
    }
    implementations["block-sparse"] = functools.partial(
        block_sparse_attention, config=BlockSparseConfig(), causal=causal
    )
    return implementations


def with_gradients(function: Callable[..., Array]) -> Callable[..., tuple[Array, ...]]:
    """Return the gradients of the sum of squares of what ``function`` returns."""

    def sum_of_squares(*arrays: Array) -> Array:
        return jnp.square(function(*arrays).astype(jnp.float32)).sum()

    return jax.grad(sum_of_squares, argnums=(0, 1, 2))


def add_growth(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add to each result how much more time and memory it took than half its length did."""
    by_key = {(each["implementation"], each["passes"], each["length"]): each for each in results}

    def growth(each: dict[str, Any], name: str) -> float | None:
        half = by_key.get((each["implementation"], each["passes"], each["length"] / 2), {})
        if each[name] is None or not half.get(name):
            return None
        return each[name] / half[name]

    return [
        {
            **each,
            "time_growth": growth(each, "seconds"),
            "processor_time_growth": growth(each, "processor_seconds"),
            "memory_growth": growth(each, "temporary_bytes"),
        }
        for each in results
    ]


def format_table(results: list[dict[str, Any]]) -> str:
    """Return a Markdown table, a line for each program; growth is in parentheses."""
    header = ["implementation", "passes", "length", "ms", "processor, ms", "MB"]
    lines = [f"| {' | '.join(header)} |", f"|---|---|{'---:|' * (len(header) - 2)}"]
    order = {name: i for i, name in enumerate(dict.fromkeys(e["implementation"] for e in results))}

    def place(each: dict[str, Any]) -> tuple[int, int, int]:
        return order[each["implementation"]], PASSES.index(each["passes"]), each["length"]

    for each in sorted(results, key=place):
        cells = [
            each["implementation"],
            each["passes"],
            f"{each['length']:,}",
            format_cell(each["seconds"], 1e3, each["time_growth"]),
            format_cell(each["processor_seconds"], 1e3, each["processor_time_growth"]),
            format_cell(each["temporary_bytes"], 1e-6, each["memory_growth"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def format_cell(value: float | None, factor: float, growth: float | None) -> str:
    """Return a number with one decimal, and its growth; a dash for nothing."""
    if value is None:
        return "–"
    number = f"{factor * value:,.1f}"
    return number if growth is None else f"{number} ({growth:.2f})"


if __name__ == "__main__":
    main()
