import numpy as np
import pytest

from flax_transformer.data.batch import Batch
from flax_transformer.errors import InputError
from flax_transformer.parallel.mesh import (
    BatchPart,
    MeshConfig,
    batch_part,
    make_mesh,
    num_batch_shards,
    place_rows,
)


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        ({}, (8, 1, 1)),
        ({"fsdp": 2}, (4, 2, 1)),
        ({"data": 2, "fsdp": -1, "tensor": 2}, (2, 2, 2)),
        ({"data": 1, "tensor": 8}, (1, 1, 8)),
    ],
)
def test_mesh_takes_the_devices_that_are_left(sizes, shape):
    mesh = make_mesh(MeshConfig(**sizes))
    assert tuple(mesh.shape.values()) == shape
    assert num_batch_shards(mesh) == shape[0] * shape[1]


@pytest.mark.parametrize("sizes", [{"data": 3}, {"data": 4}, {"fsdp": 3}, {"fsdp": 16}])
def test_sizes_that_do_not_multiply_to_the_devices_are_refused(sizes):
    with pytest.raises(InputError, match="must multiply to the 8 devices at hand, got"):
        make_mesh(MeshConfig(**sizes))


@pytest.mark.parametrize("sizes", [{"data": 0}, {"tensor": -2}, {"data": -1, "fsdp": -1}])
def test_sizes_that_make_no_mesh_are_refused(sizes):
    with pytest.raises(InputError, match="must be at least 1, one of them may be -1, got"):
        MeshConfig(**sizes)


def test_each_device_gets_its_rows(mesh):
    rows = np.arange(24).reshape(8, 3)
    placed = place_rows(Batch(*(rows + i for i in range(8))), mesh)
    for i, array in enumerate(placed):
        np.testing.assert_array_equal(array, rows + i)
        assert all(shard.data.shape == (2, 3) for shard in array.addressable_shards)


def test_a_single_process_provides_all_rows(mesh):
    assert batch_part(mesh) == BatchPart(0, 1)
