import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from tiny_public_models import make_public
from tiny_public_tokenizers import TEXTS, write_bart, write_marian

from flax_transformer.data.public_tokenizer import PublicTokenizer, load_tokenizer
from flax_transformer.data.sentence_pair import SentencePair
from flax_transformer.data.tokenizer import TokenizerConfig, train_tokenizer
from flax_transformer.errors import InputError
from flax_transformer.interop.generation_defaults import GenerationDefaults
from flax_transformer.interop.pretrained import (
    Pretrained,
    load_pretrained,
    load_translator,
    save_model,
    save_pretrained,
)
from flax_transformer.interop.public_tokenizer import tokenizer_files


def make_directory(class_name: str, directory: Path) -> Path:
    """Write a tiny model of Marian or BART with its tokenizer's files."""
    directory.mkdir()
    is_marian = class_name == "MarianMTModel"
    size = (write_marian if is_marian else write_bart)(directory)
    files = {path.name: path.read_bytes() for path in directory.iterdir()}
    for path in directory.iterdir():
        path.unlink()
    generation = (
        GenerationDefaults(start_id=size - 1, eos_ids=(0,), pad_id=size - 1)
        if is_marian
        else GenerationDefaults(bos_id=0, start_id=2, eos_ids=(2,), pad_id=1)
    )
    model = make_public(class_name, source_vocab_size=size, target_vocab_size=size)
    save_pretrained(model._replace(generation=generation), directory)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return directory


@pytest.fixture(params=["MarianMTModel", "BartForConditionalGeneration"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return make_directory(request.param, tmp_path / "model")


def test_tokenizers_follow_the_protocol(directory: Path) -> None:
    pretrained = load_translator(directory)
    source, target = pretrained.tokenizer.source, pretrained.tokenizer.target
    is_marian = pretrained.config.position_encoding == "sinusoidal"
    size = pretrained.config.source_vocab_size
    assert source.vocab_size == target.vocab_size == size
    # The token that the decoder reads first.
    assert target.bos_id == (size - 1 if is_marian else 2)
    assert target.eos_id == (0 if is_marian else 2)
    assert target.pad_id == (size - 1 if is_marian else 1)
    prefix = [] if is_marian else [0]
    for text in TEXTS:
        ids = target.encode(text)
        assert source.encode(text) == [*prefix, *ids]
        assert target.decode([target.bos_id, *ids, target.eos_id, target.pad_id]) == text
        assert target.sample(text, np.random.default_rng(0)) == ids
    assert target.encode_batch(TEXTS) == [target.encode(text) for text in TEXTS]
    assert target.encode("") == []
    target.encode("a lone \ud800 surrogate")
    again = pickle.loads(pickle.dumps(target))
    assert again == target
    assert again.encode(TEXTS[0]) == target.encode(TEXTS[0])
    for bad in (-1, size):
        with pytest.raises(InputError, match=rf"ids must be from 0 to {size - 1}, got {bad}"):
            target.decode([bad])


@pytest.mark.parametrize("text", ["</s>", "a <pad> b", "<s><mask></s>", "<unk>"])
def test_text_does_not_become_a_special_token(directory: Path, text: str) -> None:
    target = load_translator(directory).tokenizer.target
    is_marian = target.eos_id == 0
    special = {0, target.vocab_size - 1} if is_marian else {0, 1, 2, 3, 4}
    assert not special & set(target.encode(text))


def test_files_are_written_as_they_were(directory: Path, tmp_path: Path) -> None:
    pretrained = load_pretrained(directory)
    tokenizer = pretrained.tokenizer
    assert isinstance(tokenizer, PublicTokenizer)
    save_pretrained(pretrained, tmp_path / "public")
    for name, content in tokenizer.files.items():
        assert (tmp_path / "public" / name).read_bytes() == content
    assert load_pretrained(tmp_path / "public").tokenizer == tokenizer
    save_model(tmp_path / "ours", pretrained)
    assert load_pretrained(tmp_path / "ours").tokenizer == tokenizer
    assert load_tokenizer(tmp_path / "ours" / "tokenizer").shared == tokenizer.shared


def test_a_changed_file_of_ours_is_refused(directory: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "ours", load_pretrained(directory))
    file = next((tmp_path / "ours" / "tokenizer" / "public").glob("*.json"))
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(InputError, match=rf"{file.name} must be the file that was saved"):
        load_pretrained(tmp_path / "ours")


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"a": "b"}', b"\xff\xfe"])
def test_damaged_tokenizers_are_named(directory: Path, content: bytes) -> None:
    is_marian = (directory / "vocab.json").exists()
    names = ["vocab.json", "source.spm"] if is_marian else ["tokenizer.json"]
    for name in names:
        before = (directory / name).read_bytes()
        (directory / name).write_bytes(content)
        with pytest.raises(InputError, match=name) as caught:
            load_pretrained(directory)
        assert "\n" not in str(caught.value)
        (directory / name).write_bytes(before)


def test_a_tokenizer_with_more_tokens_than_the_model(tmp_path: Path) -> None:
    directory = make_directory("MarianMTModel", tmp_path / "model")
    vocabulary = json.loads((directory / "vocab.json").read_text())
    (directory / "vocab.json").write_text(json.dumps(vocabulary | {"▁": 1000}))
    with pytest.raises(InputError, match=r"vocab.json must have tokens of the model's .* id 1000"):
        load_pretrained(directory)


def test_our_own_tokenizer_is_written_as_marians(tmp_path: Path) -> None:
    pairs = [SentencePair("The red cat sings.", "O gato canta.")] * 5
    ours = train_tokenizer(TokenizerConfig(vocab_size=283, algorithm="bpe"), pairs, seed=0)
    size = ours.source.vocab_size
    model = make_public("MarianMTModel", source_vocab_size=size, target_vocab_size=size)
    pretrained = Pretrained(model.model, model.params, model.config, ours)
    save_pretrained(pretrained, tmp_path / "model")
    loaded = load_translator(tmp_path / "model")
    assert tokenizer_files(loaded.tokenizer) == tokenizer_files(ours)
    for name in ("bos_id", "eos_id", "pad_id"):
        assert getattr(loaded.tokenizer.target, name) == getattr(ours.target, name)
    for text in ("The red cat sings.", "O gato canta.", "naïve ☃"):
        assert loaded.tokenizer.target.encode(text) == ours.target.encode(text)
        assert loaded.tokenizer.target.decode(ours.target.encode(text)) == text


def test_an_encoder_begins_texts_with_its_class_token(tmp_path: Path) -> None:
    """As BERT's: neither ``config.json`` nor ``generation_config.json`` names these tokens."""
    (tmp_path / "files").mkdir()
    size = write_bart(tmp_path / "files")
    directory = tmp_path / "model"
    model = make_public("BertForMaskedLM", source_vocab_size=size, target_vocab_size=size)
    save_pretrained(model, directory)
    # Not what they are called by convention, which is what counts where no file names them.
    tokens = {"cls_token": "<unk>", "sep_token": "</s>", "mask_token": {"content": "<pad>"}}
    (directory / "tokenizer.json").write_bytes((tmp_path / "files/tokenizer.json").read_bytes())
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        (directory / name).write_text(json.dumps(tokens))
        tokenizer = load_pretrained(directory).tokenizer
        assert tokenizer is not None
        assert tokenizer.shared
        side = tokenizer.source
        assert (side.bos_id, side.eos_id, side.mask_id) == (3, 2, 1)
        assert side.encode("the red cat")[0] > 4
        (directory / name).unlink()
