from pathlib import Path

from process_group import finish, start_group
from tiny_checkpoints import Streams, assert_same, make_state

from flax_transformer.checkpoints import reader
from flax_transformer.checkpoints.manifest import MANIFEST_NAME, find_damage


def test_two_processes_save_one_checkpoint_and_agree_on_the_sound_one(tmp_path: Path) -> None:
    script = Path(__file__).with_name("run_checkpoints.py")
    ended = finish(*start_group(script, tmp_path, num_devices=2))
    assert [process.status for process in ended] == [0, 0], ended
    assert f"{tmp_path}/2 is damaged" in ended[0].errors
    assert (tmp_path / "2.damaged").is_dir()

    # The seal is on the files of both, and one process goes on where the two were.
    manifest = (tmp_path / "1" / MANIFEST_NAME).read_text()
    for index in range(2):
        assert f"state/ocdbt.process_{index}/" in manifest
        assert f"batches/process_{index}-of-2.json" in manifest
    assert find_damage(tmp_path / "2") is None
    batches = Streams(0, 1)
    restored = reader.restore_state(tmp_path / "1", like=make_state(0, width=16), batches=batches)
    assert_same(restored, make_state(1, width=16))
    assert batches.position == {"0": 100, "1": 101}
