import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tiny_public_models import make_public

from flax_transformer.data.sentence_pair import SentencePair
from flax_transformer.data.tokenizer import TokenizerConfig, train_tokenizer
from flax_transformer.interop.pretrained import Pretrained, load_pretrained, save_model
from flax_transformer.models.encoder_decoder import EncoderDecoder
from flax_transformer.models.transformer_config import TransformerConfig

SAVE_FOR_EVER = """
import sys
from pathlib import Path
from flax_transformer.interop.pretrained import load_pretrained, save_model

pretrained = load_pretrained(sys.argv[1])
print("ready", flush=True)
while True:
    save_model(Path(sys.argv[2]), pretrained)
"""


def make_pretrained() -> Pretrained:
    pairs = [SentencePair("the red book", "o livro vermelho"), SentencePair("a cat", "um gato")] * 5
    tokenizer = train_tokenizer(TokenizerConfig(vocab_size=283, algorithm="bpe"), pairs, seed=0)
    config = TransformerConfig(
        source_vocab_size=tokenizer.source.vocab_size,
        target_vocab_size=tokenizer.target.vocab_size,
        model_dim=6,
        num_heads=3,
        num_encoder_layers=1,
        num_decoder_layers=1,
        feed_forward_dim=11,
    )
    model = EncoderDecoder(config)
    tokens = jnp.array([[3, 5, 7, 2]])
    params = model.init(jax.random.key(0), tokens, tokens)["params"]
    return Pretrained(model, params, config, tokenizer)


def assert_whole(directory: Path, expected: Pretrained) -> None:
    loaded = load_pretrained(directory)
    assert loaded.config == expected.config
    assert loaded.tokenizer == expected.tokenizer
    for left, right in zip(
        jax.tree.leaves(loaded.params), jax.tree.leaves(expected.params), strict=True
    ):
        np.testing.assert_array_equal(left, right)


def test_kill_9_in_an_export_leaves_no_part_of_a_model(tmp_path: Path) -> None:
    pretrained = make_pretrained()
    save_model(tmp_path / "first", pretrained)
    directory, being_written = tmp_path / "model", tmp_path / ".model.new"
    command = [sys.executable, "-c", SAVE_FOR_EVER, str(tmp_path / "first"), str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        while not (directory.exists() and being_written.exists()):
            time.sleep(0.0001)
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    assert_whole(directory, pretrained)
    save_model(directory, pretrained)
    assert_whole(directory, pretrained)
    assert not being_written.exists()


def test_between_the_two_renamings_the_old_model_is_found(tmp_path: Path) -> None:
    pretrained = make_pretrained()
    save_model(tmp_path / "model", pretrained)
    (tmp_path / "model").rename(tmp_path / ".model.old")
    assert_whole(tmp_path / "model", pretrained)
    assert_whole(tmp_path, pretrained)


def test_a_link_to_a_model_stays_and_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "model"
    link.symlink_to("elsewhere", target_is_directory=True)
    for _ in range(3):
        save_model(link, make_public("GPT2LMHeadModel"))
    assert link.is_symlink()
    assert (tmp_path / "elsewhere" / "config.json").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"elsewhere", "model"}
