"""``plan``: what a training step would take on a mesh of devices, without having them."""

import argparse
import json
import sys
from collections.abc import Sequence

import jax

from flax_transformer.cli.command_parser import CommandParser, UsageError, suggest, to_path
from flax_transformer.cli.overrides import apply_overrides
from flax_transformer.config import read_config_file
from flax_transformer.errors import InputError
from flax_transformer.parallel.mesh import MESH_AXES, MeshConfig, make_mesh
from flax_transformer.planning.devices import DEVICES, find_device
from flax_transformer.planning.plan import make_plan
from flax_transformer.planning.report import format_plan, plan_to_json


def main(argv: list[str]) -> int:
    """Print the plan that ``argv`` asks for; return the exit status."""
    parser = CommandParser(
        prog="flax-transformer plan",
        usage="flax-transformer plan --config FILE --mesh AXIS=SIZE,... [--device NAME] [--json] "
        "[--SECTION.FIELD VALUE ...]",
        description="Compile the training step of a config for simulated devices, and print what "
        "it takes of memory, work, traffic and time. Nothing is allocated.",
        epilog="Any field of the config can be set, as for train.",
        formatter_class=argparse.HelpFormatter,
    )
    parser.add_argument("--config", type=to_path, help="a file of configs/")
    parser.add_argument(
        "--mesh", type=parse_mesh, help=f"sizes of {', '.join(MESH_AXES)}; 1 where left out"
    )
    parser.add_argument(
        "--device", default="h200", help=f"{', '.join(DEVICES)} (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON: bytes, FLOPs, seconds")
    arguments, overrides = parser.parse_known_args(argv)
    for name in ("config", "mesh"):
        if getattr(arguments, name) is None:
            raise UsageError(f"--{name} must be given")
    try:
        device = find_device(arguments.device)
    except InputError as error:
        raise UsageError(f"--{error}") from None
    config = apply_overrides(read_config_file(arguments.config), overrides)
    sizes: MeshConfig = arguments.mesh
    num_devices = sizes.data * sizes.fsdp * sizes.tensor
    mesh = make_mesh(sizes, simulate_devices(num_devices))
    print(f"compiling for {num_devices} simulated devices ...", file=sys.stderr, flush=True)
    plan = make_plan(config, mesh, device)
    if arguments.json:
        print(json.dumps(plan_to_json(plan), indent=2))
    else:
        print(format_plan(plan), end="")
    return 0


def parse_mesh(text: str) -> MeshConfig:
    """Read ``data=2,fsdp=4,tensor=1``; an axis that is left out is 1.

    >>> parse_mesh("fsdp=4,tensor=2")
    MeshConfig(data=1, fsdp=4, tensor=2)
    """
    sizes = dict.fromkeys(MESH_AXES, 1)
    given: set[str] = set()
    for part in text.split(","):
        axis, _, size = part.partition("=")
        if axis not in MESH_AXES:
            raise argparse.ArgumentTypeError(
                f"must set the axes {', '.join(MESH_AXES)}, got {part!r}{suggest(axis, MESH_AXES)}"
            )
        if axis in given:
            raise argparse.ArgumentTypeError(f"must set {axis} once, got {text!r}")
        if not size.isdecimal() or int(size) < 1:
            raise argparse.ArgumentTypeError(
                f"must give {axis} a number of at least 1 (there are no devices to fill), "
                f"got {part!r}"
            )
        given.add(axis)
        sizes[axis] = int(size)
    return MeshConfig(**sizes)


def simulate_devices(count: int) -> Sequence[jax.Device]:
    """Return ``count`` simulated devices of the CPU.

    Raises:
        InputError: JAX has started already, with fewer.
    """
    try:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # JAX has started; it may have enough devices
        pass
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise InputError(
            f"mesh must have at most the {len(devices)} devices that JAX has been started with, "
            f"got {count}."
        )
    return devices[:count]
