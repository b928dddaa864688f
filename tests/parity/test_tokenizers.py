"""Text becomes the tokens that it becomes there, of files that say little or are of older kinds."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from parity.peers import transformers
from tiny_public_models import make_public
from tiny_public_tokenizers import TEXTS, write_marian
from tiny_vocabulary_files import write_byte_pairs, write_unigram, write_words

from flax_transformer.interop.generation_defaults import GenerationDefaults
from flax_transformer.interop.pretrained import load_pretrained, save_pretrained

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

MORE = ["The Cat's naïve \u4e2d\u6587 \u2603!", " two  spaces", "", "Éa"]


def _write(
    directory: Path,
    class_name: str,
    write: Callable[[Path], int],
    generation: GenerationDefaults | None = None,
) -> Path:
    files = directory.with_name("files")
    files.mkdir()
    size = write(files)
    model = make_public(class_name, source_vocab_size=size, target_vocab_size=size)
    if generation is not None:
        model = model._replace(generation=generation)
    save_pretrained(model, directory)
    shutil.copytree(files, directory, dirs_exist_ok=True)
    return directory


@pytest.mark.parametrize(
    ("class_name", "write", "generation"),
    [
        ("BertForMaskedLM", lambda path: write_words(path, lower_case=True), None),
        ("BertForMaskedLM", lambda path: write_words(path, lower_case=False), None),
        ("RobertaModel", lambda path: write_byte_pairs(path, end=None), None),
        ("GPT2LMHeadModel", lambda path: write_byte_pairs(path, end="<|endoftext|>"), None),
        (
            "T5ForConditionalGeneration",
            write_unigram,
            GenerationDefaults(start_id=0, eos_ids=(1,), pad_id=0),
        ),
    ],
)
def test_older_files(
    tmp_path: Path,
    class_name: str,
    write: Callable[[Path], int],
    generation: GenerationDefaults | None,
) -> None:
    if generation is None:
        generation = GenerationDefaults()
    directory = _write(tmp_path / "model", class_name, write, generation)
    pretrained = load_pretrained(directory)
    assert pretrained.tokenizer is not None
    ours = pretrained.tokenizer.source
    save_pretrained(pretrained, tmp_path / "again")
    for place in (directory, tmp_path / "again"):
        theirs = transformers.AutoTokenizer.from_pretrained(place)
        for text in [*TEXTS, *MORE]:
            bare = theirs(text, add_special_tokens=False).input_ids
            assert ours.encode(text) == bare
            around = [*ours.prompt_ids, *bare]
            assert theirs(text).input_ids[: len(around)] == around
        if class_name.startswith(("Bert", "Roberta")):
            found = (ours.bos_id, ours.eos_id, ours.pad_id, ours.mask_id)
            expected = theirs.cls_token_id, theirs.sep_token_id
            assert found == (*expected, theirs.pad_token_id, theirs.mask_token_id)


def test_language_codes_of_marian(tmp_path: Path) -> None:
    def write(files: Path) -> int:
        size = write_marian(files)
        table = json.loads((files / "vocab.json").read_text())
        (files / "vocab.json").write_text(json.dumps(table | {">>fr<<": size}))
        return size + 1

    directory = _write(tmp_path / "model", "MarianMTModel", write)
    generation = {"decoder_start_token_id": 39, "eos_token_id": 0, "pad_token_id": 39}
    (directory / "generation_config.json").write_text(json.dumps(generation))
    tokenizer = load_pretrained(directory).tokenizer
    assert tokenizer is not None
    theirs = transformers.AutoTokenizer.from_pretrained(directory)
    for text in [*TEXTS, ">>fr<< the red cat", ">>fr<<o gato", "the >>fr<< cat", "the cat >>fr<<"]:
        assert [*tokenizer.source.encode(text), 0] == theirs(text).input_ids
