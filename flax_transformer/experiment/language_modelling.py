"""The tasks of language models: running text, scored by the log-probability of its tokens."""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
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
from flax_transformer.errors import InputError
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


class LanguageTask:
    """Learn to continue text, or to restore what is hidden of it; see :class:`.task.Task`.

    An object serves one run: it keeps the rows of the dev set, which is evaluated often.
    """

    dev_score = "dev_log_likelihood"

    def __init__(self, *, is_masked: bool) -> None:
        self._is_masked = is_masked
        self._dev_rows: Sequence[TextBatch] | None = None

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
        """Train on the documents, whole: as they are encoded, line breaks within them included."""
        return train_text_tokenizer(config.tokenizer, corpus.train, seed=config.training.seed)

    def make_batches(self, setting: Setting) -> grain.DatasetIterator:
        """Pack the training text; refuse a dev text that cannot be scored."""
        self._prepare_dev(setting)
        return make_text_batches(
            setting.corpus.train,
            setting.tokenizer,
            setting.config.pipeline,
            joined=setting.config.data.join_documents,
            is_masked=self._is_masked,
            **share_batches(setting)._asdict(),
        )

    def evaluate(self, setting: Setting, params: Parameters) -> Mapping[str, float]:
        """Return the mean log-probability of a token of the dev set, and its perplexity."""
        score = self._score_dev(setting, params)
        return {self.dev_score: -score.nll, "dev_perplexity": score.perplexity}

    def choose(self, setting: Setting, params: Parameters) -> float:
        """Return the mean log-probability of a token of the dev set, in nats."""
        return -self._score_dev(setting, params).nll

    def test(self, setting: Setting, params: Parameters) -> Mapping[str, Any]:
        """Return the perplexity of the test set, and what it follows from; print it."""
        documents = setting.corpus.test or []
        score = _score(setting, params, documents, self._make_rows(setting, documents, "test"))
        results = {
            "test_perplexity": score.perplexity,
            "test_log_likelihood": -score.nll,
            "test_tokens": score.num_tokens,
        }
        line = f"test perplexity {score.perplexity:.3f} a token, {score.num_tokens:,} tokens"
        if not self._is_masked:
            results["test_bits_per_character"] = score.bits_per_character
            line += f", {score.bits_per_character:.4f} bits a character"
        say(line)
        return results

    def _score_dev(self, setting: Setting, params: Parameters) -> TextScore:
        return _score(setting, params, setting.corpus.dev, self._prepare_dev(setting))

    def _prepare_dev(self, setting: Setting) -> Sequence[TextBatch]:
        if self._dev_rows is None:
            self._dev_rows = self._make_rows(setting, setting.corpus.dev, "dev")
        return self._dev_rows

    def _make_rows(
        self, setting: Setting, documents: Sequence[str], name: str
    ) -> Sequence[TextBatch]:
        """Pack documents into rows, each without its first axis; what is hidden never changes."""
        make_rows = prepare_pieces(
            documents,
            setting.tokenizer,
            setting.config.pipeline,
            joined=setting.config.data.join_documents,
            is_masked=self._is_masked,
        )
        rows = make_rows(range(len(make_rows.pieces)), np.random.default_rng(0))
        if not any(row.is_predicted.any() for row in rows):
            raise InputError(
                f"data.{name} must have tokens to predict, got none in {len(documents)} documents. "
                "Give it more text."
            )
        return rows


def _score(
    setting: Setting, params: Parameters, documents: Sequence[str], rows: Sequence[TextBatch]
) -> TextScore:
    nll, num_tokens = 0.0, 0
    for batch in _make_batches(setting, rows):
        placed = place_rows(batch, setting.mesh)
        sums = _sum_losses(setting.model, setting.config.training.vocab_chunks, params, placed)
        nll += float(sums.nll)
        num_tokens += int(sums.num_tokens)
    return TextScore(nll / num_tokens, num_tokens, len("\n\n".join(documents)))


def _make_batches(setting: Setting, rows: Sequence[TextBatch]) -> Iterator[TextBatch]:
    """Yield this process's part of batches that hold all rows once."""
    config, mesh = setting.config, setting.mesh
    row_length, num_shards = config.pipeline.max_length, num_batch_shards(mesh)
    num_rows = max(1, config.evaluation.batch_tokens // (row_length * num_shards)) * num_shards
    part = batch_part(mesh)
    mine = slice(part.index * num_rows // part.count, (part.index + 1) * num_rows // part.count)
    for start in range(0, len(rows), num_rows):
        stacked = [np.stack(arrays) for arrays in zip(*rows[start : start + num_rows], strict=True)]
        missing = num_rows - len(stacked[0])
        whole = TextBatch(*(np.pad(array, ((0, missing), (0, 0))) for array in stacked))
        yield TextBatch(*(array[mine] for array in whole))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _sum_losses(model: Model, vocab_chunks: int, params: Parameters, batch: TextBatch) -> LossSums:
    return make_loss_function(model, vocab_chunks=vocab_chunks)(params, batch, None)
