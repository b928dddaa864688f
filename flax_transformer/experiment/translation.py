"""The task of translation: sentence pairs, scored by BLEU."""

from collections.abc import Mapping, Sequence
from typing import Any

import grain
import numpy as np

from flax_transformer.array_types import Parameters
from flax_transformer.config import ExperimentConfig
from flax_transformer.data.pipeline import make_training_batches
from flax_transformer.data.sentence_pair import SentencePair
from flax_transformer.data.sources import describe_direction, load_sentence_pairs
from flax_transformer.data.tokenizer import TranslationTokenizer, train_tokenizer
from flax_transformer.evaluation.metrics import corpus_bleu, corpus_chrf, corpus_scores
from flax_transformer.evaluation.translate import translate
from flax_transformer.experiment.task import Corpus, Setting, describe_sizes, share_batches
from flax_transformer.parallel.processes import say
from flax_transformer.run_layout import TOKENS_DIRECTORY
from flax_transformer.training.loop import DEV_SCORE


class TranslationTask:
    """Learn to translate; see :class:`.task.Task`."""

    dev_score = DEV_SCORE

    def load_corpus(self, config: ExperimentConfig) -> Corpus:
        """Read the sentence pairs."""
        data = config.data
        return Corpus(
            train=load_sentence_pairs(data, data.train),
            dev=load_sentence_pairs(data, data.dev),
            test=None if data.test is None else load_sentence_pairs(data, data.test),
        )

    def describe(self, config: ExperimentConfig, corpus: Corpus) -> str:
        """Name the direction and the numbers of pairs."""
        return f"{describe_direction(config.data)}, {describe_sizes('sentence pairs', corpus)}"

    def train_tokenizer(self, config: ExperimentConfig, corpus: Corpus) -> TranslationTokenizer:
        """Train on both sides of the training pairs."""
        return train_tokenizer(config.tokenizer, corpus.train, seed=config.training.seed)

    def make_batches(self, setting: Setting) -> grain.DatasetIterator:
        """Pack or sort the training pairs."""
        return make_training_batches(
            setting.corpus.train,
            setting.tokenizer,
            setting.config.pipeline,
            **share_batches(setting)._asdict(),
            cache_directory=setting.workdir / TOKENS_DIRECTORY,
        )

    def evaluate(self, setting: Setting, params: Parameters) -> Mapping[str, float]:
        """Return BLEU and chrF of the dev set, with the search for training."""
        pairs = setting.corpus.dev
        hypotheses = _translate(setting, params, pairs, setting.config.evaluation.dev_beam_size)
        references = [pair.target for pair in pairs]
        return {
            DEV_SCORE: corpus_bleu(hypotheses, references).value,
            "dev_chrf": corpus_chrf(hypotheses, references).value,
        }

    def choose(self, setting: Setting, params: Parameters) -> float:
        """Return BLEU of the dev set, with the search that the test set is translated with."""
        pairs = setting.corpus.dev
        hypotheses = _translate(setting, params, pairs, setting.config.evaluation.test_beam_size)
        return corpus_bleu(hypotheses, [pair.target for pair in pairs]).value

    def test(self, setting: Setting, params: Parameters) -> Mapping[str, Any]:
        """Return the scores of the test set; print them and some translations."""
        pairs, evaluation = setting.corpus.test or [], setting.config.evaluation
        hypotheses = _translate(setting, params, pairs, evaluation.test_beam_size)
        scores = corpus_scores(hypotheses, [pair.target for pair in pairs])
        for index in np.linspace(0, len(pairs) - 1, evaluation.num_examples).astype(int):
            say(f"  source       {pairs[index].source}")
            say(f"  translation  {hypotheses[index]}")
            say(f"  reference    {pairs[index].target}\n")
        say(f"test BLEU {scores.bleu:.2f}  chrF {scores.chrf:.2f}  {scores.signatures['bleu']}")
        workdir = setting.workdir
        say(f"the model is in {workdir}: flax-transformer translate {workdir}")
        return {
            "test_bleu": scores.bleu,
            "test_chrf": scores.chrf,
            "test_ter": scores.ter,
            "signatures": scores.signatures,
        }


def _translate(
    setting: Setting, params: Parameters, pairs: Sequence[SentencePair], beam_size: int
) -> list[str]:
    """Return the best translation of each pair's source; all devices share the work."""
    evaluation = setting.config.evaluation
    translations = translate(
        setting.model,
        params,
        setting.tokenizer,
        [pair.source for pair in pairs],
        strategy=evaluation.strategy(beam_size),
        batch_tokens=evaluation.batch_tokens,
        mesh=setting.mesh,
    )
    return [best[0].text for best in translations]
