"""Greedy and beam outputs are those of the transformers library, token by token."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parity.peers import CASES, Peer, make_inputs, torch

from flax_transformer.decoding.beam_strategy import BeamSearch
from flax_transformer.decoding.generate import generate
from flax_transformer.decoding.greedy import Greedy
from flax_transformer.decoding.strategies import Strategy
from flax_transformer.interop.pretrained import load_pretrained

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

NUM_TOKENS = 9

CONSTRAINTS: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "llama of grouped heads": {},
    "t5 tied, relu": {},
    "bart": {"forced_bos_token_id": 0, "forced_eos_token_id": 2},
    "marian": {"forced_eos_token_id": 0, "bad_words_ids": [[36], [4], [7, 8]]},
}


@pytest.fixture(scope="module")
def generating(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Peer:
    case = CASES[request.param]
    if "t5" in request.param:  # the library's own cache wants stacks of one depth
        case = dataclasses.replace(case, attributes={"num_layers": 2})
    model = case.make()
    _vary(model)
    for name, value in CONSTRAINTS[request.param].items():
        setattr(model.generation_config, name, value)
    directory: Path = tmp_path_factory.mktemp("peer")
    model.save_pretrained(directory)
    return Peer(model, directory, load_pretrained(directory))


def _vary(model: Any) -> None:
    """Let contexts weigh more than the last token, which would follow itself again and again."""
    tables = ("shared", "wte", "lm_head", "embed_tokens", "norm", "ln_")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embed_positions" in name and model.config.model_type == "bart":
                parameter.mul_(6.0)
            elif not any(part in name for part in (*tables, "embed_positions")):
                parameter.mul_(2.0)


def _theirs(peer: Peer, **options: Any) -> list[list[int]]:
    """Return what is generated for each row, up to its end token."""
    inputs = make_inputs(peer.model.config)
    source, mask = inputs.source, inputs.source_mask
    is_pair = peer.model.config.is_encoder_decoder
    if not is_pair:  # prompts are padded on the left there
        order = np.argsort(mask, axis=1, kind="stable")
        source, mask = (np.take_along_axis(each, order, axis=1) for each in (source, mask))
    with torch.no_grad():
        outputs = peer.model.generate(
            torch.tensor(source),
            attention_mask=torch.tensor(mask.astype(np.int64)),
            max_new_tokens=NUM_TOKENS,
            do_sample=False,
            **options,
        ).numpy()
    rows = outputs[:, 1 if is_pair else source.shape[1] :]
    eos_id = peer.model.generation_config.eos_token_id
    return [_cut(row.tolist(), eos_id) for row in rows]


def _cut(row: list[int], eos_id: int) -> list[int]:
    return row[: row.index(eos_id) + 1] if eos_id in row else row


def _ours(peer: Peer, strategy: Strategy) -> list[list[int]]:
    model, params, _, _, generation, _ = peer.pretrained
    inputs = make_inputs(peer.model.config)
    hypotheses = generate(
        model,
        params,
        inputs.source,
        mask=inputs.source_mask,
        strategy=generation.constrain(strategy),
        bos_id=generation.start_id,
        eos_id=generation.eos_ids[0],
        pad_id=generation.pad_id or 0,
    )
    rows = zip(np.asarray(hypotheses.tokens), np.asarray(hypotheses.lengths), strict=True)
    return [
        tokens[:length].tolist()
        for best_tokens, best_lengths in rows
        for tokens, length in zip(best_tokens, best_lengths, strict=True)
    ]


@pytest.mark.parametrize("generating", CONSTRAINTS, indirect=True)
def test_greedy(generating: Peer) -> None:
    expected = _theirs(generating, num_beams=1)
    assert len({token for row in expected for token in row}) > 2
    assert _ours(generating, Greedy(max_length=NUM_TOKENS)) == expected


@pytest.mark.parametrize("generating", CONSTRAINTS, indirect=True)
def test_beam(generating: Peer) -> None:
    expected = _theirs(
        generating,
        num_beams=3,
        num_return_sequences=2,
        length_penalty=0.7,
        early_stopping="never",
    )
    strategy = BeamSearch(
        beam_size=3,
        num_best=2,
        max_length=NUM_TOKENS,
        length_penalty=0.7,
        length_normalization="power",
        early_stopping="never",
    )
    assert _ours(generating, strategy) == expected
