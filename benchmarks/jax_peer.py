"""A training step in JAX from a file at hand.

The file is a Python module with a function ``make_step(shape, precision)``, which takes a
:class:`training_shapes.Shape` and ``"float32"`` or ``"bfloat16"``. It returns a function that
trains on one :class:`training_shapes.Sentences`, waits until the parameters are updated, and
returns the loss, in nats a target token.
"""

import importlib.util
import itertools
from typing import Any

import jax

from contenders import Precision
from ours import MatrixProduct, device_memory, use_device
from training_shapes import Shape, draw_batches


class JaxPeer:
    """The contender that a file holds; see :class:`worker.Trainer`."""

    def __init__(self, path: str, precision: Precision, shape: Shape) -> None:
        use_device(shape)
        spec = importlib.util.spec_from_file_location("jax_peer_file", path)
        if spec is None or spec.loader is None:
            raise SystemExit(f"--jax-peer must name a Python file, got {path}.")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self._step = module.make_step(shape, precision)
        self._batches = itertools.cycle(draw_batches(shape))
        self._product = MatrixProduct(precision, shape)

    def run_steps(self, count: int) -> float:
        """Run training steps."""
        for _ in range(count):
            loss = self._step(next(self._batches))
        return float(loss)

    def run_products(self, count: int) -> None:
        """Multiply two matrices."""
        self._product.run(count)

    def report(self) -> dict[str, Any]:
        """Describe the contender."""
        return {
            "num_parameters": None,
            "version": f"jax {jax.__version__}",
            "device_memory_bytes": device_memory(),
        }
