"""The forms in which ``translate`` writes the translations of a line."""

import json
import math
from typing import NamedTuple

from flax_transformer.evaluation.alignment import format_alignment
from flax_transformer.evaluation.translation import Translation


class TranslationFormat(NamedTuple):
    """What is written of the translations of a line.

    Attributes:
        n_best: a line ``INDEX ||| TEXT ||| SCORE`` for each of them, in place of the best alone.
        scores: a tab and the score after the text.
        alignment: the alignment at the end: after a tab, or as another field of ``n_best``.
        as_json: all of it as one object on a line.
    """

    n_best: bool = False
    scores: bool = False
    alignment: bool = False
    as_json: bool = False

    def write(self, index: int, translations: list[Translation]) -> str:
        r"""Return the lines for line ``index`` of the input, counted from 0.

        >>> translations = [Translation("Olá.", -0.25, 3, False, ((0, 0),))]
        >>> TranslationFormat(scores=True, alignment=True).write(3, translations)
        'Olá.\t-0.2500\t0-0\n'
        >>> TranslationFormat(n_best=True).write(3, translations)
        '3 ||| Olá. ||| -0.2500\n'
        """
        if self.as_json:
            return self._write_json(index, translations)
        if self.n_best:
            return "".join(self._write_n_best(index, each) for each in translations)
        best = translations[0]
        fields = [best.text]
        if self.scores:
            fields.append(f"{best.score:.4f}")
        if self.alignment:
            fields.append(format_alignment(best.alignment))
        return "\t".join(fields) + "\n"

    def _write_n_best(self, index: int, translation: Translation) -> str:
        fields = [str(index), translation.text, f"{translation.score:.4f}"]
        if self.alignment:
            fields.append(format_alignment(translation.alignment))
        return " ||| ".join(fields) + "\n"

    def _write_json(self, index: int, translations: list[Translation]) -> str:
        objects = []
        for translation in translations:
            fields = translation._asdict()
            # JSON has no infinity: an impossible output has no score.
            if not math.isfinite(translation.score):
                fields["score"] = None
            if not self.alignment:
                del fields["alignment"]
            objects.append(fields)
        return json.dumps({"index": index, "translations": objects}, ensure_ascii=False) + "\n"
