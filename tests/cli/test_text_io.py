import io
import os
import threading

import pytest

from flax_transformer.cli.command_parser import UsageError
from flax_transformer.cli.text_io import count_lines, iterate_lines, open_output, read_lines
from flax_transformer.errors import InputError


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"a", ["a"]),
        (b"a\n\nb\n", ["a", "", "b"]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n", ["a", "\ufeffb"]),
        ("a\u2028b\x0bc\x85d\re\n".encode(), ["a\u2028b\x0bc\x85d\re"]),
    ],
)
def test_lines_end_at_line_feeds_only(tmp_path, content, lines):
    path = tmp_path / "text"
    path.write_bytes(content)
    assert read_lines(path) == lines
    assert count_lines(path) == len(lines)


def test_invalid_bytes_are_replaced_with_a_warning_or_refused(caplog):
    content = b"fine\ncaf\xe9 \xff\n"
    assert list(iterate_lines(io.BytesIO(content), "text", strict=False)) == [
        "fine",
        "caf\ufffd \ufffd",
    ]
    assert "text: line 2 is not UTF-8" in caplog.text
    with pytest.raises(InputError, match="text must be UTF-8, got byte 0xe9 in line 2"):
        list(iterate_lines(io.BytesIO(content), "text", strict=True))


def test_output_gets_its_name_when_it_is_complete(tmp_path):
    path = tmp_path / "out"
    path.write_text("before")
    with open_output(path) as stream:
        stream.write("after")
        stream.flush()
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("fault", [InputError, KeyboardInterrupt])
def test_output_stays_as_it_was_when_writing_fails(tmp_path, fault):
    path = tmp_path / "out"
    path.write_text("before")

    def write():
        with open_output(path) as stream:
            stream.write("after")
            raise fault

    with pytest.raises(fault):
        write()
    assert path.read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_output_is_never_the_input(tmp_path):
    path, link = tmp_path / "text", tmp_path / "link"
    path.write_text("before")
    link.symlink_to(path)
    for output in (path, link):
        with (
            pytest.raises(UsageError, match="another file than the input"),
            open_output(output, inputs=[path]),
        ):
            pass
    assert path.read_text() == "before"


def test_output_through_a_link_replaces_the_file(tmp_path):
    path, link = tmp_path / "text", tmp_path / "link"
    link.symlink_to(path)
    with open_output(link) as stream:
        stream.write("é")
    assert link.is_symlink()
    assert path.read_bytes() == "é".encode()


def test_output_to_a_pipe_is_written_directly(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_text()))
    reader.start()
    with open_output(pipe) as stream:
        stream.write("through")
    reader.join()
    assert received == ["through"]


def test_faults_of_files_name_them(tmp_path):
    with pytest.raises(IsADirectoryError) as fault, open_output(tmp_path):
        pass
    assert fault.value.filename == str(tmp_path)
    with pytest.raises(FileNotFoundError) as fault, open_output(tmp_path / "no" / "out"):
        pass
    assert fault.value.filename == str(tmp_path / "no")
    with pytest.raises(IsADirectoryError) as fault:
        read_lines(tmp_path)
    assert fault.value.filename == str(tmp_path)
