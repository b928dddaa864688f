"""The attributes of a ``config.json``: read with their types, and none passed over."""

from collections.abc import Collection, Mapping
from typing import Any

from flax_transformer.errors import InputError

HARMLESS = frozenset(
    {
        # What is said of the model, and changes nothing that it computes.
        *(
            "architectures",
            "model_type",
            "transformers_version",
            "_name_or_path",
            "tokenizer_class",
        ),
        *("name_or_path", "dtype", "torch_dtype", "finetuning_task", "task_specific_params"),
        *("transformers.js_config", "unsloth_version", "unsloth_fixed", "save_step"),
        *("_num_labels", "id2label", "label2id", "num_labels", "problem_type", "_commit_hash"),
        # What a call returns, and how it is computed.
        *("output_attentions", "output_hidden_states", "output_past", "return_dict", "use_cache"),
        *("gradient_checkpointing", "chunk_size_feed_forward", "torchscript", "use_bfloat16"),
        *("attn_implementation", "_attn_implementation", "_attn_implementation_autoset"),
        # How parameters are drawn that are not in the file.
        *("initializer_range", "initializer_factor", "init_std"),
        # Dropout of what has no dropout of its own here; it is off outside training.
        *("classifier_dropout", "classif_dropout", "seq_classif_dropout", "qa_dropout"),
        *("encoder_layerdrop", "decoder_layerdrop", "summary_first_dropout"),
        # Tokens with a meaning, and constraints of the search: read by generation_defaults.py.
        *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"),
        *("sep_token_id", "cls_token_id", "mask_token_id", "unk_token_id", "prefix"),
        *("force_bos_token_to_be_generated", "forced_bos_token_id", "forced_eos_token_id"),
        *("bad_words_ids", "suppress_tokens"),
        # Defaults of a search that its caller chooses here, and so are not read.
        *("max_length", "min_length", "num_beams", "num_beam_groups", "max_sequence_length"),
        *("length_penalty", "early_stopping", "do_sample", "temperature", "top_k", "top_p"),
        *("typical_p", "repetition_penalty", "no_repeat_ngram_size", "num_return_sequences"),
        *("encoder_no_repeat_ngram_size", "diversity_penalty", "remove_invalid_values"),
        *("output_scores", "return_dict_in_generate", "exponential_decay_length_penalty"),
    }
)
"""Attributes of every family that do not change what a model computes of given tokens."""

_NEUTRAL: Mapping[str, Any] = {
    "add_cross_attention": False,
    "tie_encoder_decoder": False,
    "pruned_heads": {},
    "is_decoder": False,
    "tf_legacy_loss": False,
}
"""Attributes of every family that change nothing at this value, and are supported at no other."""


class Attributes:
    """The attributes of a model, with a record of those that have been read.

    An attribute of null is one that is not given.

    Args:
        values: decoded JSON.
        source: the file, for messages.
    """

    def __init__(self, values: Mapping[str, Any], source: str) -> None:
        self.source = source
        self._values = {name: value for name, value in values.items() if value is not None}
        self._nulls = frozenset(name for name, value in values.items() if value is None)
        self._read: set[str] = set()

    def has(self, name: str) -> bool:
        """Tell whether an attribute is given."""
        return name in self._values

    def is_null(self, name: str) -> bool:
        """Tell whether an attribute is there as null, where that is no default."""
        return name in self._nulls

    def integer(self, name: str, default: int | None = None) -> int:
        """Return an integer; without a default it must be given."""
        value = self._get(name, default)
        if type(value) is not int:
            raise self._refusal(name, "a whole number", value)
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """Return a number; without a default it must be given."""
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._refusal(name, "a number", value)
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """Return True or False."""
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise self._refusal(name, "true or false", value)
        return value

    def text(self, name: str, default: str) -> str:
        """Return a string."""
        value = self._get(name, default)
        if not isinstance(value, str):
            raise self._refusal(name, "a string", value)
        return value

    def value(self, name: str) -> Any:
        """Return what is given, of whatever type; None if nothing is."""
        return self._get(name, None)

    def table(self, name: str) -> "Attributes":
        """Return the attributes within an attribute; none if it is not given."""
        value = self._get(name, {})
        if not isinstance(value, dict):
            raise self._refusal(name, "an object", value)
        return Attributes(value, f"{self.source}: {name}")

    def choose(self, name: str, choices: Mapping[str, Any], default: str) -> Any:
        """Return what a string stands for."""
        value = self.text(name, default)
        if value not in choices:
            raise self._refusal(name, f"one of {', '.join(choices)}", value)
        return choices[value]

    def expect(self, name: str, *allowed: Any) -> None:
        """Refuse an attribute that is given and not one of ``allowed``."""
        value = self._get(name, allowed[0])
        if not any(type(value) is type(choice) and value == choice for choice in allowed):
            choices = " or ".join(map(repr, allowed))
            raise self._refusal(name, f"{choices}, the only choice that is supported", value)

    def num_labels(self) -> int:
        """Return the number of classes, two where the file says nothing."""
        labels = self._get("id2label", {})
        if not isinstance(labels, dict):
            raise self._refusal("id2label", "an object", labels)
        return len(labels) or self.integer("num_labels", 2)

    def refuse_others(self, harmless: Collection[str] = ()) -> None:
        """Refuse every attribute that has not been read and is not known to be harmless.

        Raises:
            InputError: names the first one; ignoring it might change what the model computes.
        """
        known = self._read | HARMLESS | set(harmless)
        for name, value in self._values.items():
            if name in known:
                continue
            if name in _NEUTRAL:
                self.expect(name, _NEUTRAL[name])
            else:
                raise InputError(
                    f"{self.source} must not have the attribute {name!r} = {str(value)[:60]}, "
                    "which is not supported and might change what the model computes."
                )

    def _get(self, name: str, default: Any) -> Any:
        self._read.add(name)
        return self._values.get(name, default)

    def _refusal(self, name: str, expected: str, value: Any) -> InputError:
        found = "nothing" if value is None else repr(value)[:60]
        return InputError(f"{self.source}: {name} must be {expected}, got {found}.")
