from flax_transformer.checkpoints.attachments import pack_files, unpack_files


def test_what_is_missing_comes_back_and_what_is_there_stays(tmp_path):
    (tmp_path / "folder").mkdir()
    contents = {"a.json": b"{}", "folder/b.model": bytes(range(256)), "c.json": b"not named"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    attachments = pack_files(tmp_path, ["a.json", "folder"])
    assert sorted(attachments) == ["a.json", "folder/b.model"]

    (tmp_path / "a.json").write_bytes(b"changed")
    (tmp_path / "folder/b.model").unlink()
    (tmp_path / "folder").rmdir()
    assert unpack_files(attachments, tmp_path) == ["folder/b.model"]
    assert (tmp_path / "folder/b.model").read_bytes() == contents["folder/b.model"]
    assert (tmp_path / "a.json").read_bytes() == b"changed"
