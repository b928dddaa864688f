from pathlib import Path
from typing import Any

import pytest

from flax_transformer.interop.pretrained import load_pretrained


@pytest.fixture(scope="module")
def peer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The case that a test is parametrised with, made once for each module."""
    # Not above: without the library the modules of tests skip, and this file must still load.
    from parity.peers import CASES, Peer

    model = CASES[request.param].make()
    directory: Path = tmp_path_factory.mktemp("peer")
    model.save_pretrained(directory)
    return Peer(model, directory, load_pretrained(directory))
