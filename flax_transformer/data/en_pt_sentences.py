"""The embedded dataset: a TFDS builder over the sentence grammar, English and Portuguese."""

from collections.abc import Iterator

import tensorflow_datasets as tfds

from flax_transformer.data.sentences.corpus import generate_corpus
from flax_transformer.data.sentences.grammar import Sentence

NAME = "en_pt_sentences"


class EnPtSentences(tfds.core.GeneratorBasedBuilder):
    """English sentences with their Portuguese translations, generated from a small grammar."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=tfds.features.Translation(languages=("en", "pt")),
            supervised_keys=("en", "pt"),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, dict[str, str]]]]:
        del dl_manager  # nothing is downloaded
        return {
            split: self._generate_examples(sentences)
            for split, sentences in generate_corpus().items()
        }

    def _generate_examples(self, sentences: list[Sentence]) -> Iterator[tuple[int, dict[str, str]]]:
        for key, sentence in enumerate(sentences):
            yield key, {"en": sentence.english, "pt": sentence.portuguese}
