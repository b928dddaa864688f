import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from flax_transformer.planning.hlo import parse_module
from flax_transformer.planning.program_costs import Collective, count_costs, sent_bytes

LAYERS, ROWS, DIM, HIDDEN = 7, 16, 6, 10


def costs_of(text):
    return count_costs(parse_module(text))


def compile_layers(dtype):
    """Compile the gradients of a scan of two-matrix layers, on 4 parts of rows x 2 of weights."""
    mesh = jax.make_mesh((4, 2), ("data", "tensor"), axis_types=(AxisType.Auto,) * 2)

    def loss(inputs, first, second):
        def layer(states, weights):
            return jax.nn.relu(states @ weights[0]) @ weights[1], None

        outputs, _ = jax.lax.scan(layer, inputs, (first, second))
        return jnp.sum(outputs.astype(jnp.float32) ** 2)

    def array(shape, *spec):
        sharding = NamedSharding(mesh, PartitionSpec(*spec))
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    arguments = (
        array((ROWS, DIM), "data"),
        array((LAYERS, DIM, HIDDEN), None, None, "tensor"),
        array((LAYERS, HIDDEN, DIM), None, "tensor"),
    )
    return jax.jit(jax.grad(loss, argnums=(1, 2))).lower(*arguments).compile()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_scan_over_devices_is_counted_by_hand(dtype):
    costs = costs_of(compile_layers(dtype).as_text())
    # Two products a layer, each three times: forward, and for the gradients of both its factors.
    assert costs.flops == LAYERS * 6 * 2 * (ROWS // 4) * DIM * (HIDDEN // 2)
    itemsize = jnp.dtype(dtype).itemsize
    states = ROWS // 4 * DIM * itemsize
    # Partial sums of states between the two parts of the hidden layer, forward and backward, and of
    # both matrices' gradients between the four parts of the rows.
    # These are joined, and so counted as this backend sends them, in 32 bits.
    weights = 2 * DIM * HIDDEN // 2 * 4
    of_kind = {each: times for each, times in costs.collectives.items() if each.result_bytes > 8}
    assert of_kind == {
        Collective("all-reduce", states, (0, 1)): 2 * LAYERS,
        Collective("all-reduce", weights, (0, 2, 4, 6)): LAYERS,
    }
    assert not costs.unknown_loops


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_a_gathered_weight_counts_in_the_type_it_is_computed_in(dtype):
    mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec("fsdp"))
    inputs = jax.ShapeDtypeStruct((16, 24), dtype, sharding=split)
    weight = jax.ShapeDtypeStruct((24, 40), jnp.float32, sharding=split)

    def project(inputs, weight):
        outputs = inputs @ weight.astype(dtype)
        return jax.lax.with_sharding_constraint(outputs, split)

    costs = costs_of(jax.jit(project).lower(inputs, weight).compile().as_text())
    assert costs.flops == 2 * (16 // 8) * 24 * 40
    assert costs.collectives == {
        Collective("all-gather", 24 * 40 * jnp.dtype(dtype).itemsize, tuple(range(8))): 1
    }


def test_without_loops_the_compiler_counts_the_same():
    compiled = (
        jax.jit(lambda x, w: jnp.einsum("bnth,bnsh->bnts", x, w))
        .lower(jnp.zeros((2, 3, 5, 7)), jnp.zeros((2, 3, 11, 7)))
        .compile()
    )
    assert costs_of(compiled.as_text()).flops == compiled.cost_analysis()["flops"]


def test_a_scan_costs_its_length_times_one_round():
    def run(length):
        def layer(states, _):
            return jnp.tanh(states @ states), None

        return jax.jit(lambda x: jax.lax.scan(layer, x, length=length)[0])

    compiled = [run(length).lower(jnp.zeros((5, 5))).compile() for length in (3, 12)]
    short, long = (costs_of(each.as_text()).flops for each in compiled)
    assert long == 4 * short == 12 * 2 * 5**3
    # The compiler's own count, which this one is to replace, is the same for any length.
    assert compiled[0].cost_analysis()["flops"] == compiled[1].cost_analysis()["flops"]


def test_of_a_conditional_the_costliest_branch_is_counted():
    def choose(flag, x):
        return jax.lax.cond(flag, lambda x: x @ x @ x, lambda x: x @ x, x)

    compiled = jax.jit(choose).lower(True, jnp.zeros((5, 5))).compile()
    assert costs_of(compiled.as_text()).flops == 2 * 2 * 5**3


def test_a_loop_that_ends_on_a_value_is_counted_once_and_named():
    def run(x):
        return jax.lax.while_loop(lambda x: x.sum() < 9.0, lambda x: x @ x, x)

    costs = costs_of(jax.jit(run).lower(jnp.zeros((5, 5))).compile().as_text())
    assert costs.flops == 2 * 5**3
    assert len(costs.unknown_loops) == 1


def test_convolutions_are_counted():
    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    lowered = jax.jit(convolve).lower(jnp.zeros((2, 6, 7, 3)), jnp.zeros((2, 3, 3, 5)))
    assert costs_of(lowered.compile().as_text()).flops == 2 * (2 * 5 * 5 * 5) * (2 * 3 * 3)


ASYNCHRONOUS = """HloModule example, num_partitions=4

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%scatter (x: f32[8]) -> f32[2] {
  %x = f32[8]{0} parameter(0)
  ROOT %s = f32[2]{0} reduce-scatter(%x), replica_groups=[1,4]<=[4], dimensions={0}, to_apply=%add
}

ENTRY %main (x: f32[8]) -> f32[2] {
  %x = f32[8]{0:T(256)} parameter(0)
  %g = (f32[8]{0}, f32[16]{0}) all-gather-start(%x), replica_groups=[2,2]<=[4], dimensions={0}
  %gd = f32[16]{0} all-gather-done(%g)
  %p = (f32[8]{0}, f32[8]{0}, u32[], u32[]) collective-permute-start(%x), \
source_target_pairs={{0,1},{1,2},{2,3},{3,0}}
  %pd = f32[8]{0} collective-permute-done(%p)
  %a = ((f32[8]{0}), f32[2]{0}, s32[]) async-start(%x), calls=%scatter
  %au = ((f32[8]{0}), f32[2]{0}, s32[]) async-update(%a)
  ROOT %ad = f32[2]{0} async-done(%au)
}
"""


def test_asynchronous_collectives_are_counted_once():
    collectives = costs_of(ASYNCHRONOUS).collectives
    assert collectives == {
        Collective("all-gather", 64, (0, 1)): 1,
        Collective("collective-permute", 32, (0, 1)): 1,
        Collective("reduce-scatter", 8, (0, 1, 2, 3)): 1,
    }
    assert sent_bytes(collectives) == 64 / 2 + 32 + 8 * 3


UPDATED = """HloModule example, num_partitions=4

ENTRY %main (x: f32[8]) -> f32[2] {
  %x = f32[8]{0} parameter(0)
  %r = ((f32[8]{0}), f32[2]{0}) reduce-scatter-start(%x), replica_groups=[2,2]<=[4], to_apply=%add
  %ru = ((f32[8]{0}), f32[2]{0}) reduce-scatter-update(%r)
  ROOT %rd = f32[2]{0} reduce-scatter-done(%ru)
}
"""


def test_the_devices_of_a_collective_stand_at_its_start():
    assert costs_of(UPDATED).collectives == {Collective("reduce-scatter", 8, (0, 1)): 1}


WIDENED = """HloModule example, num_partitions=4

ENTRY %main (x: bf16[8]) -> f32[8] {{
  %x = bf16[8]{{0}} parameter(0)
  %wide = f32[8]{{0}} convert(%x)
  ROOT %y = f32[8]{{0}} {opcode}(%wide), replica_groups=[1,4]<=[4], to_apply=%{function}
}}
"""


@pytest.mark.parametrize("kind", ["all-gather", "all-to-all", "collective-permute"])
def test_values_of_16_bits_that_are_moved_in_32_count_as_16(kind):
    text = WIDENED.format(opcode=kind, function="none")
    assert costs_of(text).collectives == {Collective(kind, 16, (0, 1, 2, 3)): 1}


@pytest.mark.parametrize("kind", ["all-reduce", "reduce-scatter"])
@pytest.mark.parametrize(("function", "num_bytes"), [("add", 32), ("add_promoted", 16)])
def test_sums_count_as_16_bits_only_if_the_program_asked_for_16(kind, function, num_bytes):
    text = WIDENED.format(opcode=kind, function=function)
    assert costs_of(text).collectives == {Collective(kind, num_bytes, (0, 1, 2, 3)): 1}


def test_an_all_reduce_sends_what_a_reduce_scatter_and_an_all_gather_send():
    group = tuple(range(5))
    whole, part = 5 * 12, 12
    assert (
        Collective("all-reduce", whole, group).sent_bytes
        == Collective("reduce-scatter", part, group).sent_bytes
        + Collective("all-gather", whole, group).sent_bytes
    )


def test_a_text_that_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        parse_module("HloModule empty\n")
    with pytest.raises(ValueError, match="not an instruction"):
        parse_module("ENTRY %main (x: f32[]) -> f32[] {\n  %x\n}\n")
