import json

import jax.numpy as jnp
import numpy as np
import pytest
from process_group import finish, start_group

from flax_transformer.parallel.processes import AnyProcess, fetch, wait_for_all


@pytest.mark.slow
def test_two_processes_agree(tmp_path):
    ended = finish(*start_group("tests/parallel/run_checks.py", tmp_path))
    assert [process.status for process in ended] == [0, 0], ended
    assert ["said by the first process" in process.output for process in ended] == [True, False]
    for process_id, process in enumerate(ended):
        assert process.errors.startswith(f"process {process_id} of 2, coordinator 127.0.0.1:")
        assert json.loads((tmp_path / f"seen-{process_id}.json").read_text()) == {
            "num_devices": [8, 4],
            "fetch": True,
            "agreement": [False, False, False, True, True, True],
            "values": [
                f"dtype must be the same in all processes, got float{process_id} in process "
                f"{process_id}.",
                "all processes must run the same version and task, got different ones.",
            ],
            "barrier": True,
            "translation": True,
        }


def test_one_process_is_alone():
    agreement = AnyProcess()
    assert [agreement.tell(flag) for flag in (False, True)] == [False, True]
    wait_for_all("nobody else")
    fetched = fetch({"a": jnp.arange(3), "b": np.ones(2)})
    assert all(isinstance(leaf, np.ndarray) for leaf in fetched.values())
