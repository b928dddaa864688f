"""A tiny experiment on text files that the tests of several packages share."""

import itertools
from pathlib import Path

from flax_transformer.config import ExperimentConfig
from flax_transformer.data.pipeline import PipelineConfig
from flax_transformer.data.sources import DataConfig
from flax_transformer.data.tokenizer import TokenizerConfig
from flax_transformer.evaluation.evaluation_config import EvaluationConfig
from flax_transformer.models.transformer_config import TransformerConfig
from flax_transformer.training.optimizer import OptimizerConfig
from flax_transformer.training.training_config import TrainingConfig

NOUNS = ("cat", "dog", "bird", "boy")
VERBS = ("eats", "sees", "has")
OBJECTS = ("it", "a red fish", "the old ship")


def write_corpus(directory: Path) -> None:
    """Write 24 training, 6 dev and 6 test pairs: English, and the same words backwards."""
    sentences = [" ".join(words) for words in itertools.product(NOUNS, VERBS, OBJECTS)]
    directory.mkdir(parents=True, exist_ok=True)
    for start, stem in enumerate(("dev", "test", "train")):
        lines = [
            line
            for index, line in enumerate(sentences)
            if (index % 6 == start if stem != "train" else index % 6 >= start)
        ]
        targets = [" ".join(reversed(line.split())) for line in lines]
        (directory / f"{stem}.en").write_text("".join(f"{line}\n" for line in lines))
        (directory / f"{stem}.xx").write_text("".join(f"{line}\n" for line in targets))


def make_tiny_experiment(data_dir: Path) -> ExperimentConfig:
    """Return an experiment on ``data_dir/tiny``, about four batches an epoch, all at random."""
    return ExperimentConfig(
        model=TransformerConfig(
            model_dim=16,
            num_encoder_layers=1,
            num_decoder_layers=1,
            num_heads=2,
            feed_forward_dim=24,
            dropout_rate=0.1,
            max_positions=32,
        ),
        data=DataConfig(
            kind="text",
            dataset="tiny",
            source_language="en",
            target_language="xx",
            dev="dev",
            test="test",
            data_dir=str(data_dir),
        ),
        tokenizer=TokenizerConfig(vocab_size=281, subword_regularization=0.3),
        pipeline=PipelineConfig(batch_tokens=8 * 20, max_length=20),
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=3),
        training=TrainingConfig(
            num_steps=12,
            checkpoint_every=4,
            eval_every=6,
            log_every=2,
            keep_last=2,
            average_last=2,
        ),
        evaluation=EvaluationConfig(test_beam_size=2, max_length=20, num_examples=1),
    )
