"""What test_processes.py runs in two processes; each writes what it has seen to a file."""

import json
import sys
import time
from pathlib import Path

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from flax_transformer.cli.distributed import initialize_distributed
from flax_transformer.data.sentence_pair import SentencePair
from flax_transformer.data.tokenizer import TokenizerConfig, train_tokenizer
from flax_transformer.decoding.greedy import Greedy
from flax_transformer.errors import InputError
from flax_transformer.evaluation.translate import translate
from flax_transformer.models.encoder_decoder import EncoderDecoder
from flax_transformer.models.transformer_config import TransformerConfig
from flax_transformer.parallel.mesh import MeshConfig, make_mesh
from flax_transformer.parallel.processes import (
    AnyProcess,
    check_same,
    fetch,
    is_first_process,
    place_whole,
    say,
    wait_for_all,
)

LINES = ["a red fish", "", "the old ship", "a bird"]


def check_fetch() -> bool:
    """Fetch arrays that are whole nowhere, everywhere, and in this process alone."""
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    array = np.arange(24.0).reshape(4, 6)
    specs = [("data", "tensor"), (("fsdp", "data"),), (None, "fsdp"), ()]
    tree = [place_whole(array, NamedSharding(mesh, PartitionSpec(*spec))) for spec in specs]
    fetched = fetch([*tree, array, jax.numpy.asarray(array)])
    return all(
        isinstance(leaf, np.ndarray) and np.array_equal(leaf, array) for leaf in fetched
    ) and not all(leaf.is_fully_addressable for leaf in tree)


def check_agreement() -> list[bool]:
    """Want something from the third call on, in the second process only."""
    agreement = AnyProcess()
    return [agreement.tell(call >= 2 and not is_first_process()) for call in range(6)]


def check_values() -> list[str]:
    """Compare values of which one differs, and names of values."""
    number = jax.process_index()
    check_same({"seed": 3, "name": "é"})
    refusals = []
    for values in ({"seed": 3, "dtype": f"float{number}"}, {f"name{number}": 0}):
        try:
            check_same(values)
        except InputError as error:
            refusals.append(str(error))
    return refusals


def check_barrier(directory: Path) -> bool:
    """Let the first process see, behind the barrier, what the second did before it."""
    if not is_first_process():
        time.sleep(0.5)
        (directory / "came").touch()
    wait_for_all("barrier")
    return (directory / "came").exists()


def check_translation() -> bool:
    """Translate over all devices and on one."""
    tokenizer = train_tokenizer(
        TokenizerConfig(vocab_size=275),
        [SentencePair(line, line) for line in LINES if line],
        seed=0,
    )
    model = EncoderDecoder(
        TransformerConfig(
            source_vocab_size=tokenizer.source.vocab_size,
            target_vocab_size=tokenizer.target.vocab_size,
            model_dim=8,
            num_encoder_layers=1,
            num_decoder_layers=1,
            num_heads=2,
            feed_forward_dim=6,
            max_positions=32,
        )
    )
    tokens = np.zeros((1, 1), np.int32)
    params = jax.jit(model.init)(jax.random.key(0), tokens, tokens)["params"]
    strategy = Greedy(max_length=7)
    actual, expected = (
        translate(model, params, tokenizer, LINES, strategy=strategy, mesh=mesh)
        for mesh in (make_mesh(MeshConfig()), None)
    )
    return [best[0].text for best in actual] == [best[0].text for best in expected] and np.allclose(
        [best[0].score for best in actual], [best[0].score for best in expected], atol=1e-5
    )


def main() -> None:
    initialize_distributed(start_timeout=60, heartbeat_timeout=60)
    directory = Path(sys.argv[1])
    say("said by the first process")
    seen = {
        "num_devices": [jax.device_count(), jax.local_device_count()],
        "fetch": check_fetch(),
        "agreement": check_agreement(),
        "values": check_values(),
        "barrier": check_barrier(directory),
        "translation": check_translation(),
    }
    path = directory / f"seen-{jax.process_index()}.json"
    path.write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
