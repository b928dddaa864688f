"""Files that say little: what tokens are for is found out from what is there."""

import json
import logging
import shutil
from pathlib import Path

import pytest
from tiny_public_models import make_public
from tiny_public_tokenizers import write_bart, write_marian
from tokenizers import Tokenizer, models, processors

from flax_transformer.data.pipeline import PipelineConfig
from flax_transformer.data.text_pipeline import prepare_pieces
from flax_transformer.data.text_tokenizer import TextTokenizer
from flax_transformer.errors import InputError
from flax_transformer.evaluation.continue_text import encode_prompt
from flax_transformer.interop.generation_defaults import GenerationDefaults
from flax_transformer.interop.pretrained import load_pretrained, save_pretrained

BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "red", "cat", "##s"]
ROBERTA = GenerationDefaults(bos_id=0, eos_ids=(2,), pad_id=1)
MASKED = PipelineConfig(batching="packed", max_length=7)


def write_bert(directory: Path) -> int:
    """Write ``tokenizer.json`` and a config as of bert-base-uncased, which names no token."""
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(BERT)}, unk_token="[UNK]"))
    tokenizer.add_special_tokens(BERT[:5])
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(directory / "tokenizer.json"))
    write_json(directory / "tokenizer_config.json", {"do_lower_case": True})
    return len(BERT)


def write_json(path: Path, values: object) -> None:
    path.write_text(json.dumps(values))


def make_directory(
    class_name: str, directory: Path, size: int, generation: GenerationDefaults
) -> Path:
    model = make_public(class_name, source_vocab_size=size, target_vocab_size=size)
    save_pretrained(model._replace(generation=generation), directory)
    return directory


def make_with_bart_tokens(
    class_name: str, directory: Path, generation: GenerationDefaults, *, fewer: int = 0
) -> Path:
    """Write a model with a ``tokenizer.json`` of BART's kind and a config that names nothing."""
    files = directory.with_name("files")
    files.mkdir()
    size = write_bart(files)
    make_directory(class_name, directory, size - fewer, generation)
    shutil.copy(files / "tokenizer.json", directory)
    write_json(directory / "tokenizer_config.json", {"model_max_length": 512})
    return directory


def load_source(directory: Path) -> TextTokenizer:
    tokenizer = load_pretrained(directory).tokenizer
    assert tokenizer is not None
    return tokenizer.source


def test_bert_names_no_token(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    size = write_bert(tmp_path / "files")
    directory = make_directory(
        "BertForMaskedLM", tmp_path / "model", size, GenerationDefaults(pad_id=0)
    )
    for path in (tmp_path / "files").iterdir():
        shutil.copy(path, directory)
    side = load_source(directory)
    assert (side.pad_id, side.bos_id, side.eos_id, side.mask_id) == (0, 2, 3, 4)
    assert side.encode("the") == [BERT.index("the")]


def test_roberta_has_its_mask(tmp_path: Path) -> None:
    side = load_source(make_with_bart_tokens("BertForMaskedLM", tmp_path / "model", ROBERTA))
    assert (side.bos_id, side.eos_id, side.pad_id, side.mask_id) == (0, 2, 1, 4)


def test_nothing_else_stands_for_the_mask(tmp_path: Path) -> None:
    directory = make_with_bart_tokens("BertForMaskedLM", tmp_path / "model", ROBERTA)
    text = (directory / "tokenizer.json").read_text().replace("<mask>", "<none>")
    (directory / "tokenizer.json").write_text(text)
    tokenizer = load_pretrained(directory).tokenizer
    assert tokenizer is not None
    texts = ["the red cat"]
    assert prepare_pieces(texts, tokenizer, MASKED, joined=True, is_masked=False).masking is None
    with pytest.raises(InputError, match="must have a mask token for masked language modelling"):
        prepare_pieces(texts, tokenizer, MASKED, joined=True, is_masked=True)


def test_a_mask_beyond_the_model_is_ignored(tmp_path: Path) -> None:
    """As in bart-large-cnn: no text becomes the token of the largest number."""
    directory = make_with_bart_tokens(
        "BartForConditionalGeneration",
        tmp_path / "model",
        GenerationDefaults(bos_id=0, start_id=2, eos_ids=(2,), pad_id=1),
        fewer=1,
    )
    content = json.loads((directory / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    last = max(vocabulary.values())
    exchanged = next(piece for piece, token_id in vocabulary.items() if token_id == last)
    vocabulary["<mask>"], vocabulary[exchanged] = last, vocabulary["<mask>"]
    for token in content["added_tokens"]:
        if token["content"] == "<mask>":
            token["id"] = last
    write_json(directory / "tokenizer.json", content)
    side = load_source(directory)
    assert side.vocab_size == last
    assert last not in side.encode("<mask> the red cat <mask>")
    with pytest.raises(InputError, match="must have a mask token"):
        _ = side.mask_id
    vocabulary["more"] = last + 1
    write_json(directory / "tokenizer.json", content)
    with pytest.raises(InputError, match=rf"tokens of the model's {last} alone, got {last + 2}"):
        load_source(directory)


def test_of_several_end_tokens_the_tokenizers_is_taken(tmp_path: Path) -> None:
    """As of Llama 3: the model's first end token is not the one that ends an answer."""
    generation = GenerationDefaults(bos_id=0, eos_ids=(3, 2))
    directory = make_with_bart_tokens("LlamaForCausalLM", tmp_path / "model", generation)
    write_json(directory / "tokenizer_config.json", {"bos_token": "<s>", "eos_token": "</s>"})
    pretrained = load_pretrained(directory)
    assert pretrained.tokenizer is not None
    assert pretrained.tokenizer.target.eos_id == 2
    assert pretrained.generation.eos_ids == (3, 2)


@pytest.mark.parametrize("template", ["<s> $A", "$A"])
def test_a_prompt_begins_as_the_tokenizer_begins_it(tmp_path: Path, template: str) -> None:
    generation = GenerationDefaults(bos_id=0, eos_ids=(2,))
    directory = make_with_bart_tokens("LlamaForCausalLM", tmp_path / "model", generation)
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("<s>", 0)]
    )
    tokenizer.save(str(directory / "tokenizer.json"))
    pretrained = load_pretrained(directory)
    assert pretrained.tokenizer is not None
    side = pretrained.tokenizer.target
    for prompt in ("the red cat", "a"):
        expected = tokenizer.encode(prompt).ids
        assert encode_prompt(side, prompt, pretrained.model, 0) == expected
    assert encode_prompt(side, "", pretrained.model, 0) == [0]


def test_language_codes_of_marian(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    size = write_marian(files)
    table = json.loads((files / "vocab.json").read_text()) | {">>fr<<": size}
    generation = GenerationDefaults(start_id=size - 1, eos_ids=(0,), pad_id=size - 1)
    directory = make_directory("MarianMTModel", tmp_path / "model", size + 1, generation)
    shutil.copytree(files, directory, dirs_exist_ok=True)
    text = ">>fr<< the red cat"
    assert size not in load_source(directory).encode(text)  # a model of one pair has no codes
    write_json(directory / "vocab.json", table)
    source = load_source(directory)
    assert source.encode(text) == [size, *source.encode("the red cat")]
    assert size not in source.encode("the red >>fr<< cat")
    with pytest.raises(InputError, match="a language code of the model or with none, got >>xx<<"):
        source.encode(">>xx<< the red cat")
    target = load_pretrained(directory).tokenizer.target
    assert size not in target.encode(text)


def test_text_that_spells_a_token_of_a_unigram_model(tmp_path: Path) -> None:
    """As T5's: the model of pieces has the end token among them."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("a", -1.0), ("</", -2.0), ("s", -3.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, 2))
    tokenizer.add_special_tokens([piece for piece, _ in pieces[:3]])
    generation = GenerationDefaults(start_id=0, eos_ids=(1,), pad_id=0)
    directory = make_directory(
        "T5ForConditionalGeneration", tmp_path / "model", len(pieces), generation
    )
    tokenizer.save(str(directory / "tokenizer.json"))
    assert load_source(directory).encode("a</s>a") == [3, 2, 3]


@pytest.mark.parametrize(
    ("part", "content"),
    [
        ("normalizer", {"type": "Precompiled", "precompiled_charsmap": "AAAAAA=="}),
        ("normalizer", {"type": "Precompiled", "precompiled_charsmap": "/////////////w=="}),
        ("model", {"type": "Unigram", "unk_id": None, "vocab": [], "byte_fallback": False}),
        ("model", {"type": "WordLevel", "unk_token": "[UNK]", "vocab": {"a": 0}}),
        (
            "post_processor",
            {
                "type": "TemplateProcessing",
                "single": [
                    {"SpecialToken": {"id": "<s>", "type_id": 0}},
                    {"Sequence": {"id": "A", "type_id": 0}},
                ],
                "pair": [],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [10**6], "tokens": ["<s>"]}},
            },
        ),
    ],
)
def test_a_tokenizer_that_cannot_work(tmp_path: Path, part: str, content: object) -> None:
    generation = GenerationDefaults(bos_id=0, start_id=2, eos_ids=(2,), pad_id=1)
    directory = make_with_bart_tokens(
        "BartForConditionalGeneration", tmp_path / "model", generation
    )
    values = json.loads((directory / "tokenizer.json").read_text())
    write_json(directory / "tokenizer.json", values | {part: content})
    with pytest.raises(InputError, match="tokenizer") as caught:
        load_pretrained(directory)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["bos_token_id", "eos_token_id", "forced_bos_token_id"])
def test_tokens_that_the_model_has_not(tmp_path: Path, name: str) -> None:
    save_pretrained(make_public("GPT2LMHeadModel"), tmp_path / "model")
    write_json(tmp_path / "model" / "generation_config.json", {name: 10**6})
    with pytest.raises(InputError, match=rf"{name} must be below the model's 23 tokens, got 10000"):
        load_pretrained(tmp_path / "model")


def test_tokens_that_change_nothing_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_pretrained(make_public("GPT2LMHeadModel"), tmp_path / "model")
    values = {
        "bos_token_id": 50256,
        "eos_token_id": 50256,
        "pad_token_id": 99,
        "bad_words_ids": [[3], [99], [4, 99], [4, 5]],
    }
    write_json(tmp_path / "model" / "generation_config.json", values)
    with caplog.at_level(logging.WARNING):
        generation = load_pretrained(tmp_path / "model").generation
    assert generation == GenerationDefaults(suppressed_ids=(3,), bad_words=((4, 5),))
    assert "bos_id, eos_ids, pad_id, suppressed_ids, bad_words" in caplog.text
    write_json(tmp_path / "model" / "generation_config.json", {"pad_token_id": -1})
    assert load_pretrained(tmp_path / "model").generation == GenerationDefaults()
