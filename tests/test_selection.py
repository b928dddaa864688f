from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from flax_transformer.errors import InputError
from flax_transformer.experiment.selection import choose_on_dev
from flax_transformer.experiment.task import Setting


def test_a_run_without_any_score_says_so(tmp_path: Path) -> None:
    setting = SimpleNamespace(workdir=tmp_path, task=SimpleNamespace(dev_score="dev_bleu"))
    message = rf"dev_bleu must be a number in one evaluation.*are in {tmp_path}/checkpoints\."
    with pytest.raises(InputError, match=message):
        choose_on_dev(cast(Setting, setting))
