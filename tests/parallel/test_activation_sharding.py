import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from flax_transformer.parallel.activation_sharding import constrain, sharded_activations
from flax_transformer.parallel.mesh import MeshConfig, make_mesh
from flax_transformer.parallel.sharding_rules import ShardingRules

STATES = jnp.arange(8.0 * 6 * 4).reshape(8, 6, 4)
RULES = ShardingRules()


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))


def place(mesh, rules, *axes):
    """Return the states as a compiled program lays them out that doubles them."""

    def double(states):
        with sharded_activations(mesh, rules):
            return constrain(2.0 * states, *axes)

    return jax.jit(double)(STATES)


@pytest.mark.parametrize(
    ("axes", "spec"),
    [
        (("batch", "length", "_"), (("data", "fsdp"),)),
        (("batch", "logits_length", "logits_vocab"), (("data", "fsdp"), "tensor")),
        (("batch", "_", "heads"), (("data", "fsdp"), None, "tensor")),
    ],
)
def test_within_arrays_lie_as_the_rules_say(mesh, axes, spec):
    placed = place(mesh, RULES, *axes)
    assert placed.sharding.is_equivalent_to(NamedSharding(mesh, PartitionSpec(*spec)), 3)
    assert jnp.array_equal(placed, 2.0 * STATES)


def test_other_rules_lay_them_out_otherwise(mesh):
    axes = dict(RULES.axes) | {"batch": "data", "length": "fsdp"}
    placed = place(mesh, ShardingRules(axes=tuple(axes.items())), "batch", "length", "_")
    assert placed.sharding.is_equivalent_to(NamedSharding(mesh, PartitionSpec("data", "fsdp")), 3)


def test_outside_nothing_is_said(mesh):
    assert constrain(STATES, "batch", "length", "_") is STATES
    with sharded_activations(mesh, RULES):
        pass
    assert constrain(STATES, "batch", "length", "_") is STATES
    with pytest.raises(ZeroDivisionError), sharded_activations(mesh, RULES):
        raise ZeroDivisionError
    assert constrain(STATES, "no axis at all") is STATES


def test_within_another_the_inner_one_holds(mesh):
    other = make_mesh(MeshConfig(data=8))
    with sharded_activations(mesh, RULES):
        with sharded_activations(other, RULES):
            inner = jax.jit(lambda states: constrain(states, "batch", "_", "_"))(STATES)
        outer = jax.jit(lambda states: constrain(states, "batch", "_", "heads"))(STATES)
    assert inner.sharding.mesh == other
    assert outer.sharding.mesh == mesh


def test_an_unknown_axis_is_refused(mesh):
    with pytest.raises(KeyError, match="lenght"):
        place(mesh, RULES, "batch", "lenght", "_")
