"""A training goes on, on other meshes and on other numbers of devices."""

import shutil

import jax
import pytest
from tiny_training import make_tiny_task, read_losses, run_tiny_training

from flax_transformer.parallel.mesh import MeshConfig, make_mesh

SAVED_ON = MeshConfig(data=1, fsdp=4, tensor=2)
# Batches have 8 rows, whatever the mesh.
RESUMED_ON = {
    "4": MeshConfig(data=1, fsdp=2, tensor=2),
    "2": MeshConfig(data=1, fsdp=2, tensor=1),
    "1": MeshConfig(data=1, fsdp=1, tensor=1),
}


def run_on(mesh_config, task, workdir, num_steps):
    size = mesh_config.data * mesh_config.fsdp * mesh_config.tensor
    mesh = make_mesh(mesh_config, jax.devices()[:size])
    return run_tiny_training(task, workdir, mesh=mesh, num_steps=num_steps, eval_every=99)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return make_tiny_task(tmp_path_factory.mktemp("meshes"), vocab_size=280)


@pytest.fixture(scope="module")
def runs(task, tmp_path_factory):
    """An unbroken run of seven steps, and the first four of the same."""
    directory = tmp_path_factory.mktemp("runs")
    run_on(SAVED_ON, task, directory / "unbroken", 7)
    run_on(SAVED_ON, task, directory / "begun", 4)
    return directory


@pytest.mark.slow
@pytest.mark.parametrize("mesh_config", RESUMED_ON.values(), ids=RESUMED_ON.keys())
def test_training_goes_on(tmp_path, task, runs, mesh_config):
    shutil.copytree(runs / "begun", tmp_path / "resumed")
    run_on(mesh_config, task, tmp_path / "resumed", 7)
    losses = read_losses(tmp_path / "resumed")
    assert list(losses) == [1, 2, 3, 4, 5, 6, 7]
    assert losses == pytest.approx(read_losses(runs / "unbroken"), rel=1e-5)
