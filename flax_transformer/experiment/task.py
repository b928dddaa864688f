"""What of an experiment depends on what the model shall learn."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import grain
from jax.sharding import Mesh

from flax_transformer.array_types import Parameters
from flax_transformer.config import ExperimentConfig
from flax_transformer.data.tokenizer import TranslationTokenizer
from flax_transformer.models.make_model import Model
from flax_transformer.parallel.mesh import batch_part, num_batch_shards


class Corpus(NamedTuple):
    """The examples of an experiment; the test set is used once, at the end."""

    train: Sequence[Any]
    dev: Sequence[Any]
    test: Sequence[Any] | None


class Setting(NamedTuple):
    """What the parts of an experiment share.

    Attributes:
        config: with the sizes that come from the tokenizer or from the model to start from.
        task: what the model shall learn.
        corpus: the examples.
        tokenizer: of both languages, or of the one.
        model: what is trained.
        mesh: the devices.
        workdir: where the run is.
    """

    config: ExperimentConfig
    task: "Task"
    corpus: Corpus
    tokenizer: TranslationTokenizer
    model: Model
    mesh: Mesh
    workdir: Path


class Task(Protocol):
    """A kind of experiment. Every process calls the methods with the same arguments."""

    @property
    def dev_score(self) -> str:
        """Name of the metric that chooses among parameters; higher is better."""

    def load_corpus(self, config: ExperimentConfig) -> Corpus:
        """Read the training, the dev and the test set."""

    def describe(self, config: ExperimentConfig, corpus: Corpus) -> str:
        """Say what the data is, in one line."""

    def train_tokenizer(self, config: ExperimentConfig, corpus: Corpus) -> TranslationTokenizer:
        """Train the tokenizer of a run that starts from nothing."""

    def make_batches(self, setting: Setting) -> grain.DatasetIterator:
        """Return this process's part of the training batches."""

    def evaluate(self, setting: Setting, params: Parameters) -> Mapping[str, float]:
        """Measure parameters on the dev set while they are trained."""

    def choose(self, setting: Setting, params: Parameters) -> float:
        """Return the metric ``dev_score``, measured as the test set will be."""

    def test(self, setting: Setting, params: Parameters) -> Mapping[str, Any]:
        """Measure the chosen parameters on the test set, for ``results.json``; print the scores."""


class BatchShare(NamedTuple):
    """How the rows of a training batch are shared out, as the pipelines take it."""

    seed: int
    part_index: int
    part_count: int
    row_multiple: int


def share_batches(setting: Setting) -> BatchShare:
    """Return this process's share of the training batches."""
    part, training = batch_part(setting.mesh), setting.config.training
    return BatchShare(
        seed=training.seed,
        part_index=part.index,
        part_count=part.count,
        row_multiple=num_batch_shards(setting.mesh) * training.accumulation_steps,
    )


def describe_sizes(kind: str, corpus: Corpus) -> str:
    """Return the number of examples of each set, for people.

    >>> describe_sizes("texts", Corpus(["a"] * 1000, ["b"], None))
    'texts: 1,000 train, 1 dev'
    """
    sizes = {name: examples for name, examples in corpus._asdict().items() if examples}
    return f"{kind}: " + ", ".join(f"{len(examples):,} {name}" for name, examples in sizes.items())
