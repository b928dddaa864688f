"""Count the products of matrices of a function from its jaxpr: all devices, before XLA."""

import math

from jax.extend.core import ClosedJaxpr, Jaxpr


def count_jaxpr_flops(jaxpr: Jaxpr) -> int:
    """Two for each element of a product's result and each index that is summed over."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (left_contracting, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            summed = math.prod(left[dim] for dim in left_contracting)
            total += 2 * equation.outvars[0].aval.size * summed
        rounds = equation.params["length"] if equation.primitive.name == "scan" else 1
        assert equation.primitive.name != "while", "its rounds are not known"
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                if isinstance(inner, ClosedJaxpr):
                    total += rounds * count_jaxpr_flops(inner.jaxpr)
                elif isinstance(inner, Jaxpr):
                    total += rounds * count_jaxpr_flops(inner)
    return total
