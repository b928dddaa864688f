"""A small language model of running text: Shakespeare's plays, a million characters.

    export FLAX_TRANSFORMER_DATA=<folder that holds mono/tinyshakespeare.txt>
    python train.py --config configs/shakespeare.py --workdir runs/shakespeare

The first 90 % of the lines are trained on, the next 5 % choose, the last 5 % test. Any other text
file will do: ``--data.dataset mono --data.train "machado[:90%]" --data.dev "machado[90%:95%]"
--data.test "machado[95%:]"``. Hardware: two CPU cores. Time: 27 minutes on cores that were shared
with other work. To expect: 30.6 of perplexity a token on dev, 42.1 on test, which is 2.44 bits a
character (seed 0).
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
            architecture="decoder_only",
            model_dim=128,
            num_encoder_layers=0,
            num_decoder_layers=4,
            num_heads=4,
            feed_forward_dim=384,
            activation="silu",
            gated_feed_forward=True,
            feed_forward_bias=False,
            pre_norm=True,
            norm="rms",
            dropout_rate=0.1,
            position_encoding="rotary",
            max_positions=128,
            scale_embedding=False,
        ),
        data=DataConfig(
            kind="text",
            dataset="mono",
            train="tinyshakespeare[:90%]",
            dev="tinyshakespeare[90%:95%]",
            test="tinyshakespeare[95%:]",
        ),
        tokenizer=TokenizerConfig(vocab_size=1000),
        pipeline=PipelineConfig(batch_tokens=4096, max_length=128),
        optimizer=OptimizerConfig(
            name="adamw",
            learning_rate=3e-3,
            schedule="cosine",
            warmup_steps=100,
            epsilon=1e-8,
            weight_decay=0.1,
        ),
        training=TrainingConfig(
            task="language_modelling",
            num_steps=600,
            eval_every=100,
            checkpoint_every=100,
            log_every=50,
            label_smoothing=0.0,
            average_last=1,
        ),
    )
