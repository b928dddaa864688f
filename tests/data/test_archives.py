import bz2
import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from flax_transformer.data.archives import ArchiveKind, extract_archive
from flax_transformer.errors import InputError

FILES = {"dev/a.de": b"eins\nzwei\n", "dev/deep/b.en": b"one\ntwo\n", "empty": b""}


def write_tar(path: Path, members: list[tuple[tarfile.TarInfo, bytes]], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def entry(name: str, type_: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = type_, target
    return info


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tree(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_archive_comes_out_as_it_went_in(tmp_path: Path, mode: str) -> None:
    members = [(entry(name), content) for name, content in FILES.items()]
    archive = write_tar(tmp_path / "a.tar", members, mode)
    extract_archive(archive, tmp_path / "out", "tar")
    assert tree(tmp_path / "out") == FILES


def test_a_zip_archive_comes_out_as_it_went_in(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", {**FILES, "folder/": b""})
    extract_archive(archive, tmp_path / "out", "zip")
    assert tree(tmp_path / "out") == FILES
    assert (tmp_path / "out/folder").is_dir()


def test_single_files_come_out_as_files_and_report_progress(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"text" * 7))
    (tmp_path / "a.bz2").write_bytes(bz2.compress(b"text" * 7))
    written: list[int] = []
    extract_archive(tmp_path / "a.gz", tmp_path / "x", "gzip", progress=written.append)
    extract_archive(tmp_path / "a.bz2", tmp_path / "y", "bzip2", progress=written.append)
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes() == b"text" * 7
    assert sum(written) == 56


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "..\\evil"])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_name_that_leads_out_is_refused_and_nothing_is_written(
    tmp_path: Path, name: str, kind: ArchiveKind
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    if kind == "tar":
        members = [(entry("good"), b"x"), (entry(name), b"evil")]
        archive = write_tar(tmp_path / "a.tgz", members)
    else:
        archive = write_zip(tmp_path / "a.zip", {"good": b"x", name: b"evil"})
    with pytest.raises(InputError, match="must stay within its folder"):
        extract_archive(archive, folder / "out", kind)
    assert not list(folder.iterdir())
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize("type_", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_out_of_the_archive_is_skipped_and_never_followed(
    tmp_path: Path, type_: bytes
) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/key").write_text("secret")
    members = [
        (entry("link", type_, str(tmp_path / "secret")), b""),
        (entry("up", type_, "../secret/key"), b""),
        (entry("link/planted"), b"planted"),
    ]
    extract_archive(write_tar(tmp_path / "a.tgz", members), tmp_path / "out", "tar")
    assert tree(tmp_path / "out") == {"link/planted": b"planted"}
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))
    assert tree(tmp_path / "secret") == {"key": b"secret"}


def test_a_link_within_the_archive_becomes_a_copy(tmp_path: Path) -> None:
    members = [(entry("real"), b"text"), (entry("alias", tarfile.SYMTYPE, "real"), b"")]
    extract_archive(write_tar(tmp_path / "a.tgz", members), tmp_path / "out", "tar")
    assert tree(tmp_path / "out") == {"real": b"text", "alias": b"text"}
    assert not (tmp_path / "out/alias").is_symlink()


def test_devices_and_pipes_are_skipped(tmp_path: Path) -> None:
    members = [(entry("pipe", tarfile.FIFOTYPE), b""), (entry("null", tarfile.CHRTYPE), b"")]
    extract_archive(write_tar(tmp_path / "a.tgz", members), tmp_path / "out", "tar")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("kind", ["tar", "zip", "gzip", "bzip2"])
def test_a_bomb_is_stopped_at_the_limit_and_leaves_nothing(
    tmp_path: Path, kind: ArchiveKind
) -> None:
    archive, bomb = tmp_path / "bomb", bytes(3_000_000)
    if kind == "tar":
        write_tar(archive, [(entry("a"), b"x"), (entry("b"), bomb)])
    elif kind == "zip":
        write_zip(archive, {"a": b"x", "b": bomb})
    else:
        archive.write_bytes(gzip.compress(bomb) if kind == "gzip" else bz2.compress(bomb))
    with pytest.raises(InputError, match="at most 2999999 bytes"):
        extract_archive(archive, tmp_path / "out/x", kind, max_bytes=2_999_999)
    assert not list((tmp_path / "out").iterdir())
    extract_archive(archive, tmp_path / "out/x", kind, max_bytes=3_000_001)


@pytest.mark.parametrize("kind", ["tar", "zip", "gzip", "bzip2"])
@pytest.mark.parametrize("damage", ["cut", "other"])
def test_a_damaged_archive_is_refused_by_name(
    tmp_path: Path, kind: ArchiveKind, damage: str
) -> None:
    archive, text = tmp_path / "archive", bytes(range(256)) * 97
    if kind == "tar":
        write_tar(archive, [(entry("b"), text)])
    elif kind == "zip":
        write_zip(archive, {"b": text})
    else:
        archive.write_bytes(gzip.compress(text) if kind == "gzip" else bz2.compress(text))
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"<html>not found</html>")
    with pytest.raises(InputError, match=f"archive must be a whole {kind} archive"):
        extract_archive(archive, tmp_path / "out/x", kind)
    assert not list((tmp_path / "out").iterdir())
