"""The command that continues text."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from flax_transformer.interop.pretrained import Pretrained, save_model
from flax_transformer.models.decoder_only import DecoderOnly
from flax_transformer.models.parameters import init_parameters
from flax_transformer.models.transformer_config import TransformerConfig


@pytest.fixture(scope="module")
def language_model(tiny_translator, tmp_path_factory):
    """The directory of a model whose texts vary."""
    model = DecoderOnly(
        TransformerConfig(
            architecture="decoder_only",
            source_vocab_size=303,
            target_vocab_size=303,
            model_dim=14,
            num_encoder_layers=0,
            num_decoder_layers=1,
            num_heads=2,
            feed_forward_dim=19,
            max_positions=40,
            share_target_output_embedding=False,
        )
    )
    params = init_parameters(model, jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: leaf + 0.5 * rng.normal(size=leaf.shape).astype("f"), params)
    directory = tmp_path_factory.mktemp("language_model") / "model"
    tokenizer = tiny_translator.tokenizer
    save_model(directory, Pretrained(model, params, model.config, tokenizer))
    return directory


@pytest.fixture
def run_generate(run_main, language_model):
    def run_generate(*options, stdin=b""):
        return run_main("generate", language_model, *options, "--max-length", 6, stdin=stdin)

    return run_generate


def test_a_prompt_of_the_command_line_gives_what_a_line_gives(run_generate):
    status, from_lines, errors = run_generate(stdin=b"O gato\n\nO cachorro dorme\n")
    assert (status, errors) == (0, "")
    lines = from_lines.split("\n")
    assert len(lines) == 4
    _, streamed, _ = run_generate("O gato")
    assert " ".join(streamed.split()) == lines[0]
    assert run_generate("--beam-size", 1, "O gato")[1] == streamed
    assert len(set(lines[:3])) == 3


def test_n_best_and_json(run_generate):
    options = ["--beam-size", 3, "--n-best", 2]
    _, lines, _ = run_generate("O gato", *options)
    fields = [line.split(" ||| ") for line in lines.splitlines()]
    assert [index for index, _, _ in fields] == ["0", "0"]
    _, output, _ = run_generate("O gato", *options, "--json")
    texts = json.loads(output)["continuations"]
    assert [f"{text['score']:.4f}" for text in texts] == [score for _, _, score in fields]


def test_samples_are_those_of_the_seed(run_generate):
    options = ["O gato", "--sample", "--temperature", 2]
    first = run_generate(*options, "--seed", 1)
    assert run_generate(*options, "--seed", 1) == first
    assert run_generate(*options, "--seed", 2) != first


def test_a_prompt_needs_no_standard_input(run_generate, language_model):
    _, expected, _ = run_generate("O gato")
    code = f"""
import sys
sys.stdin = None
from flax_transformer.cli.main import main
sys.exit(main(["generate", {str(language_model)!r}, "O gato", "--max-length", "6"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout == expected


def test_outputs_keep_their_edges_and_are_what_is_asked_for(run_generate, tmp_path):
    (tmp_path / "prefix").write_text("  velho\n\n")
    options = ["--prefix", tmp_path / "prefix", "--scores"]
    _, output, _ = run_generate(*options, stdin=b"O gato\nO gato\n")
    (prefixed, _), (plain, score) = (line.split("\t") for line in output.splitlines())
    assert prefixed.startswith("  velho")
    assert float(score) < 0.0
    _, found, _ = run_generate("O gato", "--json")
    assert json.loads(found)["continuations"][0]["text"] == plain


def test_a_contrast_without_strength_keeps_to_the_model(run_generate, language_model):
    _, alone, _ = run_generate("O gato", "--scores")
    options = ["--contrast", language_model, "--scores"]
    assert run_generate("O gato", *options, "--contrast-strength", 0)[1] != ""
    _, contrasted, _ = run_generate("O gato", *options)
    assert contrasted != alone
    options = ["--ensemble", language_model, "--scores"]
    assert run_generate("O gato", *options)[1] == alone


def test_faults_are_one_line(run_main, run_generate, model_directory, tmp_path):
    for result, expected_status, message in (
        (run_main("generate", model_directory, "a"), 1, "must be a model that continues text"),
        (run_main("generate", tmp_path / "none", "a"), 1, "none"),
        (run_generate("gato " * 50), 1, "a prompt must be at most max_positions = 40 tokens"),
        (run_generate("a", "--input", "b"), 2, "PROMPT must not be given with --input"),
        (run_generate("a", "--top-k", 2), 2, "--top-k must be given with --sample"),
        (run_generate("a", "--forced-first-id", 999), 1, "first-id must hold tokens from 0 to 302"),
    ):
        status, _, errors = result
        assert status == expected_status
        assert message in errors
        assert errors.count("\n") == 1
