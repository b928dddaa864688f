"""A training that is killed again and again comes to the same as one that nobody disturbed.

Few kills here; ``.ci/run`` has 25 of them.
"""

import re

import pytest
from process_group import finish, start_process


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "num_kills"), [(["KILL"], 3), (["TERM", "INT"], 2)], ids=["kill", "end"]
)
def test_broken_off_and_resumed(tmp_path, names, num_kills):
    options = ("--kills", num_kills, "--directory", tmp_path, "--signal", *names)
    process = start_process("tests/kill_trainer.py", *options, num_devices=2)
    (ended,) = finish(process, timeout=900)
    assert ended.status == 0, ended
    assert ended.output.endswith("equal to the unbroken run\n")
    (num_cut,) = re.findall(rf"{num_kills} signals, (\d+) of them cut a save", ended.output)
    if names == ["KILL"]:
        assert int(num_cut) >= num_kills // 3
    else:
        assert int(num_cut) == 0
