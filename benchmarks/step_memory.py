"""Compare the memory of a training step with what must stand at its height.

    python benchmarks/step_memory.py [--shape small|base|packed]

What must stand: parameters, gradients, the two moments of Adam, and what the forward pass keeps for
the backward pass under the remat policy. What does stand is the compiler's count of arguments,
results and temporaries. Nothing is run.
"""

import argparse
import dataclasses
import math
from typing import Any

import jax

from flax_transformer.models.make_model import make_model
from flax_transformer.parallel.mesh import MeshConfig, make_mesh
from flax_transformer.parallel.sharding_rules import ShardingRules
from flax_transformer.training.objective import make_loss_function
from flax_transformer.training.optimizer import OptimizerConfig, make_optimizer
from flax_transformer.training.program import make_program
from flax_transformer.training.training_config import TrainingConfig
from ours import make_model_config, pack
from training_shapes import SHAPES, Shape, draw_batches

MIB = 2**20
TREES_OF_PARAMETERS = 4
"""Parameters, gradients and two moments."""


def main() -> None:
    """Print a line for each precision."""
    parser = argparse.ArgumentParser(description="Memory of a training step.")
    parser.add_argument("--shape", choices=("tiny", "small", "base", "packed"), default="small")
    parser.add_argument("--remat", choices=("none", "full", "dots", "dots_no_batch"))
    arguments = parser.parse_args()
    shape = SHAPES[arguments.shape]
    if arguments.remat is not None:
        shape = dataclasses.replace(shape, remat=arguments.remat)
    for precision in ("float32", "bfloat16"):
        stands, must_stand = measure(precision, shape)
        print(
            f"{arguments.shape} {precision}: {stands / MIB:,.0f} MiB, "
            f"{stands / must_stand:.2f} of what must stand"
        )


def measure(precision: Any, shape: Shape) -> tuple[int, int]:
    """Return the bytes that stand at the height of a step, and those that must."""
    model = make_model(make_model_config(precision, shape))
    training = TrainingConfig(
        label_smoothing=shape.label_smoothing, vocab_chunks=shape.vocab_chunks
    )
    optimizer = make_optimizer(
        OptimizerConfig(learning_rate=1e-4, schedule="constant", warmup_steps=1), num_steps=1
    )
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    program = make_program(model, optimizer, training, mesh, ShardingRules())
    batch = pack(draw_batches(shape)[0], shape)
    loss_function = make_loss_function(
        model, label_smoothing=shape.label_smoothing, vocab_chunks=shape.vocab_chunks
    )
    # The transposed function of a differentiated one is a tree: its leaves are what is kept.
    program_of_kept = jax.make_jaxpr(
        lambda params, key: jax.vjp(lambda params: loss_function(params, batch, key).loss, params)[
            1
        ]
    )(program.abstract_state.params, jax.eval_shape(lambda: jax.random.key(0))).jaxpr
    given = {id(variable) for variable in program_of_kept.invars + program_of_kept.constvars}
    kept = {id(v): num_bytes(v.aval) for v in program_of_kept.outvars if id(v) not in given}
    params = sum(map(num_bytes, jax.tree.leaves(program.abstract_state.params)))
    memory = program.train_step.lower(program.abstract_state, batch).compile().memory_analysis()
    stands = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes
    )
    return stands, TREES_OF_PARAMETERS * params + sum(kept.values())


def num_bytes(leaf: jax.ShapeDtypeStruct) -> int:
    """Return the size of an array."""
    return math.prod(leaf.shape) * leaf.dtype.itemsize


if __name__ == "__main__":
    main()
