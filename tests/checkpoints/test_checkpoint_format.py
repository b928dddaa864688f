import json
import shutil
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest
from golden_checkpoint import GOLDEN, GOLDEN_STEP, golden_batches, golden_state
from tiny_checkpoints import assert_same, open_checkpointer, save_steps

from flax_transformer.checkpoints import reader
from flax_transformer.checkpoints.contents import ABOUT_ITEM, FORMAT, describe_writer
from flax_transformer.checkpoints.manifest import write_manifest
from flax_transformer.checkpoints.reader import DamagedCheckpointError
from flax_transformer.errors import InputError


def zeros_like_golden() -> Any:
    state = golden_state()
    params = {name: jnp.zeros_like(leaf) for name, leaf in state.params.items()}
    return state._replace(step=jnp.int32(0), params=params)


def test_a_checkpoint_of_an_earlier_version_of_this_format_restores() -> None:
    batches, expected = golden_batches(), golden_batches()
    for _ in range(4):
        next(expected)
    step_directory = GOLDEN / str(GOLDEN_STEP)
    restored = reader.restore_state(step_directory, like=zeros_like_golden(), batches=batches)
    assert_same(restored, golden_state())
    assert [next(batches) for _ in range(3)] == [next(expected) for _ in range(3)]
    assert reader.read_metrics(step_directory) == {"bleu": 27.5}
    assert reader.read_attachments(step_directory) == {"config.json": "e30="}
    assert reader.list_steps(GOLDEN) == [GOLDEN_STEP]


def test_the_golden_checkpoint_is_of_the_format_that_is_written() -> None:
    about = json.loads((GOLDEN / str(GOLDEN_STEP) / ABOUT_ITEM / "metadata").read_text())
    assert about["format"] == FORMAT == describe_writer()["format"]
    assert sum(path.stat().st_size for path in GOLDEN.rglob("*") if path.is_file()) < 40_000


@pytest.mark.parametrize(
    ("about", "message"),
    [
        (
            {"format": FORMAT + 1, "flax_transformer": "9.1.0"},
            r"must be of format 2, which flax_transformer \S+ reads, got format 3, written by "
            r"flax_transformer 9\.1\.0\. Use the version that wrote it",
        ),
        (None, r"got format 1, written by flax_transformer before it numbered its checkpoints"),
    ],
)
def test_another_format_is_refused_with_the_version_that_reads_it(
    tmp_path: Path, about: dict[str, Any] | None, message: str
) -> None:
    save_steps(tmp_path, 1)
    step_directory = shutil.copytree(GOLDEN / str(GOLDEN_STEP), tmp_path / str(GOLDEN_STEP))
    if about is None:
        shutil.rmtree(step_directory / ABOUT_ITEM)
    else:
        (step_directory / ABOUT_ITEM / "metadata").write_text(json.dumps(about))
    write_manifest(step_directory)
    with open_checkpointer(tmp_path) as checkpointer:
        with pytest.raises(InputError, match=message) as caught:
            checkpointer.restore_latest(like=zeros_like_golden(), batches=golden_batches())
        assert not isinstance(caught.value, DamagedCheckpointError)
        assert "\n" not in str(caught.value)
        assert checkpointer.steps() == [1, GOLDEN_STEP]  # it is not taken for a damaged one
    with pytest.raises(InputError, match="must be of format 2"):
        reader.restore_parameters(step_directory, like=zeros_like_golden().params)


def test_a_checkpoint_says_what_wrote_it(tmp_path: Path) -> None:
    save_steps(tmp_path, 1)
    about = json.loads((tmp_path / "1" / ABOUT_ITEM / "metadata").read_text())
    assert about == describe_writer()
