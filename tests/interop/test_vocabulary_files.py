import logging
import shutil
from pathlib import Path

import pytest
import sentencepiece
from tiny_public_models import make_public
from tiny_public_tokenizers import TEXTS
from tiny_vocabulary_files import write_byte_pairs, write_unigram, write_words

from flax_transformer.errors import InputError
from flax_transformer.interop.generation_defaults import GenerationDefaults
from flax_transformer.interop.pretrained import Pretrained, load_pretrained, save_pretrained


def load_with(
    class_name: str, files: Path, size: int, generation: GenerationDefaults
) -> Pretrained:
    """Load a model that has the files for its tokenizer."""
    directory = files.with_name("model")
    model = make_public(class_name, source_vocab_size=size, target_vocab_size=size)
    save_pretrained(model._replace(generation=generation), directory)
    shutil.copytree(files, directory, dirs_exist_ok=True)
    return load_pretrained(directory)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "files").mkdir()
    return tmp_path / "files"


def test_words_of_bert(files: Path) -> None:
    size = write_words(files, lower_case=True)
    words = (files / "vocab.txt").read_text().splitlines()
    pretrained = load_with("BertForMaskedLM", files, size, GenerationDefaults(pad_id=0))
    assert pretrained.tokenizer is not None
    side = pretrained.tokenizer.source
    assert (side.pad_id, side.bos_id, side.eos_id, side.mask_id) == (0, 2, 3, 4)
    expected = ["the", "s", "##leeps", "!", "[UNK]"]
    assert [words[index] for index in side.encode("The sleeps! \u2603")] == expected
    assert side.decode(side.encode("the sleeps")) == "the sleeps"
    assert not {0, 2, 3, 4} & set(side.encode("[MASK] the [SEP]"))


@pytest.mark.parametrize(
    ("class_name", "end", "generation"),
    [
        ("RobertaModel", None, GenerationDefaults(bos_id=0, eos_ids=(2,), pad_id=1)),
        ("GPT2LMHeadModel", "<|endoftext|>", GenerationDefaults()),
    ],
)
def test_byte_pairs(
    files: Path, class_name: str, end: str | None, generation: GenerationDefaults
) -> None:
    size = write_byte_pairs(files, end=end)
    pretrained = load_with(class_name, files, size, generation)
    assert pretrained.tokenizer is not None
    side = pretrained.tokenizer.source
    assert side.eos_id == (2 if end is None else size - 1)
    assert side.prompt_ids == ((0,) if end is None else ())
    for text in [*TEXTS, " naïve\n\u2603", "<s></s>"]:
        assert side.decode(side.encode(text)) == text
    assert len(side.encode("the red")) < len("the red")


def test_pieces_of_t5(files: Path) -> None:
    size = write_unigram(files)
    generation = GenerationDefaults(start_id=0, eos_ids=(1,), pad_id=0)
    pretrained = load_with("T5ForConditionalGeneration", files, size, generation)
    assert pretrained.tokenizer is not None
    side = pretrained.tokenizer.source
    processor = sentencepiece.SentencePieceProcessor(model_file=str(files / "spiece.model"))
    for text in [*TEXTS, "  the\tred ", "ﬁne \u2603 the", "é", "", "navio navio"]:
        assert side.encode(text) == processor.encode(text)
        if not side.encode(text).count(2):
            assert side.decode(side.encode(text)) == processor.decode(processor.encode(text))
    assert not {0, 1, *range(39, size)} & set(side.encode("</s> the <extra_id_0>"))


def test_the_files_are_written_with_what_was_made_of_them(files: Path) -> None:
    size = write_words(files, lower_case=False)
    pretrained = load_with("BertForMaskedLM", files, size, GenerationDefaults(pad_id=0))
    again = files.with_name("again")
    save_pretrained(pretrained, again)
    for path in files.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes()
    assert load_pretrained(again).tokenizer == pretrained.tokenizer
    (again / "vocab.txt").unlink()
    assert load_pretrained(again).tokenizer.source == pretrained.tokenizer.source


@pytest.mark.parametrize(
    ("class_name", "name", "content"),
    [
        ("BertForMaskedLM", "vocab.txt", b"[PAD]\n[UNK]\n"),
        ("BertForMaskedLM", "vocab.txt", b"\xff"),
        ("GPT2LMHeadModel", "merges.txt", b"the red cat\n"),
        ("GPT2LMHeadModel", "merges.txt", b"never seen\n"),
        ("GPT2LMHeadModel", "vocab.json", b"[]"),
        ("T5ForConditionalGeneration", "spiece.model", b""),
        ("T5ForConditionalGeneration", "spiece.model", b"\x00\x01"),
    ],
)
def test_damaged_files_are_named(files: Path, class_name: str, name: str, content: bytes) -> None:
    size = write_byte_pairs(files, end="<|endoftext|>") if class_name == "GPT2LMHeadModel" else 23
    (files / name).write_bytes(content)
    with pytest.raises(InputError, match=name) as caught:
        load_with(class_name, files, size, GenerationDefaults())
    assert "\n" not in str(caught.value)


def test_what_cannot_be_read_is_named(files: Path, caplog: pytest.LogCaptureFixture) -> None:
    (files / "tokenizer.model").write_bytes(b"\x00")
    with caplog.at_level(logging.WARNING):
        pretrained = load_with("LlamaForCausalLM", files, 23, GenerationDefaults(eos_ids=(2,)))
    assert pretrained.tokenizer is None
    assert "has no tokenizer.json, and tokenizer.model cannot be read here" in caplog.text
