"""What the contenders' times say: rates, fractions of the machine's peak, ratios."""

import dataclasses
import os
import statistics
from typing import Any

from contenders import PRECISIONS, Contender, Precision
from training_shapes import Shape, model_flops


@dataclasses.dataclass
class Measurement:
    """What was seen of one contender.

    Attributes:
        contender: who it is.
        start_seconds: from the start of its process to the end of its first step.
        first_step_seconds: of the first step, which compiles.
        step_seconds: a step's time, at each turn the mean over the turn's steps.
        product_seconds: likewise of a product of two matrices.
        first_loss: of the first step, nats a target token.
        last_loss: of the last step.
        report: see :mod:`worker`.
        is_dead: its process has ended.
    """

    contender: Contender
    start_seconds: float = 0.0
    first_step_seconds: float = 0.0
    step_seconds: list[float] = dataclasses.field(default_factory=list)
    product_seconds: list[float] = dataclasses.field(default_factory=list)
    first_loss: float = 0.0
    last_loss: float = 0.0
    report: dict[str, Any] = dataclasses.field(default_factory=dict)
    is_dead: bool = False

    @property
    def median_seconds(self) -> float:
        """Median time of a step."""
        return statistics.median(self.step_seconds)


def peak_flops(measurements: list[Measurement], shape: Shape) -> dict[Precision, float]:
    """Return the rate of the products of matrices in each precision, FLOP/s.

    That of the fastest contender, by its median: libraries differ in their products, too.
    """
    flops = 2 * shape.product_size**3
    peaks: dict[Precision, float] = {}
    for each in measurements:
        precision = each.contender.precision
        rate = flops / statistics.median(each.product_seconds)
        peaks[precision] = max(rate, peaks.get(precision, 0.0))
    return peaks


def best_peers(measurements: list[Measurement]) -> dict[Precision, Measurement]:
    """Return the fastest contender of each precision that is not ours."""
    best: dict[Precision, Measurement] = {}
    for each in measurements:
        precision = each.contender.precision
        if each.contender.library != "ours" and (
            precision not in best or each.median_seconds < best[precision].median_seconds
        ):
            best[precision] = each
    return best


def to_json(
    name: str, shape: Shape, measurements: list[Measurement], load: float
) -> dict[str, Any]:
    """Return all figures, in seconds, bytes, FLOP/s and nats.

    Args:
        name: of the shape.
        shape: what was run.
        measurements: of each contender.
        load: processes that ran on the machine before the contenders did, in the last minute.
    """
    peaks = peak_flops(measurements, shape)
    peers = best_peers(measurements)
    contenders = [
        {
            "name": each.contender.name,
            "precision": each.contender.precision,
            "seconds_median": each.median_seconds,
            "seconds_min": min(each.step_seconds),
            "target_tokens_per_second": shape.num_target_tokens / each.median_seconds,
            "source_and_target_tokens_per_second": 2
            * shape.num_target_tokens
            / each.median_seconds,
            "fraction_of_peak": model_flops(shape)
            / each.median_seconds
            / peaks[each.contender.precision],
            "speed_against_best_peer": {
                precision: peer.median_seconds / each.median_seconds
                for precision, peer in peers.items()
            },
            "first_step_seconds": each.first_step_seconds,
            "start_seconds": each.start_seconds,
            "first_loss": each.first_loss,
            "last_loss": each.last_loss,
            "step_seconds": each.step_seconds,
            "product_seconds": each.product_seconds,
            **each.report,
        }
        for each in measurements
    ]
    return {
        "shape": {"name": name, **dataclasses.asdict(shape)},
        "load": load,
        "num_cores": len(os.sched_getaffinity(0)),
        "model_flops": model_flops(shape),
        "peak_flops": peaks,
        "contenders": contenders,
    }


def format_table(figures: dict[str, Any]) -> str:
    """Return a Markdown table of the figures, a line for each contender, below what they are of."""
    shape, peaks = figures["shape"], figures["peak_flops"]
    products = ", ".join(f"{each} {peaks[each] / 1e9:,.0f} GFLOP/s" for each in peaks)
    header = ["contender", "ms", "ms, min", "target tokens/s", "with source", "of peak", "MiB"]
    header += ["first step, s", "start, s", "parameters", "loss, first", "loss, last"]
    header += [f"x best {precision} peer" for precision in PRECISIONS]
    lines = [
        f"{shape['name']}: {shape['num_rows']} rows of {shape['sentences_per_row']} x "
        f"{shape['sentence_length']} source and as many target tokens; "
        f"{figures['model_flops'] / 1e9:,.1f} GFLOP a step; {figures['num_cores']} cores, load "
        f"{figures['load']:.1f} before the start; matrix products: {products}",
        "",
        f"| {' | '.join(header)} |",
        f"|---|{'---:|' * (len(header) - 1)}",
    ]
    lines += [f"| {' | '.join(_format_cells(each))} |" for each in figures["contenders"]]
    return "\n".join(lines)


def _format_cells(figures: dict[str, Any]) -> list[str]:
    memory = figures["device_memory_bytes"] or figures["memory_bytes"]
    parameters = figures["num_parameters"]
    ratios = figures["speed_against_best_peer"]
    return [
        figures["name"],
        f"{1e3 * figures['seconds_median']:.1f}",
        f"{1e3 * figures['seconds_min']:.1f}",
        f"{figures['target_tokens_per_second']:,.0f}",
        f"{figures['source_and_target_tokens_per_second']:,.0f}",
        f"{figures['fraction_of_peak']:.0%}",
        f"{memory / 2**20:,.0f}",
        f"{figures['first_step_seconds']:.1f}",
        f"{figures['start_seconds']:.1f}",
        "" if parameters is None else f"{parameters:,}",
        f"{figures['first_loss']:.2f}",
        f"{figures['last_loss']:.2f}",
        *(f"{ratios[each]:.2f}" if each in ratios else "" for each in PRECISIONS),
    ]
