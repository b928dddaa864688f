"""The forms in which ``translate`` and ``generate`` write the outputs of a line."""

import argparse
import json
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

from flax_transformer.cli.command_parser import positive_int
from flax_transformer.decoding.minimum_bayes_risk import minimum_bayes_risk
from flax_transformer.evaluation.alignment import Alignment, format_alignment
from flax_transformer.evaluation.batch_continuer import Continuation
from flax_transformer.evaluation.metrics import sentence_chrf
from flax_transformer.evaluation.translation import Translation

Output = TypeVar("Output", Translation, Continuation)

_LINE_BREAK = re.compile("\r\n|[\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029]")


def add_format_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is written of an output."""
    parser.add_argument(
        "--n-best",
        metavar="N",
        type=positive_int,
        default=1,
        help="outputs of a line; for more than 1 they are written as "
        "'INDEX ||| TEXT ||| SCORE', where INDEX counts lines from 0 (default: %(default)s)",
    )
    parser.add_argument(
        "--scores",
        action="store_true",
        help="write a tab and the score after each output: its log-probability, which beam search "
        "divides by its length penalty",
    )
    parser.add_argument(
        "--json", action="store_true", help="write an object for each line, with all of the above"
    )


def choose_output(samples: Sequence[Output]) -> list[Output]:
    """Return the sample of the greatest expected chrF, as the only one; none of none."""
    texts = [sample.text for sample in samples]
    return [samples[minimum_bayes_risk(texts, sentence_chrf)]] if samples else []


class TranslationFormat(NamedTuple):
    """What is written of the outputs of a line.

    Attributes:
        n_best: a line ``INDEX ||| TEXT ||| SCORE`` for each of them, in place of the best alone.
        scores: a tab and the score after the text.
        alignment: the alignment at the end: after a tab, or as another field of ``n_best``.
        as_json: all of it as one object on a line.
        name: of the outputs in that object.
    """

    n_best: bool = False
    scores: bool = False
    alignment: bool = False
    as_json: bool = False
    name: str = "translations"

    def write(self, index: int, outputs: Sequence[Translation] | Sequence[Continuation]) -> str:
        r"""Return the lines for line ``index`` of the input, counted from 0.

        Line breaks within a text become spaces, but in JSON; where there is no output, the line is
        empty.

        >>> translations = [Translation("Olá.", -0.25, 3, False, ((0, 0),))]
        >>> TranslationFormat(scores=True, alignment=True).write(3, translations)
        'Olá.\t-0.2500\t0-0\n'
        >>> TranslationFormat(n_best=True).write(3, translations)
        '3 ||| Olá. ||| -0.2500\n'
        """
        if self.as_json:
            return self._write_json(index, outputs)
        lines = [self._columns(output) for output in outputs]
        if self.n_best:
            return "".join(" ||| ".join((str(index), *fields)) + "\n" for fields in lines)
        return "\t".join(lines[0] if lines else [""]) + "\n"

    def _columns(self, output: Translation | Continuation) -> list[str]:
        """Return the text, and the score and the alignment where they are asked for."""
        fields = [_LINE_BREAK.sub(" ", output.text)]
        if self.scores or self.n_best:
            fields.append(f"{output.score:.4f}")
        if self.alignment:
            alignment: Alignment = output._asdict().get("alignment", ())
            fields.append(format_alignment(alignment))
        return fields

    def _write_json(
        self, index: int, outputs: Sequence[Translation] | Sequence[Continuation]
    ) -> str:
        objects = []
        for output in outputs:
            fields: dict[str, Any] = output._asdict()
            # JSON has neither infinity nor NaN: an impossible output has no score.
            if not math.isfinite(output.score):
                fields["score"] = None
            if not self.alignment:
                fields.pop("alignment", None)
            objects.append(fields)
        return json.dumps({"index": index, self.name: objects}, ensure_ascii=False) + "\n"
