"""CTranslate2 converts what we write, and translates as we do."""

from pathlib import Path
from typing import Any

import pytest
from parity.peers import HOW_TO_INSTALL, Case, torch, transformers
from tiny_public_tokenizers import TEXTS, write_bart, write_marian

from flax_transformer.decoding.beam_strategy import BeamSearch
from flax_transformer.evaluation.translate import translate
from flax_transformer.interop.pretrained import load_pretrained, load_translator, save_pretrained

ctranslate2 = pytest.importorskip("ctranslate2", reason=HOW_TO_INSTALL)

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]


def _make_peer(family: str, directory: Path) -> Any:
    """Save a model with its tokenizer, as the library does."""
    if family == "marian":
        size = write_marian(directory)
        tokens = {"pad_token_id": size - 1, "decoder_start_token_id": size - 1}
        case = Case("MarianMTModel", {"vocab_size": size, "max_position_embeddings": 61, **tokens})
    else:
        size = write_bart(directory)
        case = Case(
            "BartForConditionalGeneration",
            {"vocab_size": size, "max_position_embeddings": 61},
        )
    model = case.make()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not any(part in name for part in ("shared", "norm", "embed_positions")):
                parameter.mul_(4.0 if "encoder_attn" in name else 2.0)
            if name.endswith("bias"):  # what is the same in every context
                parameter.mul_(0.1)
        model.final_logits_bias.zero_()
        if family == "marian":  # a decoder of Marian starts from a vector of zeros
            model.model.shared.weight[size - 1] = 0.0
            model.generation_config.bad_words_ids = [[size - 1]]
    model.generation_config.forced_eos_token_id = None
    model.save_pretrained(directory)
    return model


@pytest.mark.parametrize("family", ["marian", "bart"])
def test_translations_are_the_same(tmp_path: Path, family: str) -> None:
    (tmp_path / "peer").mkdir()
    _make_peer(family, tmp_path / "peer")
    save_pretrained(load_pretrained(tmp_path / "peer"), tmp_path / "ours")
    ours = load_translator(tmp_path / "ours")
    converter = ctranslate2.converters.TransformersConverter(str(tmp_path / "ours"))
    converter.convert(str(tmp_path / "converted"))
    peer = ctranslate2.Translator(str(tmp_path / "converted"), inter_threads=1, intra_threads=1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    sources = [tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids) for text in TEXTS]
    theirs = peer.translate_batch(
        sources, beam_size=3, length_penalty=1.0, max_decoding_length=11, min_decoding_length=0
    )
    ids = [tokenizer.convert_tokens_to_ids(each.hypotheses[0]) for each in theirs]
    expected = [tokenizer.decode(each, skip_special_tokens=True).strip() for each in ids]
    strategy = BeamSearch(
        beam_size=3, max_length=11, length_penalty=1.0, length_normalization="power"
    )
    outputs = translate(
        ours.model,
        ours.params,
        ours.tokenizer,
        TEXTS,
        strategy=ours.generation.constrain(strategy),
        batch_tokens=1000,
    )
    assert [each[0].text for each in outputs] == expected
    assert len(set(expected)) > 1
