import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_transformer.nn.products import einsum, written_gradients

# Every product of the models, of operands whose sizes are odd and differ.
SIZES = {"b": 2, "t": 5, "s": 7, "n": 3, "h": 11, "d": 13, "f": 17, "v": 19}
EQUATIONS = (
    "btd,df->btf",
    "btd,dnh->btnh",
    "btnh,nhd->btd",
    "btnh,bsnh->bnts",
    "bnts,bsnh->btnh",
    "btd,vd->btv",
    "bnts,bnsh->bnth",
    "bd,df->bf",
    "d,df->f",
)


def draw_operands(equation, sizes=SIZES):
    names = equation.split("->")[0].split(",")
    return [
        jax.random.normal(jax.random.key(seed), tuple(sizes[axis] for axis in axes))
        for seed, axes in enumerate(names)
    ]


def value_and_gradients(equation, operands, dtype, result_dtype="float32"):
    """Return the product, and the gradients of the sum of its squares."""

    def sum_of_squares(left, right):
        result = einsum(equation, left, right, dtype=dtype, result_dtype=result_dtype)
        return jnp.square(result.astype(jnp.float32)).sum(), result

    (_, result), gradients = jax.jit(
        jax.value_and_grad(sum_of_squares, argnums=(0, 1), has_aux=True)
    )(*operands)
    return result, gradients


@pytest.mark.parametrize("equation", EQUATIONS)
@pytest.mark.parametrize(("dtype", "precision"), [("bfloat16", 2**-7), ("float16", 2**-10)])
def test_narrow_products_and_their_gradients_are_those_of_float32_rounded(
    equation, dtype, precision
):
    operands = draw_operands(equation)
    actual = jax.tree.leaves(value_and_gradients(equation, operands, dtype))
    expected = jax.tree.leaves(value_and_gradients(equation, operands, "float32"))
    for array, other in zip(actual, expected, strict=True):
        assert array.dtype == jnp.float32
        np.testing.assert_allclose(array, other, atol=4 * precision * float(jnp.abs(other).max()))


@pytest.mark.parametrize("equation", EQUATIONS)
def test_no_product_has_wide_operands(equation):
    def dots(jaxpr):
        for eqn in jaxpr.eqns:
            if eqn.primitive.name == "dot_general":
                yield eqn
            for inner in jax.tree.leaves(
                eqn.params, is_leaf=lambda leaf: hasattr(leaf, "jaxpr") or hasattr(leaf, "eqns")
            ):
                if hasattr(inner, "jaxpr") or hasattr(inner, "eqns"):
                    yield from dots(getattr(inner, "jaxpr", inner))

    def loss(left, right):
        product = einsum(equation, left, right, dtype="bfloat16", result_dtype="float32")
        return jnp.square(product).sum()

    jaxpr = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(*draw_operands(equation))
    found = list(dots(jaxpr.jaxpr))
    assert len(found) == 3
    for eqn in found:
        assert {operand.aval.dtype for operand in eqn.invars} == {jnp.dtype("bfloat16")}
        assert eqn.outvars[0].aval.dtype == jnp.float32


def test_sums_are_taken_in_32_bits():
    # In bfloat16, 256 + 1 is 256.
    ones = jnp.ones((1, 1000))
    result = einsum("ab,cb->ac", ones, ones, dtype="bfloat16", result_dtype="float32")
    assert float(result[0, 0]) == 1000.0


def test_gradients_have_the_dtypes_of_the_operands():
    left, right = draw_operands("btd,df->btf")
    operands = left.astype(jnp.bfloat16), right
    result, gradients = value_and_gradients("btd,df->btf", operands, "bfloat16", "bfloat16")
    assert result.dtype == jnp.bfloat16
    assert [gradient.dtype for gradient in gradients] == [jnp.bfloat16, jnp.float32]


def test_float32_is_the_plain_product():
    operands = draw_operands("btd,df->btf")
    result, _ = value_and_gradients("btd,df->btf", operands, "float32")
    np.testing.assert_array_equal(result, jax.jit(jnp.matmul)(*operands))


@pytest.mark.parametrize("equation", EQUATIONS)
def test_written_gradients_are_those_of_automatic_differentiation(equation):
    operands = draw_operands(equation)
    expected = jax.tree.leaves(value_and_gradients(equation, operands, "float32"))
    with written_gradients():
        actual = jax.tree.leaves(value_and_gradients(equation, operands, "float32"))
    for array, other in zip(actual, expected, strict=True):
        assert array.dtype == jnp.float32
        np.testing.assert_allclose(array, other, rtol=1e-5, atol=1e-5 * float(other.std()))


@pytest.mark.parametrize(
    ("num_tokens", "expected"),
    [
        # Of many tokens the states, and the table's gradient; of few the logits' cotangent.
        (61, [SIZES["v"] * SIZES["d"], 61 * SIZES["d"]]),
        (3, [3 * SIZES["v"]]),
    ],
)
def test_a_gradient_of_a_table_is_made_in_the_order_that_copies_less(num_tokens, expected):
    sizes = SIZES | {"b": 1, "t": num_tokens}

    def loss(states, table):
        product = einsum("btd,vd->btv", states, table, dtype="float32", result_dtype="float32")
        return jnp.square(product).sum()

    with written_gradients():
        jaxpr = jax.make_jaxpr(jax.grad(loss, argnums=1))(*draw_operands("btd,vd->btv", sizes))
    copied = [
        equation.invars[0].aval.size
        for equation in jaxpr.jaxpr.eqns
        if equation.primitive.name == "transpose"
    ]
    assert sorted(copied) == expected


def test_axes_side_by_side_in_all_arrays_are_one_axis_of_the_product():
    def loss(inputs, kernel):
        product = einsum("btd,dnh->btnh", inputs, kernel, dtype="bfloat16", result_dtype="float32")
        return jnp.square(product).sum()

    jaxpr = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(*draw_operands("btd,dnh->btnh"))
    text = str(jaxpr)
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert len(products) == 3
    # Rows, inputs and outputs: each product is one of two matrices.
    rows, inputs, outputs = SIZES["b"] * SIZES["t"], SIZES["d"], SIZES["n"] * SIZES["h"]
    shapes = (rows, outputs), (rows, inputs), (inputs, outputs)
    for line, shape in zip(products, shapes, strict=True):
        assert f"f32[{shape[0]},{shape[1]}]" in line


def test_only_written_gradients_have_no_forward_mode():
    operands = draw_operands("btd,df->btf")

    def product(left, right):
        return einsum("btd,df->btf", left, right, dtype="float32", result_dtype="float32")

    _, tangent = jax.jvp(product, operands, operands)
    np.testing.assert_allclose(tangent, 2 * product(*operands), rtol=1e-5)
    with written_gradients(), pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(product, operands, operands)


def test_gradients_within_a_scan_and_over_devices_are_the_same():
    left, right = draw_operands("btd,df->btf", SIZES | {"b": 8, "f": SIZES["d"]})
    mesh = jax.make_mesh((8,), ("b",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("b"))

    def loss(left, right):
        def layer(states, _):
            product = einsum("btd,df->btf", states, right, dtype="bfloat16", result_dtype="float32")
            return jnp.tanh(product), None

        return jnp.square(jax.lax.scan(layer, left, None, length=3)[0]).sum()

    gradient = jax.jit(jax.grad(loss, argnums=1))
    alone, spread = gradient(left, right), gradient(jax.device_put(left, rows), right)
    np.testing.assert_allclose(spread, alone, rtol=1e-4, atol=1e-4)
