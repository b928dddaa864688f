"""Compare decoding by this project with CTranslate2 and the transformers library.

    python benchmarks/decoding.py [--model small|base] [--batch N] [--beam N] [--length N] [...]

All decode the same sentences with the same random weights, each in a process of its own, and take
turns, so that other work on the machine hits all alike. A turn is at least 32 sentences, so that it
takes much longer than idle cores take to wake up. No output ends before ``--length`` tokens.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from decoding_models import MODELS, make_sources, write_models

CONTENDERS = (
    "ours-float32",
    "ours-bfloat16",
    "ours-int8",
    "ours-float32-1x1",
    "ours-int8-1x1",
    "ctranslate2-float32-1x1",
    "ctranslate2-float32-1x2",
    "ctranslate2-float32-2x1",
    "ctranslate2-int8-1x1",
    "ctranslate2-int8-1x2",
    "ctranslate2-int8-2x1",
    "transformers-float32",
)
"""With the number of streams and of threads of each; ours without take a thread for each core."""

QUIET_LOAD = 0.5
FEWEST_SENTENCES = 32
"""Of a turn."""

PAUSE_SECONDS = 0.3
"""Before each turn: threads of the last contender spin for up to 0.2 s, waiting for work."""


class Worker:
    """A contender's process, which answers each command by a line of JSON."""

    def __init__(self, arguments: argparse.Namespace, name: str, directory: Path) -> None:
        """Start it; it loads its model and decodes once."""
        self.name = name
        self.seconds: list[float] = []
        settings = {
            "contender": name,
            "directory": str(directory),
            "beam_size": arguments.beam,
            "length": arguments.length,
            "batch_size": arguments.batch,
            "num_streams": arguments.streams,
        }
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("decoding_worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._send(settings)

    def ask(self, command: str) -> dict[str, Any]:
        """Send a command; return the answer."""
        return self._send({"command": command})

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _send(self, message: dict[str, Any]) -> dict[str, Any]:
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the process must have pipes")
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"decoding.py: {self.name} has ended")
        return dict(json.loads(answer))


def main() -> None:
    """Run the comparison of the command line and print its table."""
    arguments = parse_arguments()
    load = os.getloadavg()[0]
    if load > QUIET_LOAD:
        print(f"the machine is busy (load {load:.1f}): see README", file=sys.stderr)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        write_models(path, MODELS[arguments.model])
        num_batches = -(-FEWEST_SENTENCES // (arguments.batch * arguments.streams))
        num_sources = num_batches * arguments.batch * arguments.streams
        sources = make_sources(MODELS[arguments.model], num_sources)
        (path / "sources.json").write_text(json.dumps(sources))
        workers = []
        for name in arguments.contenders:
            print(f"{name}: start and first batch", file=sys.stderr)
            workers.append(Worker(arguments, name, path))
        for turn in range(arguments.turns):
            for worker in workers if turn % 2 == 0 else workers[::-1]:
                time.sleep(PAUSE_SECONDS)
                worker.seconds.append(worker.ask("decode")["seconds"])
        rows = make_rows(arguments, workers)
        for worker in workers:
            worker.close()
    figures = {**vars(arguments), "load": load, "rows": rows}
    print(json.dumps(figures, indent=2) if arguments.json else format_table(rows))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Compare decoding.")
    parser.add_argument("--model", choices=MODELS, default="small")
    parser.add_argument(
        "--batch", type=int, default=32, metavar="N", help="sentences decoded together"
    )
    parser.add_argument("--beam", type=int, default=4, metavar="N", help="1 is greedy decoding")
    parser.add_argument("--length", type=int, default=32, metavar="N", help="tokens of an output")
    parser.add_argument("--streams", type=int, default=1, metavar="N", help="batches at a time")
    parser.add_argument("--turns", type=int, default=5, metavar="N", help="turns of each")
    parser.add_argument(
        "--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), metavar="NAME"
    )
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    return parser.parse_args()


def make_rows(arguments: argparse.Namespace, workers: list[Worker]) -> list[dict[str, Any]]:
    """Return the figures of each contender; outputs are compared with those of the first."""
    outputs = [worker.ask("outputs")["tokens"] for worker in workers]
    num_tokens = sum(map(len, outputs[0]))
    return [
        {
            "contender": worker.name,
            "tokens_per_second": num_tokens / sorted(worker.seconds)[len(worker.seconds) // 2],
            "best_tokens_per_second": num_tokens / min(worker.seconds),
            "same_outputs": sum(a == b for a, b in zip(tokens, outputs[0], strict=True))
            / len(tokens),
            "peak_memory_mib": worker.ask("report")["peak_memory_mib"],
        }
        for worker, tokens in zip(workers, outputs, strict=True)
    ]


def format_table(rows: list[dict[str, Any]]) -> str:
    """Return the figures as a table."""
    head = f"{'contender':26} {'tokens/s':>9} {'best':>9} {'same':>6} {'MiB':>6}"
    return "\n".join(
        [head]
        + [
            f"{row['contender']:26} {row['tokens_per_second']:9.0f} "
            f"{row['best_tokens_per_second']:9.0f} {row['same_outputs']:6.0%} "
            f"{row['peak_memory_mib']:6.0f}"
            for row in rows
        ]
    )


if __name__ == "__main__":
    main()
