"""Read the text of a compiled program (HLO) into computations and instructions.

The grammar is that of ``compiled.as_text()``: a computation is a line that ends in ``{``, a line
for each instruction, and ``}``; an instruction is ``name = shape opcode(operands), attributes``.
"""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

_COMPUTATION = re.compile(r"(?P<entry>ENTRY )?%?(?P<name>\S+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"\s+(?P<root>ROOT )?%?(?P<name>\S+) = (?P<rest>.*)$")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,<=]*)\]")
_NAME = re.compile(r"%([^\s,(){}]+)")

_BITS = {"pred": 8, "token": 0, "opaque": 0, "bf16": 16}
"""Bits of the types whose name does not begin with a letter and their number of bits."""


class Shape(NamedTuple):
    """An array's element type and dimensions."""

    dtype: str
    dims: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.dims)

    @property
    def num_bytes(self) -> int:
        """Bytes of all elements.

        >>> [Shape(dtype, (3, 4)).num_bytes for dtype in ("bf16", "f8e4m3fn", "c64")]
        [24, 12, 96]
        """
        bits = _BITS.get(self.dtype)
        if bits is None:
            digits = re.match(r"[a-z](\d+)", self.dtype)
            if digits is None:
                raise ValueError(f"unknown element type {self.dtype!r} in the compiled program")
            bits = int(digits[1])
        return math.ceil(self.size * bits / 8)


class Instruction(NamedTuple):
    """One instruction.

    Attributes:
        name: unique within its computation.
        shapes: of its result; several for a tuple.
        opcode: such as ``dot``.
        arguments: the text in parentheses: operands, or the number of a parameter.
        attributes: the text behind the parentheses.
        is_root: whether it is the result of its computation.
    """

    name: str
    shapes: tuple[Shape, ...]
    opcode: str
    arguments: str
    attributes: str
    is_root: bool

    @property
    def operands(self) -> tuple[str, ...]:
        """Names of instructions of the same computation."""
        return tuple(_NAME.findall(self.arguments))

    def attribute(self, key: str) -> str | None:
        """Return the value of ``key=value``, a word or what is in braces; None without it.

        >>> line = " %d = f32[2] dot(%a, %b), lhs_contracting_dims={1}, to_apply=%add"
        >>> [parse_instruction(line).attribute(key) for key in ("lhs_contracting_dims", "to_apply")]
        ['1', '%add']
        """
        match = re.search(rf"(?:^|[ ,]){key}=(?:\{{([^{{}}]*)\}}|([^\s,{{}}]+))", self.attributes)
        return None if match is None else (match[2] if match[1] is None else match[1])


Computation = Mapping[str, Instruction]
"""Instructions by name, in the order of the text."""


class Module(NamedTuple):
    """A compiled program of one device.

    Attributes:
        computations: by name.
        entry: the name of the one that is run.
        num_partitions: devices that run it together.
    """

    computations: Mapping[str, Computation]
    entry: str
    num_partitions: int


def parse_module(text: str) -> Module:
    """Read the text of a whole program.

    >>> text = '''HloModule example, num_partitions=2
    ...
    ... ENTRY %main (x: f32[2,3]) -> f32[3,2] {
    ...   %x = f32[2,3]{1,0} parameter(0)
    ...   ROOT %t = f32[3,2]{1,0} transpose(%x), dimensions={1,0}
    ... }
    ... '''
    >>> module = parse_module(text)
    >>> module.entry, module.num_partitions, module.computations["main"]["t"].operands
    ('main', 2, ('x',))
    """
    computations: dict[str, dict[str, Instruction]] = {}
    entry = ""
    current: dict[str, Instruction] | None = None
    for line in text.splitlines():
        if line.startswith("}"):
            current = None
        elif current is not None:
            instruction = parse_instruction(line)
            current[instruction.name] = instruction
        elif header := _COMPUTATION.match(line):
            current = computations.setdefault(header["name"], {})
            entry = header["name"] if header["entry"] else entry
    if not entry:
        raise ValueError("the text of the compiled program has no ENTRY computation")
    partitions = re.search(r"num_partitions=(\d+)", text.partition("\n")[0])
    return Module(computations, entry, int(partitions[1]) if partitions else 1)


def parse_instruction(line: str) -> Instruction:
    """Read one line of a computation.

    >>> parse_instruction("  ROOT %s = (f32[2]{0}, s32[]) sort(%a, %b), dimensions={0}").shapes
    (Shape(dtype='f32', dims=(2,)), Shape(dtype='s32', dims=()))
    """
    match = _INSTRUCTION.match(line)
    if match is None:
        raise ValueError(f"not an instruction of a compiled program: {line!r}")
    rest = match["rest"]
    # A tuple's shape has spaces and parentheses of its own; any other ends at the first space.
    end = _closing(rest, 0) if rest.startswith("(") else rest.index(" ")
    opcode, _, behind = rest[end:].lstrip().partition("(")
    close = _closing("(" + behind, 0) - 1
    return Instruction(
        name=match["name"],
        shapes=parse_shapes(rest[:end]),
        opcode=opcode,
        arguments=behind[: close - 1],
        attributes=behind[close:].lstrip(", "),
        is_root=match["root"] is not None,
    )


def parse_shapes(text: str) -> tuple[Shape, ...]:
    """Read the shape of an array, or the shapes within a tuple.

    >>> parse_shapes("bf16[8,128]{1,0:T(8,128)(2,1)}")
    (Shape(dtype='bf16', dims=(8, 128)),)
    """
    return tuple(
        Shape(dtype, tuple(int(dim.lstrip("<=")) for dim in dims.split(",") if dim))
        for dtype, dims in _ARRAY.findall(text)
    )


def _closing(text: str, start: int) -> int:
    """Return the index behind the parenthesis that closes the one at ``start``."""
    depth = 0
    for match in re.finditer(r"[()]", text[start:]):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return start + match.end()
    raise ValueError(f"unbalanced parentheses in the compiled program: {text[:80]!r}")
