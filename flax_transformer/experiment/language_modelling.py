"""The tasks of language models: running text, scored by the log-probability of its tokens."""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import grain
import jax
import numpy as np

from flax_transformer.array_types import Parameters
from flax_transformer.config import ExperimentConfig
from flax_transformer.data.batch import TextBatch
from flax_transformer.data.sources import load_documents
from flax_transformer.data.text_pipeline import make_text_batches, prepare_pieces
from flax_transformer.data.tokenizer import TranslationTokenizer, train_text_tokenizer
from flax_transformer.experiment.task import Corpus, Setting, describe_sizes, share_batches
from flax_transformer.models.make_model import Model
from flax_transformer.parallel.mesh import batch_part, num_batch_shards, place_rows
from flax_transformer.parallel.processes import say
from flax_transformer.training.objective import LossSums, make_loss_function


class TextScore(NamedTuple):
    """What the tokens to predict of some text cost, without dropout.

    Attributes:
        nll: mean negative log-probability of a token, in nats.
        num_tokens: tokens that were predicted.
        num_characters: of the text, a blank line between documents.
    """

    nll: float
    num_tokens: int
    num_characters: int

    @property
    def perplexity(self) -> float:
        """The exponential of the mean: of how many tokens there seems to be a choice."""
        return math.exp(min(self.nll, 700.0))

    @property
    def bits_per_character(self) -> float:
        """What can be compared between tokenizers, where every token is predicted once."""
        return self.nll * self.num_tokens / self.num_characters / math.log(2.0)


@dataclass(frozen=True, kw_only=True)
class LanguageTask:
    """Learn to continue text, or to restore what is hidden of it; see :class:`.task.Task`."""

    is_masked: bool
    dev_score = "dev_log_likelihood"

    def load_corpus(self, config: ExperimentConfig) -> Corpus:
        """Read the documents."""
        data = config.data
        return Corpus(
            train=load_documents(data, data.train),
            dev=load_documents(data, data.dev),
            test=None if data.test is None else load_documents(data, data.test),
        )

    def describe(self, config: ExperimentConfig, corpus: Corpus) -> str:
        """Name the folder, and the numbers of documents."""
        return f"{config.data.dataset}, {describe_sizes('documents', corpus)}"

    def train_tokenizer(self, config: ExperimentConfig, corpus: Corpus) -> TranslationTokenizer:
        """Train on the lines of the training text."""
        lines = [line for document in corpus.train for line in document.split("\n")]
        return train_text_tokenizer(config.tokenizer, lines, seed=config.training.seed)

    def make_batches(self, setting: Setting) -> grain.DatasetIterator:
        """Pack the training text."""
        return make_text_batches(
            setting.corpus.train,
            setting.tokenizer,
            setting.config.pipeline,
            joined=setting.config.data.join_documents,
            is_masked=self.is_masked,
            **share_batches(setting)._asdict(),
        )

    def evaluate(self, setting: Setting, params: Parameters) -> Mapping[str, float]:
        """Return the mean log-probability of a token of the dev set, and its perplexity."""
        score = self._score(setting, params, setting.corpus.dev)
        return {self.dev_score: -score.nll, "dev_perplexity": score.perplexity}

    def choose(self, setting: Setting, params: Parameters) -> float:
        """Return the mean log-probability of a token of the dev set, in nats."""
        return -self._score(setting, params, setting.corpus.dev).nll

    def test(self, setting: Setting, params: Parameters) -> Mapping[str, Any]:
        """Return the perplexity of the test set, and what it follows from; print it."""
        score = self._score(setting, params, setting.corpus.test or [])
        results = {
            "test_perplexity": score.perplexity,
            "test_log_likelihood": -score.nll,
            "test_tokens": score.num_tokens,
        }
        line = f"test perplexity {score.perplexity:.3f} a token, {score.num_tokens:,} tokens"
        if not self.is_masked:
            results["test_bits_per_character"] = score.bits_per_character
            line += f", {score.bits_per_character:.4f} bits a character"
        say(line)
        return results

    def _score(self, setting: Setting, params: Parameters, documents: Sequence[str]) -> TextScore:
        nll, num_tokens = 0.0, 0
        for batch in self._make_dev_batches(setting, documents):
            sums = _sum_losses(setting.model, params, place_rows(batch, setting.mesh))
            nll += float(sums.nll)
            num_tokens += int(sums.num_tokens)
        num_characters = len("\n\n".join(documents))
        return TextScore(nll / max(num_tokens, 1), num_tokens, num_characters)

    def _make_dev_batches(self, setting: Setting, documents: Sequence[str]) -> Iterator[TextBatch]:
        """Yield this process's part of batches that hold all of ``documents`` once.

        What is hidden of them is always the same.
        """
        config, mesh = setting.config, setting.mesh
        make_rows = prepare_pieces(
            documents,
            setting.tokenizer,
            config.pipeline,
            joined=config.data.join_documents,
            is_masked=self.is_masked,
        )
        rows = make_rows(range(len(make_rows.pieces)), np.random.default_rng(0))
        row_length, num_shards = config.pipeline.max_length, num_batch_shards(mesh)
        num_rows = max(1, config.evaluation.batch_tokens // (row_length * num_shards)) * num_shards
        part = batch_part(mesh)
        for start in range(0, len(rows), num_rows):
            stacked = [
                np.stack(arrays) for arrays in zip(*rows[start : start + num_rows], strict=True)
            ]
            missing = num_rows - len(stacked[0])
            whole = TextBatch(*(np.pad(array, ((0, missing), (0, 0))) for array in stacked))
            mine = slice(
                part.index * num_rows // part.count, (part.index + 1) * num_rows // part.count
            )
            yield TextBatch(*(array[mine] for array in whole))


@functools.partial(jax.jit, static_argnums=0)
def _sum_losses(model: Model, params: Parameters, batch: TextBatch) -> LossSums:
    return make_loss_function(model)(params, batch, None)
