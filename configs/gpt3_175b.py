"""The largest GPT-3 (Brown et al., 2020, arXiv 2005.14165, table 2.1), to plan its training.

    flax-transformer plan --config configs/gpt3_175b.py --mesh data=1,fsdp=64,tensor=8 --device h200

The recipe of the paper's appendix B: 300 billion tokens in batches of 3.2 million, rows of 2,048.
Here the learning rate falls to zero, there to a tenth of the highest. So much text would not fit
into memory, which text files are held in. Hardware: 512 devices of 80 GB or more. Time: see the
plan, in docs/plan.md. Not trained here, so there is no score to expect.
"""

import dataclasses

from flax_transformer.config import ExperimentConfig
from flax_transformer.data.pipeline import PipelineConfig
from flax_transformer.data.sources import DataConfig
from flax_transformer.data.tokenizer import TokenizerConfig
from flax_transformer.models.presets import gpt3_175b
from flax_transformer.parallel.mesh import MeshConfig
from flax_transformer.parallel.sharding_rules import ShardingRules
from flax_transformer.training.optimizer import OptimizerConfig
from flax_transformer.training.training_config import TrainingConfig


def get_config() -> ExperimentConfig:
    """Return the experiment."""
    return ExperimentConfig(
        model=dataclasses.replace(
            gpt3_175b(), compute_dtype="bfloat16", scan_layers=True, remat="full"
        ),
        data=DataConfig(kind="text", dataset="text", dev="dev", test=None),
        tokenizer=TokenizerConfig(vocab_size=50_304, algorithm="bpe"),
        pipeline=PipelineConfig(batch_tokens=1536 * 2048, max_length=2048),
        optimizer=OptimizerConfig(
            name="adamw",
            learning_rate=0.6e-4,
            schedule="cosine",
            warmup_steps=119,
            b2=0.95,
            epsilon=1e-8,
            weight_decay=0.1,
        ),
        training=TrainingConfig(task="language_modelling", num_steps=95_367, label_smoothing=0.0),
        mesh=MeshConfig(data=1, fsdp=64, tensor=8),
        sharding=ShardingRules().with_axes({"state_length": "tensor"}),
    )
