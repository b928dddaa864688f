import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants, hf_api
from tiny_public_models import make_public

from flax_transformer.errors import InputError
from flax_transformer.interop.hub import find_directory
from flax_transformer.interop.pretrained import load_pretrained, save_pretrained

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_without_a_network_the_message_is_one_line() -> None:
    with pytest.raises(InputError, match=r"no-one/nothing must be a directory, or a model of th"):
        load_pretrained("no-one/nothing")


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens at this port; what the request raises is none of Python's own errors."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hf_api.api, "endpoint", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"no-one/nothing must be .* no answer from the hub: \S"):
        load_pretrained("no-one/nothing")


def test_what_was_downloaded_before_is_found(cache: Path, tmp_path: Path) -> None:
    """The hub's cache holds links from its snapshots to blobs that lie two levels up."""
    save_pretrained(make_public("GPT2LMHeadModel"), tmp_path / "model")
    repository = cache / "models--some-one--small"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    for path in (tmp_path / "model").iterdir():
        shutil.copy(path, repository / "blobs" / path.name)
        (snapshot / path.name).symlink_to(Path("../../blobs") / path.name)
    assert find_directory("some-one/small") == snapshot
    assert load_pretrained("some-one/small").config.architecture == "decoder_only"
    (repository / "refs" / "v1").write_text(COMMIT)
    for revision in ("v1", COMMIT):
        assert find_directory("some-one/small", revision=revision) == snapshot
    with pytest.raises(InputError, match="some-one/small must be a directory, or a model of the"):
        load_pretrained("some-one/small", revision="v2")


def test_a_local_path_always_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some-one" / "small").mkdir(parents=True)
    assert find_directory("some-one/small") == Path("some-one/small")
    with pytest.raises(InputError, match="revision must be None for the directory some-one/small"):
        load_pretrained("some-one/small", revision="v1")
    # What cannot be a name on the hub is not looked for there.
    for name in ("./x", "/x/y", "a/b/c", "../model"):
        assert find_directory(name) == Path(name)
