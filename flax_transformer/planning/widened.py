"""Find values of 16 bits that XLA's backend for CPUs keeps in 32.

That backend computes in float32 what a program computes in bfloat16 or float16, and collectives
that only move such values move them in twice their size. An accelerator moves the 16 bits. In the
compiled program such a value is one that was just converted from 16 bits, copied or laid out anew.
"""

from flax_transformer.planning.hlo import Computation, Instruction, Module

_MOVES = (
    "all-gather",
    "all-to-all",
    "bitcast",
    "collective-permute",
    "copy",
    "reshape",
    "slice",
    "transpose",
)
_NARROW = ("bf16", "f16")


def is_widened(name: str, computation: Computation, module: Module) -> bool:
    """Tell whether the float32 array ``name`` was converted from 16 bits and only moved since.

    >>> from flax_transformer.planning.hlo import parse_module
    >>> text = '''HloModule example
    ... ENTRY %main (x: bf16[2,3]) -> f32[3,2] {
    ...   %x = bf16[2,3]{1,0} parameter(0)
    ...   %wide = f32[2,3]{1,0} convert(%x)
    ...   ROOT %turned = f32[3,2]{1,0} transpose(%wide), dimensions={1,0}
    ... }
    ... '''
    >>> module = parse_module(text)
    >>> is_widened("turned", module.computations["main"], module)
    True
    """
    value: Instruction | None = computation[name]
    # Outwards: from a fusion's result into it, and from its parameters to what it was given.
    callers: list[tuple[Instruction, Computation]] = []
    while value is not None:
        if value.opcode == "convert":
            source = computation[value.operands[0]].shapes[0].dtype
            return value.shapes[0].dtype == "f32" and source in _NARROW
        if value.opcode in _MOVES and len(value.operands) == 1:
            value = computation[value.operands[0]]
        elif value.opcode == "fusion":
            callers.append((value, computation))
            computation = module.computations[(value.attribute("calls") or "").removeprefix("%")]
            value = next((each for each in computation.values() if each.is_root), None)
        elif value.opcode == "parameter" and callers:
            fusion, computation = callers.pop()
            value = computation[fusion.operands[int(value.arguments)]]
        else:
            return False
    return False
