"""The task of sequence classification: texts with a class each, scored by accuracy."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import grain

from flax_transformer.array_types import Parameters
from flax_transformer.config import ExperimentConfig
from flax_transformer.data.sources import load_labelled_texts
from flax_transformer.data.text_pipeline import make_labelled_batches
from flax_transformer.data.texts import LabelledText
from flax_transformer.data.tokenizer import TranslationTokenizer, train_text_tokenizer
from flax_transformer.evaluation.classify import accuracy, classify
from flax_transformer.experiment.task import Corpus, Setting, describe_sizes, share_batches
from flax_transformer.models.encoder_only import EncoderOnly
from flax_transformer.parallel.processes import say


class ClassificationTask:
    """Learn the classes of texts; see :class:`.task.Task`."""

    dev_score = "dev_accuracy"

    def load_corpus(self, config: ExperimentConfig) -> Corpus:
        """Read the texts and their classes."""
        data = config.data
        return Corpus(
            train=load_labelled_texts(data, data.train),
            dev=load_labelled_texts(data, data.dev),
            test=None if data.test is None else load_labelled_texts(data, data.test),
        )

    def describe(self, config: ExperimentConfig, corpus: Corpus) -> str:
        """Name the classes and the numbers of texts."""
        classes = ", ".join(config.data.classes)
        return f"{describe_sizes('texts', corpus)}; classes: {classes}"

    def train_tokenizer(self, config: ExperimentConfig, corpus: Corpus) -> TranslationTokenizer:
        """Train on the training texts."""
        texts = [text.text for text in corpus.train]
        return train_text_tokenizer(config.tokenizer, texts, seed=config.training.seed)

    def make_batches(self, setting: Setting) -> grain.DatasetIterator:
        """Sort the training texts into length buckets."""
        return make_labelled_batches(
            setting.corpus.train,
            setting.tokenizer,
            setting.config.pipeline,
            **share_batches(setting)._asdict(),
        )

    def evaluate(self, setting: Setting, params: Parameters) -> Mapping[str, float]:
        """Return the accuracy on the dev set, in percent."""
        return {self.dev_score: self.choose(setting, params)}

    def choose(self, setting: Setting, params: Parameters) -> float:
        """Return the accuracy on the dev set, in percent."""
        return _measure_accuracy(setting, params, setting.corpus.dev)

    def test(self, setting: Setting, params: Parameters) -> Mapping[str, Any]:
        """Return the accuracy on the test set, in percent; print it."""
        value = _measure_accuracy(setting, params, setting.corpus.test or [])
        say(f"test accuracy {value:.2f} %")
        return {"test_accuracy": value}


def _measure_accuracy(setting: Setting, params: Parameters, texts: Sequence[LabelledText]) -> float:
    config = setting.config
    logits = classify(
        cast(EncoderOnly, setting.model),
        params,
        setting.tokenizer,
        [text.text for text in texts],
        max_length=config.pipeline.max_length,
        batch_tokens=config.evaluation.batch_tokens,
        mesh=setting.mesh,
    )
    return accuracy(logits, [text.label for text in texts])
