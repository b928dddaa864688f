import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from flax_transformer.planning.hlo import parse_module
from flax_transformer.planning.program_costs import count_costs
from flax_transformer.planning.replica_groups import first_group

SHAPE, AXES = (2, 2, 2), ("data", "fsdp", "tensor")


@pytest.mark.parametrize("axes", [("data",), ("fsdp",), ("tensor",), ("data", "tensor"), AXES])
def test_a_sum_over_axes_of_a_mesh_is_among_the_devices_along_them(axes):
    mesh = jax.make_mesh(SHAPE, AXES, axis_types=(AxisType.Auto,) * 3)
    sharding = NamedSharding(mesh, PartitionSpec(axes))
    array = jax.ShapeDtypeStruct((16,), jnp.float32, sharding=sharding)
    text = jax.jit(jnp.sum).lower(array).compile().as_text()
    (collective,) = count_costs(parse_module(text)).collectives
    ids = np.arange(8).reshape(SHAPE)
    along = ids[tuple(slice(None) if axis in axes else 0 for axis in AXES)]
    assert set(collective.group) == set(along.ravel().tolist())


def test_an_unknown_notation_is_not_guessed():
    with pytest.raises(ValueError, match="cannot read the devices"):
        first_group("replica_groups=<0,1>", 2)
