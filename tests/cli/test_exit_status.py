import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_transformer.cli.exit_status import run_guarded

# More than the 2^47 bytes that a process can address: this fails whatever the machine has.
TOO_MANY = 1 << 48
WIDE = jnp.ones(1 << 23)


@pytest.mark.parametrize(
    ("allocate", "size"),
    [
        (lambda: jnp.zeros(TOO_MANY // 4), f"{TOO_MANY} bytes"),
        (lambda: jax.jit(lambda x: jnp.outer(x, x))(WIDE), f"{TOO_MANY} bytes"),
        (lambda: np.zeros(TOO_MANY // 8), "256. TiB"),
    ],
    ids=["array", "computation", "numpy"],
)
def test_running_out_of_memory_is_one_line_with_the_size(capsys, allocate, size):
    def command():
        jax.block_until_ready(allocate())
        return 0

    assert run_guarded("train", command, is_filter=False) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("train: error: out of memory (")
    assert captured.err.endswith("Make batches, the beam or the model smaller.\n")
    assert re.search(size, captured.err)


def test_another_error_of_the_compiler_keeps_its_traceback():
    def command():
        raise jax.errors.JaxRuntimeError("INTERNAL: a fault of the program")

    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        run_guarded("train", command, is_filter=False)
