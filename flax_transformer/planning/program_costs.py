"""Count what a compiled program computes and sends, each loop as often as it runs.

XLA's own ``cost_analysis()`` counts the body of a loop once, so a scan over layers or over parts of
a batch is missing all but one of them; this walk multiplies by the trip counts.

Only programs of XLA's backend for CPUs are read in full: there all products are ``dot`` and
``convolution``. Programs of accelerators hand products to libraries (``custom-call``) and to
kernels of their own, which would not be counted.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from flax_transformer.planning.hlo import Computation, Instruction, Module, Shape
from flax_transformer.planning.replica_groups import first_group
from flax_transformer.planning.widened import is_widened

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)
"""The kinds of communication between devices."""

_MOVES = ("all-gather", "all-to-all", "collective-permute")


class Collective(NamedTuple):
    """One collective operation of one device.

    Attributes:
        kind: one of COLLECTIVES.
        result_bytes: bytes of its result on one device.
        group: the devices that take part, of the first of the groups that do so side by side.
    """

    kind: str
    result_bytes: int
    group: tuple[int, ...]

    @property
    def sent_bytes(self) -> float:
        """Bytes that one device sends by the ring algorithm, R bytes of result, n devices.

        All-gather and all-to-all ``R (n-1)/n``; reduce-scatter, whose input is n times its result,
        ``R (n-1)``; all-reduce, a reduce-scatter and an all-gather, ``2 R (n-1)/n``; permutation
        ``R``.

        >>> Collective("all-reduce", 100, (0, 1, 2, 3)).sent_bytes
        150.0
        """
        size = len(self.group)
        if self.kind == "collective-permute":
            return float(self.result_bytes * (size > 1))
        factor = {"all-reduce": 2.0, "reduce-scatter": float(size)}.get(self.kind, 1.0)
        return factor * self.result_bytes * (size - 1) / size


class ProgramCosts(NamedTuple):
    """What one device does in one run of a program.

    Attributes:
        flops: of products of matrices and convolutions, 2 for a multiplication and an addition.
            Nothing else is counted.
        collectives: how often each is run.
        unknown_loops: loops without a known trip count, whose bodies were counted once.
    """

    flops: int
    collectives: Mapping[Collective, int]
    unknown_loops: frozenset[str]


_NOTHING = ProgramCosts(0, {}, frozenset())


def count_costs(module: Module) -> ProgramCosts:
    """Count what each device does in one run of ``module``.

    Of the branches of a conditional the costliest is counted.

    >>> from flax_transformer.planning.hlo import parse_module
    >>> text = '''HloModule example
    ... %body (x: f32[5,5]) -> f32[5,5] {
    ...   %x = f32[5,5]{1,0} parameter(0)
    ...   ROOT %y = f32[5,5]{1,0} dot(%x, %x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
    ... }
    ...
    ... ENTRY %main (a: f32[5,5]) -> f32[5,5] {
    ...   %a = f32[5,5]{1,0} parameter(0)
    ...   ROOT %l = f32[5,5] while(%a), body=%body, backend_config={"known_trip_count":{"n":"7"}}
    ... }
    ... '''
    >>> count_costs(parse_module(text)).flops == 7 * (2 * 5 * 5 * 5)
    True
    """
    known: dict[str, ProgramCosts] = {}

    def costs_of(name: str) -> ProgramCosts:
        if name not in known:
            computation = module.computations.get(name, {})
            total = _NOTHING
            for instruction in computation.values():
                total = _add(total, _own_costs(instruction, computation, module))
                total = _add(total, called(instruction))
            known[name] = total
        return known[name]

    def called(instruction: Instruction) -> ProgramCosts:
        if instruction.opcode == "while":
            count = _trip_count(instruction)
            body = costs_of(_required(instruction, "body"))
            if count is None:
                return body._replace(unknown_loops=body.unknown_loops | {instruction.name})
            return _repeat(body, count)
        if instruction.opcode == "conditional":
            branches = [costs_of(name) for name in _branches(instruction)]
            return max(branches, key=lambda costs: (costs.flops, sent_bytes(costs.collectives)))
        if instruction.opcode in ("fusion", "async-start"):
            return costs_of(_required(instruction, "calls"))
        if instruction.opcode == "call":
            return costs_of(_required(instruction, "to_apply"))
        return _NOTHING

    return costs_of(module.entry)


def sent_bytes(collectives: Mapping[Collective, int]) -> float:
    """Add up the bytes that one device sends."""
    return sum(each.sent_bytes * times for each, times in collectives.items())


def _add(first: ProgramCosts, second: ProgramCosts) -> ProgramCosts:
    return ProgramCosts(
        first.flops + second.flops,
        Counter(first.collectives) + Counter(second.collectives),
        first.unknown_loops | second.unknown_loops,
    )


def _repeat(costs: ProgramCosts, count: int) -> ProgramCosts:
    collectives = {each: times * count for each, times in costs.collectives.items()}
    return costs._replace(flops=costs.flops * count, collectives=collectives)


def _own_costs(instruction: Instruction, computation: Computation, module: Module) -> ProgramCosts:
    """Return what an instruction itself costs, without the computations that it calls."""
    if instruction.opcode == "dot":
        return _NOTHING._replace(flops=_dot_flops(instruction, computation))
    if instruction.opcode == "convolution":
        return _NOTHING._replace(flops=_convolution_flops(instruction, computation))
    collective = _collective(instruction, computation, module)
    return _NOTHING if collective is None else _NOTHING._replace(collectives={collective: 1})


def _dot_flops(instruction: Instruction, computation: Computation) -> int:
    """Two for each element of the result and each index that is summed over."""
    left = _operand_shape(instruction, 0, computation)
    summed = instruction.attribute("lhs_contracting_dims") or ""
    dims = [left.dims[int(dim)] for dim in summed.split(",") if dim]
    return 2 * instruction.shapes[0].size * math.prod(dims)


def _convolution_flops(instruction: Instruction, computation: Computation) -> int:
    """Two for each element of the result and each element of one output feature's kernel."""
    kernel = _operand_shape(instruction, 1, computation)
    labels = _required(instruction, "dim_labels")  # such as b01f_01io->b01f
    output_dim = labels.split("_")[1].split("->")[0].index("o")
    return 2 * instruction.shapes[0].size * kernel.size // kernel.dims[output_dim]


def _collective(
    instruction: Instruction, computation: Computation, module: Module
) -> Collective | None:
    """Return the collective that an instruction is, or that it completes.

    An asynchronous one is several instructions and is counted at the last, ``-done``, which has the
    result; the devices stand at the first, ``-start``. There may be ``-update`` between them.
    """
    kind = instruction.opcode.removesuffix("-done")
    if kind not in COLLECTIVES:
        return None
    start = instruction
    while start.opcode.endswith(("-done", "-update")):
        start = computation[start.operands[0]]
    result_bytes = 0
    for index, shape in enumerate(instruction.shapes):
        is_narrow = _is_sent_in_16_bits(kind, index, start, computation, module)
        result_bytes += shape.num_bytes // (2 if is_narrow else 1)
    return Collective(kind, result_bytes, first_group(start.attributes, module.num_partitions))


def _is_sent_in_16_bits(
    kind: str, index: int, start: Instruction, computation: Computation, module: Module
) -> bool:
    """Tell whether an accelerator would send operand ``index`` in 16 bits, this backend in 32.

    Those are values that were converted just before and are only moved, and sums that XLA marks as
    promoted. Where it has joined sums into one the mark may be another's: there, too, only what was
    converted just before counts, which is too little for some.
    """
    is_promoted = (start.attribute("to_apply") or "").endswith("_promoted")
    if is_promoted and len(start.operands) == 1:
        return True
    is_candidate = is_promoted or kind in _MOVES
    return is_candidate and is_widened(start.operands[index], computation, module)


def _operand_shape(instruction: Instruction, index: int, computation: Computation) -> Shape:
    return computation[instruction.operands[index]].shapes[0]


def _trip_count(instruction: Instruction) -> int | None:
    match = re.search(r'"known_trip_count":\{"n":"(\d+)"', instruction.attributes)
    return int(match[1]) if match else None


def _branches(instruction: Instruction) -> list[str]:
    names = instruction.attribute("branch_computations")
    if names is None:
        names = ",".join(
            _required(instruction, key) for key in ("true_computation", "false_computation")
        )
    return [name.strip(" %") for name in names.split(",")]


def _required(instruction: Instruction, key: str) -> str:
    value = instruction.attribute(key)
    if value is None:
        raise ValueError(f"{instruction.opcode} {instruction.name} has no {key}")
    return value.removeprefix("%")
