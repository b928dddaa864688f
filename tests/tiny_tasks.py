"""Tiny experiments on texts of one language, which the tests of several tasks share."""

import dataclasses
import itertools
from pathlib import Path

from tiny_experiment import NOUNS, OBJECTS, VERBS

from flax_transformer.config import ExperimentConfig
from flax_transformer.data.pipeline import PipelineConfig
from flax_transformer.data.sources import DataConfig
from flax_transformer.data.tokenizer import TokenizerConfig
from flax_transformer.models.transformer_config import TransformerConfig
from flax_transformer.training.optimizer import OptimizerConfig
from flax_transformer.training.training_config import TrainingConfig

MODEL = TransformerConfig(
    architecture="encoder_only",
    model_dim=16,
    num_encoder_layers=1,
    num_decoder_layers=0,
    num_heads=2,
    feed_forward_dim=24,
    dropout_rate=0.1,
    max_positions=32,
)
TRAINING = TrainingConfig(
    num_steps=4,
    checkpoint_every=2,
    eval_every=2,
    log_every=1,
    label_smoothing=0.0,
    keep_last=2,
    average_last=2,
)
TASKS = ("language_modelling", "masked_language_modelling", "sequence_classification")


def write_texts(directory: Path) -> None:
    """Write 24 training, 6 dev and 6 test texts: running text, and with its verb as the class."""
    directory.mkdir(parents=True, exist_ok=True)
    sentences = list(itertools.product(NOUNS, VERBS, OBJECTS))
    for start, stem in enumerate(("dev", "test", "train")):
        chosen = [
            words
            for index, words in enumerate(sentences)
            if (index % 6 == start if stem != "train" else index % 6 >= start)
        ]
        text = "\n\n".join(" ".join(words) for words in chosen)
        (directory / f"{stem}.txt").write_text(f"{text}\n")
        table = [f"{words[1]}\t{' '.join(words)}\n" for words in chosen]
        (directory / f"{stem}.tsv").write_text("".join(table))


def make_text_experiment(task: str, data_dir: Path) -> ExperimentConfig:
    """Return an experiment on ``data_dir/tiny``."""
    config = ExperimentConfig(
        data=DataConfig(kind="text", dataset="tiny", dev="dev", data_dir=str(data_dir)),
        tokenizer=TokenizerConfig(vocab_size=277),
        pipeline=PipelineConfig(batch_tokens=8 * 24, max_length=24),
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=3),
    )
    model, batching = MODEL, config.pipeline.batching
    if task == "language_modelling":
        model = dataclasses.replace(
            MODEL, architecture="decoder_only", num_encoder_layers=0, num_decoder_layers=1
        )
    elif task == "masked_language_modelling":
        model = dataclasses.replace(MODEL, head="masked_lm", output_bias=True)
    else:
        model = dataclasses.replace(
            MODEL, head="sequence_classification", pooler="tanh", num_labels=len(VERBS)
        )
        batching = "bucketed"
        config = dataclasses.replace(
            config, pipeline=dataclasses.replace(config.pipeline, long_pairs="cut")
        )
    classes = VERBS if task == "sequence_classification" else ()
    return dataclasses.replace(
        config,
        model=model,
        data=dataclasses.replace(config.data, classes=classes),
        pipeline=dataclasses.replace(config.pipeline, batching=batching),
        training=dataclasses.replace(TRAINING, task=task),
    )
