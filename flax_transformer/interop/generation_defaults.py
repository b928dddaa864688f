"""What a public model's files say of the search: its tokens, and what must be generated."""

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax_transformer.decoding.end_tokens import EndTokens
from flax_transformer.decoding.forced_token import ForcedToken
from flax_transformer.decoding.logits_processors import LogitsProcessor
from flax_transformer.decoding.strategies import Strategy
from flax_transformer.decoding.token_constraints import BadWords, SuppressedTokens
from flax_transformer.errors import InputError
from flax_transformer.json_config import read_json_object
from flax_transformer.run_layout import CONFIG_FILE

GENERATION_FILE = "generation_config.json"

_UNBIDDEN_ID = 50_256
"""The start and end token that files of GPT-2's shape name even if their vocabulary is smaller."""

_FIELDS = {
    "bos_token_id": "bos_id",
    "decoder_start_token_id": "start_id",
    "eos_token_id": "eos_ids",
    "forced_bos_token_id": "forced_first_id",
    "forced_eos_token_id": "forced_last_id",
}
"""What a model must have a token of: attributes of the file, and fields."""

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerationDefaults:
    """Tokens with a meaning, and the constraints that a model was meant to be searched with.

    Attributes:
        bos_id: token that texts begin with.
        start_id: token that the decoder of an encoder–decoder reads first.
        eos_ids: tokens that end an output.
        pad_id: token that pads.
        forced_first_id: what every output begins with.
        forced_last_id: what an output of the greatest length ends with.
        suppressed_ids: what is never generated.
        bad_words: sequences that are never generated.
    """

    bos_id: int | None = None
    start_id: int | None = None
    eos_ids: tuple[int, ...] = ()
    pad_id: int | None = None
    forced_first_id: int | None = None
    forced_last_id: int | None = None
    suppressed_ids: tuple[int, ...] = ()
    bad_words: tuple[tuple[int, ...], ...] = ()

    def processors(
        self, *, max_length: int, eos_id: int | None = None
    ) -> tuple[LogitsProcessor, ...]:
        """Return what a strategy of this ``max_length`` must apply to keep to the constraints.

        ``eos_id`` is the end token of the search, and stands for the others of ``eos_ids``. None
        leaves those without effect: only the token that the search ends at can stand for them.

        >>> GenerationDefaults(suppressed_ids=(3,), forced_last_id=0).processors(max_length=8)
        (SuppressedTokens(token_ids=(3,)), ForcedToken(token_id=0, place=7))
        >>> GenerationDefaults(eos_ids=(8, 9)).processors(max_length=8, eos_id=9)
        (EndTokens(end_id=9, other_ids=(8,)),)
        >>> GenerationDefaults(eos_ids=(8, 9)).processors(max_length=8)
        ()
        """
        processors: list[LogitsProcessor] = []
        if self.suppressed_ids:
            processors.append(SuppressedTokens(self.suppressed_ids))
        if self.bad_words:
            processors.append(BadWords(self.bad_words))
        # Behind what rules tokens out: an end that must not come adds nothing to the one that may.
        other_ids = tuple(each for each in self.eos_ids if each != eos_id)
        if eos_id is not None and other_ids:
            processors.append(EndTokens(eos_id, other_ids))
        if self.forced_first_id is not None:
            processors.append(ForcedToken(self.forced_first_id, 0))
        if self.forced_last_id is not None:
            processors.append(ForcedToken(self.forced_last_id, max_length - 1))
        return tuple(processors)

    def constrain(self, strategy: Strategy, *, eos_id: int | None = None) -> Strategy:
        """Return the strategy with these constraints after its own; see :meth:`processors`.

        >>> from flax_transformer.decoding.greedy import Greedy
        >>> GenerationDefaults(suppressed_ids=(3,)).constrain(Greedy()).processors
        (SuppressedTokens(token_ids=(3,)),)
        """
        added = self.processors(max_length=strategy.max_length, eos_id=eos_id)
        return dataclasses.replace(strategy, processors=(*strategy.processors, *added))


def read_generation_defaults(directory: Path) -> GenerationDefaults:
    """Read ``generation_config.json``, or, where there is none, what ``config.json`` says.

    Where neither names the token that a decoder reads first, it is the one that texts begin with,
    as in the ``transformers`` library, or else the padding, as T5's is.

    Raises:
        InputError: a value is not of its kind.
    """
    config_path = directory / CONFIG_FILE
    path = directory / GENERATION_FILE
    config = read_json_object(config_path)
    if path.is_file():
        values = read_json_object(path)
    else:
        path, values = config_path, config
    words = _lists(values, "bad_words_ids", path)
    bos = _ids(values, "bos_token_id", path)
    first = _ids(values, "forced_bos_token_id", path)
    if not first and values.get("force_bos_token_to_be_generated"):  # in the first files of BART
        first = bos
    last = _ids(values, "forced_eos_token_id", path)
    name = "decoder_start_token_id"
    start = _ids(values, name, path) or _ids(config, name, config_path)
    pad = _ids(values, "pad_token_id", path)
    if not start and config.get("is_encoder_decoder"):
        start = bos or pad
    ends = _ids(values, "eos_token_id", path)
    return GenerationDefaults(
        bos_id=_first(bos),
        start_id=_first(start),
        eos_ids=ends,
        pad_id=_first(pad),
        forced_first_id=_first(first),
        forced_last_id=_first(last),
        suppressed_ids=tuple(
            sorted(
                # The library does not let a word forbid to end.
                {word[0] for word in words if len(word) == 1 and word[0] not in ends}
                | set(_ids(values, "suppress_tokens", path))
            )
        ),
        bad_words=tuple(word for word in words if len(word) > 1),
    )


def fit_to_vocabulary(
    defaults: GenerationDefaults, vocab_size: int, directory: Path
) -> GenerationDefaults:
    """Check that a model has the tokens, and leave out, with a warning, what changes nothing.

    That is padding, which no model reads, tokens and sequences that are not to be generated, and
    the number of GPT-2's start and end token, which models trained anew keep in their files.

    >>> defaults = GenerationDefaults(eos_ids=(2,), pad_id=9)
    >>> fit_to_vocabulary(defaults, 9, Path("model")).pad_id is None
    True

    Raises:
        InputError: it has not one of the others.
    """
    ids = {name: _as_tuple(getattr(defaults, field)) for name, field in _FIELDS.items()}
    for name, tokens in ids.items():
        ignored = _UNBIDDEN_ID if name in ("bos_token_id", "eos_token_id") else None
        if beyond := [token for token in tokens if token >= vocab_size and token != ignored]:
            raise InputError(
                f"{directory}: {name} must be below the model's {vocab_size} tokens, got "
                f"{beyond[0]}."
            )
    bos_id, pad_id = defaults.bos_id, defaults.pad_id
    fitting = dataclasses.replace(
        defaults,
        bos_id=None if bos_id is None or bos_id >= vocab_size else bos_id,
        eos_ids=tuple(each for each in defaults.eos_ids if each < vocab_size),
        pad_id=None if pad_id is None or pad_id >= vocab_size else pad_id,
        suppressed_ids=tuple(each for each in defaults.suppressed_ids if each < vocab_size),
        bad_words=tuple(each for each in defaults.bad_words if max(each) < vocab_size),
    )
    if fitting != defaults:
        fields = [field.name for field in dataclasses.fields(defaults)]
        changed = [name for name in fields if getattr(fitting, name) != getattr(defaults, name)]
        _logger.warning(
            "%s: tokens of %s that are not below the model's %d are left out",
            directory,
            ", ".join(changed),
            vocab_size,
        )
    return fitting


def write_generation_defaults(defaults: GenerationDefaults) -> dict[str, Any]:
    """Return the object of ``generation_config.json``; the inverse of reading."""
    values = {
        "bos_token_id": defaults.bos_id,
        "decoder_start_token_id": defaults.start_id,
        "eos_token_id": _one_or_more(defaults.eos_ids),
        "pad_token_id": defaults.pad_id,
        "forced_bos_token_id": defaults.forced_first_id,
        "forced_eos_token_id": defaults.forced_last_id,
        "suppress_tokens": list(defaults.suppressed_ids) or None,
        "bad_words_ids": [list(words) for words in defaults.bad_words] or None,
    }
    return {name: value for name, value in values.items() if value is not None}


def _as_tuple(value: int | tuple[int, ...] | None) -> tuple[int, ...]:
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (value,)


def _one_or_more(ids: tuple[int, ...]) -> int | list[int] | None:
    if not ids:
        return None
    return ids[0] if len(ids) == 1 else list(ids)


def _first(ids: tuple[int, ...]) -> int | None:
    return ids[0] if ids else None


def _ids(values: Mapping[str, Any], name: str, path: Path) -> tuple[int, ...]:
    """Read one token, several or none; -1 is none, too."""
    value = values.get(name)
    ids = value if isinstance(value, list) else [] if value in (None, -1) else [value]
    if not all(type(token) is int and token >= 0 for token in ids):
        raise InputError(f"{path}: {name} must be a token, or tokens, got {str(value)[:60]}.")
    return tuple(ids)


def _lists(values: Mapping[str, Any], name: str, path: Path) -> tuple[tuple[int, ...], ...]:
    lists = values.get(name) or []
    if not (isinstance(lists, list) and all(isinstance(each, list) and each for each in lists)):
        raise InputError(f"{path}: {name} must be lists of tokens, got {str(lists)[:60]}.")
    return tuple(_ids({name: each}, name, path) for each in lists)
