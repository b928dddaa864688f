import subprocess
import sys
from pathlib import Path

import pytest

from flax_transformer.data.sentences.corpus import SIZES, generate_corpus
from flax_transformer.data.sources import DataConfig, load_sentence_pairs
from flax_transformer.errors import InputError

_LOAD = """
import sys
from flax_transformer.data.sources import DataConfig, load_sentence_pairs
pairs = load_sentence_pairs(DataConfig(data_dir=sys.argv[1]), "train")
assert "tensorflow" not in sys.modules
print(len(pairs), pairs[0])
"""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tfds")


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_tfds_gives_the_generated_sentences(data_dir: Path, split: str) -> None:
    config = DataConfig(data_dir=str(data_dir))
    pairs = load_sentence_pairs(config, getattr(config, "dev" if split == "validation" else split))
    generated = {(sentence.english, sentence.portuguese) for sentence in generate_corpus()[split]}
    assert len(pairs) == SIZES[split]
    assert set(pairs) == generated


def test_it_translates_the_other_way_too(data_dir: Path) -> None:
    config = DataConfig(source_language="pt", target_language="en", data_dir=str(data_dir))
    backwards = load_sentence_pairs(config, "test")
    forwards = load_sentence_pairs(DataConfig(data_dir=str(data_dir)), "test")
    assert [pair[::-1] for pair in backwards] == [tuple(pair) for pair in forwards]


def test_processes_that_start_together_prepare_it_once_and_read_the_same(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _LOAD, str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs[0] == outputs[1]
    assert outputs[0].startswith(f"{SIZES['train']} SentencePair(")
    assert [path.name for path in (tmp_path / "en_pt_sentences").iterdir()] == ["1.0.0"]


def test_a_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"data_dir must be writable, got .*/file/below"):
        load_sentence_pairs(DataConfig(data_dir=str(tmp_path / "file/below")), "train")
