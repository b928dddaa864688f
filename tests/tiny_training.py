"""Tiny trainings within the test's process, on real batches that may be spoilt."""

import dataclasses
import itertools
import json
import os
import signal
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grain
import jax
from jax.sharding import Mesh
from tiny_experiment import make_tiny_experiment, write_corpus

from flax_transformer.array_types import Parameters
from flax_transformer.config import ExperimentConfig
from flax_transformer.data.batch import Batch
from flax_transformer.data.pipeline import PipelineConfig, make_training_batches
from flax_transformer.data.sentence_pair import SentencePair
from flax_transformer.data.sources import load_sentence_pairs
from flax_transformer.data.tokenizer import TranslationTokenizer, train_tokenizer
from flax_transformer.models.encoder_decoder import EncoderDecoder
from flax_transformer.parallel.mesh import MeshConfig, make_mesh
from flax_transformer.run_layout import METRICS_FILE
from flax_transformer.training.loop import DEV_SCORE, Start, TrainingResult, train
from flax_transformer.training.optimizer import OptimizerConfig, make_optimizer, make_schedule

PACKED = PipelineConfig(batch_tokens=8 * 20, max_length=20)
# One bucket, so that batches have the shape of packed ones and nothing is compiled again.
BUCKETED = dataclasses.replace(PACKED, batching="bucketed", bucket_growth=99.0)
OUTSIDE_THE_TABLE = 99_999


class TinyTask(NamedTuple):
    """What a training needs; the config has the vocabulary sizes of the tokenizer."""

    config: ExperimentConfig
    pairs: Sequence[SentencePair]
    tokenizer: TranslationTokenizer


def make_tiny_task(directory: Path, vocab_size: int = 281) -> TinyTask:
    """Write the corpus to ``directory``, and train a tokenizer on it."""
    write_corpus(directory / "tiny")
    config = make_tiny_experiment(directory)
    pairs = load_sentence_pairs(config.data, "train")
    tokenizer_config = dataclasses.replace(config.tokenizer, vocab_size=vocab_size)
    tokenizer = train_tokenizer(tokenizer_config, pairs, seed=0)
    model = dataclasses.replace(
        config.model,
        source_vocab_size=tokenizer.source.vocab_size,
        target_vocab_size=tokenizer.target.vocab_size,
    )
    return TinyTask(dataclasses.replace(config, model=model), pairs, tokenizer)


class FaultyBatches(grain.DatasetIterator):
    """Batches with faults, by their numbers from 1.

    Those that are spoilt hold tokens that the model does not know; with another comes a signal.
    """

    def __init__(
        self, parent: grain.DatasetIterator, spoilt: Collection[int], signal_at: int | None
    ) -> None:
        super().__init__(parent)
        self._batches: Iterator[Batch] = parent
        self._numbers = itertools.count(1)
        self._spoilt = spoilt
        self._signal_at = signal_at

    def __next__(self) -> Batch:
        batch = next(self._batches)
        number = next(self._numbers)
        if number in self._spoilt:
            batch.source[:, 0] = OUTSIDE_THE_TABLE
        if number == self._signal_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return batch

    def get_state(self) -> dict[str, Any]:
        return self._parent.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        self._parent.set_state(state)


class Outcome(NamedTuple):
    """What came of a training: its result, the rest of the batches, and all that was exported."""

    result: TrainingResult
    batches: grain.DatasetIterator
    exported: list[Parameters]


def run_tiny_training(
    task: TinyTask,
    workdir: Path,
    *,
    scores: Iterator[float] | Sequence[float] = (),
    pipeline: PipelineConfig = PACKED,
    optimizer: OptimizerConfig | None = None,
    mesh: Mesh | None = None,
    start: Start = Start(),
    spoilt: Collection[int] = (),
    signal_at: int | None = None,
    export: Callable[[Parameters], None] = lambda params: None,
    **changes: Any,
) -> Outcome:
    """Train on one device, or on ``mesh``; the evaluations give ``scores``, and then 0.

    ``changes`` are those to the config's section ``training``.
    """
    optimizer = optimizer or task.config.optimizer
    training = dataclasses.replace(task.config.training, **{"log_every": 1, **changes})
    batches = make_training_batches(task.pairs, task.tokenizer, pipeline, seed=training.seed)
    scores = iter(scores)
    exported = []

    def export_best(params: Parameters) -> None:
        export(params)
        exported.append(jax.device_get(params))

    result = train(
        EncoderDecoder(task.config.model),
        make_optimizer(optimizer, num_steps=training.num_steps),
        make_schedule(optimizer, num_steps=training.num_steps),
        FaultyBatches(batches, spoilt, signal_at) if spoilt or signal_at else batches,
        config=training,
        mesh=make_mesh(MeshConfig(), jax.devices()[:1]) if mesh is None else mesh,
        workdir=workdir,
        evaluate=lambda params: {DEV_SCORE: next(scores, 0.0)},
        export_best=export_best,
        start=start,
    )
    return Outcome(result, batches, exported)


def read_log(workdir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workdir / METRICS_FILE).read_text().splitlines()]


def read_losses(workdir: Path) -> dict[int, float]:
    return {entry["step"]: entry["loss"] for entry in read_log(workdir) if "loss" in entry}
