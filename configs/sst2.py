"""Sentiment of sentences from film reviews: SST-2 (Socher et al., 2013), whole sentences alone.

    export FLAX_TRANSFORMER_DATA=<folder that holds sst2/train.tsv, dev.tsv, test.tsv>
    python train.py --config configs/sst2.py --workdir runs/sst2

Each line is ``0`` or ``1``, a tab and a sentence; there are 6,909 to train on. The parameters are
random at first; with ``--init-from DIR --training.adopt-architecture --optimizer.learning-rate
5e-5 --tokenizer.subword-regularization 0`` a pretrained encoder is fine-tuned instead. Hardware:
two CPU cores. Time: two minutes. Score to expect: accuracy 79.4 % on dev, 76.3 % on test (seed 0).
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
            architecture="encoder_only",
            model_dim=64,
            num_encoder_layers=2,
            num_decoder_layers=0,
            num_heads=4,
            feed_forward_dim=128,
            pre_norm=True,
            dropout_rate=0.3,
            max_positions=128,
            head="sequence_classification",
            pooler="tanh",
            num_labels=2,
        ),
        data=DataConfig(
            kind="text",
            dataset="sst2",
            train="train",
            dev="dev",
            test="test",
            classes=("0", "1"),
        ),
        tokenizer=TokenizerConfig(vocab_size=4000, subword_regularization=0.3),
        pipeline=PipelineConfig(
            batching="bucketed", batch_tokens=2048, max_length=80, long_pairs="cut"
        ),
        optimizer=OptimizerConfig(
            name="adamw",
            learning_rate=2e-3,
            schedule="cosine",
            warmup_steps=100,
            epsilon=1e-8,
            weight_decay=0.01,
        ),
        training=TrainingConfig(
            task="sequence_classification",
            num_steps=700,
            eval_every=100,
            checkpoint_every=100,
            log_every=50,
            max_loss_rise=None,
        ),
    )
