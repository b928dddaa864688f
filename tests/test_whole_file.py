from pathlib import Path

import pytest

from flax_transformer.whole_file import replacing, write_file


@pytest.mark.parametrize("content", ["São Tomé\n", b"\xff\x00", ""])
def test_what_was_written_is_there_and_nothing_else(tmp_path: Path, content: str | bytes) -> None:
    for _ in range(2):
        write_file(tmp_path / "file", content)
        encoded = content.encode() if isinstance(content, str) else content
        assert (tmp_path / "file").read_bytes() == encoded
        assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(OSError, match="No space"), replacing(path) as temporary:  # noqa: PT012
        temporary.write_text("ne")
        assert path.read_text() == "old"
        raise OSError("No space left on device")
    assert path.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_a_killed_process_left_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with replacing(path) as temporary:
        temporary.write_text("new")
        killed = temporary.rename(tmp_path / "killed")
        temporary.write_text("new")
    killed.rename(temporary)
    write_file(path, "newer")
    assert path.read_text() == "newer"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        write_file(tmp_path / "no" / "file", "text")
    assert error.value.filename == str(tmp_path / "no" / "file")
