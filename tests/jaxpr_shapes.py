"""What arrays and products a jaxpr has, those of its inner functions among them."""

from collections.abc import Iterator

from jax.extend.core import ClosedJaxpr, Jaxpr


def _equations(jaxpr: Jaxpr) -> Iterator:
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                if isinstance(inner, ClosedJaxpr):
                    yield from _equations(inner.jaxpr)
                elif isinstance(inner, Jaxpr):
                    yield from _equations(inner)


def array_shapes(jaxpr: Jaxpr) -> set[tuple[int, ...]]:
    """Return the shapes of everything that is read or made anywhere."""
    return {
        tuple(variable.aval.shape)
        for equation in _equations(jaxpr)
        for variable in (*equation.invars, *equation.outvars)
        if hasattr(variable.aval, "shape")
    }


def product_dtypes(jaxpr: Jaxpr) -> list[tuple[str, str, str]]:
    """Return, for each product of arrays, the dtypes of its operands and of its result."""
    return [
        tuple(str(variable.aval.dtype) for variable in (*equation.invars[:2], equation.outvars[0]))
        for equation in _equations(jaxpr)
        if equation.primitive.name == "dot_general"
    ]
