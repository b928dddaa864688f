"""Weak scaling of the training step on 1, 2, 4 and 8 simulated devices.

    python benchmarks/scaling.py [--axis data|fsdp|tensor] [--json] [--plot scaling.png]

Each device has the same number of rows, so n devices have n times the work. Simulated devices share
the cores of one machine: the step takes about n times as long, and what it takes beyond that, the
overhead, is what splitting the work has cost. How fast real devices talk is not measured; how much
they have to say, the bytes of the collectives, is counted from the compiled program. The time is
that of the fastest of ten steps, so that other work on the machine counts less.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flax_transformer.config import ExperimentConfig
from flax_transformer.data.batch import TextBatch
from flax_transformer.data.pipeline import PipelineConfig
from flax_transformer.data.tokenizer import TokenizerConfig
from flax_transformer.models.transformer_config import TransformerConfig
from flax_transformer.parallel.mesh import MESH_AXES, MeshConfig, make_mesh, place_rows
from flax_transformer.planning.compiled_step import compile_step
from flax_transformer.planning.hlo import parse_module
from flax_transformer.planning.plan import sum_traffic
from flax_transformer.planning.program_costs import COLLECTIVES, count_costs
from flax_transformer.training.training_config import TrainingConfig

DEVICE_COUNTS = (1, 2, 4, 8)
ROWS_PER_DEVICE = 8
ROW_LENGTH = 64
NUM_STEPS = 10


def main() -> None:
    """Measure every number of devices in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(description="Weak scaling on simulated devices.")
    parser.add_argument("--axis", choices=MESH_AXES, default="data", help="the axis that grows")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    parser.add_argument("--plot", type=Path, help="PNG file to write; needs matplotlib")
    parser.add_argument("--measure", type=int, metavar="N", help="measure N devices, print JSON")
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.axis, arguments.measure)))
        return
    results = [measure_in_process(arguments.axis, count) for count in DEVICE_COUNTS]
    if arguments.plot:
        plot(results, arguments.axis, arguments.plot)
    print(json.dumps(results, indent=2) if arguments.json else format_table(results), flush=True)


def measure_in_process(axis: str, num_devices: int) -> dict[str, Any]:
    """Return the result of :func:`measure` in a new process: JAX counts its devices only once."""
    command = [sys.executable, __file__, "--axis", axis, "--measure", str(num_devices)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def measure(axis: str, num_devices: int) -> dict[str, Any]:
    """Compile the training step for ``num_devices`` along ``axis``, count it, and time it."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", num_devices)
    sizes = dict.fromkeys(MESH_AXES, 1) | {axis: num_devices}
    mesh = make_mesh(MeshConfig(**sizes))
    step = compile_step(make_config(num_devices), mesh)
    costs = count_costs(parse_module(step.executable.as_text() or ""))
    state = step.program.init_state(jax.random.key(0))
    rows = np.arange(step.batch_shape.num_rows * ROW_LENGTH, dtype=np.int32) % 1000
    rows = rows.reshape(step.batch_shape)
    ones = np.ones_like(rows)
    positions = np.broadcast_to(np.arange(ROW_LENGTH, dtype=np.int32), rows.shape)
    batch = TextBatch(
        tokens=rows,
        segment_ids=ones,
        positions=positions,
        labels=rows,
        is_predicted=ones,
        pair_ids=rows,
    )
    placed = place_rows(batch, mesh)
    seconds = []
    for _ in range(NUM_STEPS + 1):
        start = time.perf_counter()
        state, _ = step.executable(state, placed)
        jax.block_until_ready(state)
        seconds.append(time.perf_counter() - start)
    traffic = sum_traffic(costs.collectives)
    return {
        "num_devices": num_devices,
        "num_tokens": step.batch_shape.num_rows * ROW_LENGTH,
        "seconds": min(seconds[1:]),
        "device_flops": costs.flops,
        "sent_bytes": {kind: traffic[kind].sent_bytes for kind in COLLECTIVES},
    }


def make_config(num_devices: int) -> ExperimentConfig:
    """Return a language model of 2 layers, and batches of ROWS_PER_DEVICE rows a device."""
    return ExperimentConfig(
        model=TransformerConfig(
            architecture="decoder_only",
            num_encoder_layers=0,
            num_decoder_layers=2,
            model_dim=256,
            num_heads=8,
            feed_forward_dim=1024,
            max_positions=ROW_LENGTH,
        ),
        tokenizer=TokenizerConfig(vocab_size=4000),
        pipeline=PipelineConfig(
            batch_tokens=num_devices * ROWS_PER_DEVICE * ROW_LENGTH, max_length=ROW_LENGTH
        ),
        training=TrainingConfig(num_steps=1000),
    )


def overhead(results: list[dict[str, Any]], index: int) -> float:
    """Return the time of a step over that of the same work done one device after the other."""
    one, this = results[0], results[index]
    return this["seconds"] / (this["num_devices"] / one["num_devices"] * one["seconds"])


def format_table(results: list[dict[str, Any]]) -> str:
    """Return a Markdown table, a line for each number of devices."""
    kinds = [kind for kind in COLLECTIVES if any(each["sent_bytes"][kind] for each in results)]
    header = ["devices", "tokens", "step, ms", "overhead", "MFLOP/device"]
    header += [f"{kind}, MB sent/device" for kind in kinds]
    lines = [f"| {' | '.join(header)} |", f"|{'---:|' * len(header)}"]
    for index, each in enumerate(results):
        cells = [
            f"{each['num_devices']}",
            f"{each['num_tokens']:,}",
            f"{1e3 * each['seconds']:.1f}",
            f"{overhead(results, index):.2f}",
            f"{each['device_flops'] / 1e6:,.0f}",
            *(f"{each['sent_bytes'][kind] / 1e6:.2f}" for kind in kinds),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(results: list[dict[str, Any]], axis: str, path: Path) -> None:
    """Draw the time of a step and the bytes of the collectives over the number of devices."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    counts = [each["num_devices"] for each in results]
    ticks = range(len(counts))
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    left.plot(ticks, [1e3 * each["seconds"] for each in results], "o-", label="measured")
    alone = [1e3 * count * results[0]["seconds"] for count in counts]
    left.plot(ticks, alone, "--", color="gray", label="n × one device")
    left.set(xlabel=f"simulated devices ({axis})", ylabel="step, ms", ylim=(0, None))
    left.legend()
    below = np.zeros(len(counts))
    for kind in COLLECTIVES:
        sent = np.array([each["sent_bytes"][kind] / 1e6 for each in results])
        if sent.any():
            right.bar(ticks, sent, bottom=below, label=kind)
            below += sent
    right.set(xlabel=f"simulated devices ({axis})", ylabel="sent by a device, MB a step")
    right.legend()
    for axes in (left, right):
        axes.set_xticks(ticks, [str(count) for count in counts])
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
