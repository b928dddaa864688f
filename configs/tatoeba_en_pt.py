"""English to Portuguese, everyday sentences of Tatoeba.

    export FLAX_TRANSFORMER_DATA=<folder that holds en-pt/train.*, val.*, test_tatoeba.*>
    python train.py --config configs/tatoeba_en_pt.py --workdir runs/tatoeba_en_pt

Each line's source is named in ``train.src``; this config keeps the lines of Tatoeba. All lines,
manuals and books too, are taken with ``--data.labels`` without a value; that wants a larger model.
Hardware: two CPU cores. Not trained to its end yet, so there is no score to expect.
"""

from flax_transformer.config import ExperimentConfig
from flax_transformer.data.pipeline import PipelineConfig
from flax_transformer.data.sources import DataConfig
from flax_transformer.data.tokenizer import TokenizerConfig
from flax_transformer.models.transformer_config import TransformerConfig
from flax_transformer.training.optimizer import OptimizerConfig
from flax_transformer.training.training_config import TrainingConfig


def get_config() -> ExperimentConfig:
    """Return the experiment."""
    return ExperimentConfig(
        model=TransformerConfig(
            model_dim=128,
            num_encoder_layers=4,
            num_decoder_layers=4,
            num_heads=4,
            feed_forward_dim=512,
            dropout_rate=0.3,
            max_positions=256,
        ),
        data=DataConfig(
            kind="text",
            dataset="en-pt",
            source_language="en",
            target_language="pt",
            dev="val",
            test="test_tatoeba",
            labels=("tatoeba", "tatoeba-pivot"),
        ),
        tokenizer=TokenizerConfig(vocab_size=4000),
        pipeline=PipelineConfig(batch_tokens=4096, max_length=64),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=1000),
        training=TrainingConfig(num_steps=4000, eval_every=250, checkpoint_every=250, log_every=50),
    )
