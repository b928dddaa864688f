"""A plan as a table for people, and as JSON."""

import textwrap
from typing import Any

from flax_transformer.planning.plan import Plan

_NOTE = (
    "Memory and collectives are those of XLA's backend for CPUs. An accelerator's compiler fuses "
    "and schedules otherwise, computes 16-bit products without copies in 32 bits, and scatters "
    "gradients (reduce-scatter) where this one reduces them whole (all-reduce), which sends up to "
    "twice the bytes. Times are bounds at published peaks, not forecasts."
)
_WIDTH = 90


def format_plan(plan: Plan) -> str:
    """Return the table of a plan, several lines."""
    mesh = " x ".join(f"{size} {axis}" for axis, size in plan.mesh_shape.items())
    lines = [
        f"{plan.num_devices} x {plan.device.name} ({mesh})",
        f"{_describe_parameters(plan)}; batches of {plan.num_rows:,} rows of "
        f"{plan.row_length:,} positions, {plan.num_tokens:,} target positions",
        "",
        *_memory_lines(plan),
        "",
        *_work_lines(plan),
        "",
        *_traffic_lines(plan),
        "",
        *_time_lines(plan),
        "",
        *_notes(plan),
    ]
    return "\n".join(lines) + "\n"


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """Return all numbers of a plan: bytes, FLOPs and seconds, without units."""
    time = plan.time
    return {
        "device": plan.device.name,
        "mesh": dict(plan.mesh_shape),
        "num_devices": plan.num_devices,
        "product_dtype": plan.product_dtype,
        "num_parameters": plan.num_parameters,
        "num_trained": plan.num_trained,
        "batch": {
            "num_rows": plan.num_rows,
            "row_length": plan.row_length,
            "num_tokens": plan.num_tokens,
        },
        "memory_per_device": {**plan.memory._asdict(), "available": plan.device.memory_bytes},
        "fits": plan.fits,
        "flops": {
            "per_device": plan.device_flops,
            "all_devices": plan.device_flops * plan.num_devices,
            "model": plan.model_flops,
        },
        "collectives_per_device": {
            kind: traffic._asdict() for kind, traffic in plan.traffic.items()
        },
        "seconds": {
            **time._asdict(),
            "perfect_overlap": time.overlapped,
            "no_overlap": time.serial,
        },
        "model_flops_utilization": {
            "perfect_overlap": plan.utilization(time.overlapped),
            "no_overlap": plan.utilization(time.serial),
        },
        "unknown_loops": list(plan.unknown_loops),
    }


def format_bytes(count: float) -> str:
    """Write a number of bytes with three digits, in powers of 1000.

    >>> format_bytes(1_532_000_000), format_bytes(33e9), format_bytes(12)
    ('1.53 GB', '33.0 GB', '12.0 B')
    """
    return _with_unit(count, "B")


def format_seconds(seconds: float) -> str:
    """Write a time with three digits.

    >>> format_seconds(0.0123), format_seconds(75.0)
    ('12.3 ms', '75.0 s')
    """
    if seconds >= 1.0:
        return _with_unit(seconds, "s")
    milliseconds = 1e3 * seconds
    return (
        _with_unit(milliseconds, "ms") if milliseconds >= 1.0 else _with_unit(1e6 * seconds, "µs")
    )


def _with_unit(count: float, unit: str) -> str:
    prefixes = ["", "k", "M", "G", "T", "P", "E"]
    while count >= 999.5 and len(prefixes) > 1:
        count /= 1000
        prefixes.pop(0)
    num_decimals = 2 if count < 9.995 else 1 if count < 99.95 else 0
    return f"{count:.{num_decimals}f} {prefixes[0]}{unit}"


def _describe_parameters(plan: Plan) -> str:
    if plan.num_trained == plan.num_parameters:
        return f"{plan.num_parameters:,} parameters"
    return f"{plan.num_parameters:,} parameters, {plan.num_trained:,} of them trained"


def _memory_lines(plan: Plan) -> list[str]:
    memory = plan.memory
    share = memory.total / plan.device.memory_bytes
    rows = {
        "parameters": memory.parameters,
        "optimizer state": memory.optimizer_state,
        "gradients": memory.gradients,
        "activations, temporaries": memory.activations,
        "batch, counters": memory.other,
        "total": memory.total,
    }
    verdict = "fits" if plan.fits else "DOES NOT FIT"
    return [
        "memory of a device",
        *(f"  {name:26}{format_bytes(count):>12}" for name, count in rows.items()),
        f"  {'of the device':26}{format_bytes(plan.device.memory_bytes):>12}  "
        f"{verdict}: {share:.1%}",
    ]


def _work_lines(plan: Plan) -> list[str]:
    all_devices = plan.device_flops * plan.num_devices
    all_trained = plan.num_trained == plan.num_parameters
    rows = {
        "of a device": plan.device_flops,
        "of all devices": all_devices,
        "6 x parameters x tokens" if all_trained else "model, at most": plan.model_flops,
    }
    return [
        "FLOPs of a step (products of matrices)",
        *(f"  {name:26}{_with_unit(count, 'FLOP'):>12}" for name, count in rows.items()),
        f"  {'computed / model':26}{all_devices / plan.model_flops:>12.3f}",
    ]


def _traffic_lines(plan: Plan) -> list[str]:
    rows = [
        f"  {kind:26}{format_bytes(traffic.sent_bytes):>12}{traffic.num_runs:>10,}"
        f"{format_bytes(traffic.result_bytes):>16}"
        for kind, traffic in plan.traffic.items()
        if traffic.num_runs
    ]
    return [
        f"{'collectives of a device':28}{'sent':>12}{'runs':>10}{'results':>16}",
        *(rows or ["  none"]),
    ]


def _time_lines(plan: Plan) -> list[str]:
    time = plan.time
    rows = {
        "products of matrices": time.compute,
        "state read and written": time.state_traffic,
        "collectives": time.communication,
    }
    totals = {"with perfect overlap": time.overlapped, "without overlap": time.serial}
    return [
        "time of a step at the device's published peaks",
        *(f"  {name:26}{format_seconds(seconds):>12}" for name, seconds in rows.items()),
        *(
            f"  {name:26}{format_seconds(seconds):>12}  "
            f"{plan.num_tokens / seconds:,.0f} tokens/s, utilisation (MFU) "
            f"{plan.utilization(seconds):.1%}"
            for name, seconds in totals.items()
        ),
    ]


def _notes(plan: Plan) -> list[str]:
    notes = [_NOTE]
    if plan.product_dtype == "float32":
        notes.append("The model multiplies float32; the peak that was used is that of bfloat16.")
    if plan.unknown_loops:
        notes.append(
            f"The rounds of {len(plan.unknown_loops)} loops are not known; they were counted once: "
            f"{', '.join(plan.unknown_loops)}."
        )
    return [line for note in notes for line in textwrap.wrap(note, _WIDTH)]
