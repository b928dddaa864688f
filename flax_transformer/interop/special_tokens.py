"""What the special tokens of a public tokenizer are, by what its files say of them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import tokenizers

from flax_transformer.data.json_tokenizer import special_tokens

_CONVENTIONS: Mapping[str, tuple[str, ...]] = {
    "cls_token": ("[CLS]",),
    "sep_token": ("[SEP]",),
    "bos_token": ("<s>", "<|endoftext|>"),
    "eos_token": ("</s>", "<|endoftext|>"),
    "pad_token": ("[PAD]", "<pad>"),
    "mask_token": ("[MASK]", "<mask>"),
    "unk_token": ("[UNK]", "<unk>"),
}
"""What special tokens are called where no file says what they are for, as of the first BERTs."""


class Template(NamedTuple):
    """What a tokenizer puts around a text.

    Attributes:
        before: tokens before it.
        after: tokens after it.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]


def read_template(tokenizer: tokenizers.Tokenizer) -> Template:
    """Find out what a tokenizer puts around a text.

    >>> tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece({"a": 0}, unk_token="a"))
    >>> tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
    ...     single="[CLS] $A", special_tokens=[("[CLS]", 7)]
    ... )
    >>> read_template(tokenizer)
    Template(before=(7,), after=())
    """
    encoding = tokenizer.encode("a")
    is_special = encoding.special_tokens_mask
    of_text = [place for place, special in enumerate(is_special) if not special]
    if not of_text:  # the letter became nothing; what is around it is then told by convention
        return Template((), ())
    ids = encoding.ids
    return Template(tuple(ids[: of_text[0]]), tuple(ids[of_text[-1] + 1 :]))


def name_tokens(
    settings: Mapping[str, Any], vocabulary: Mapping[str, int], *, vocab_size: int
) -> dict[str, int]:
    """Map what settings name, such as ``eos_token``, to ids; leave out what the model has not.

    >>> name_tokens({"eos_token": {"content": "b"}, "pad_token": "c"}, {"b": 1}, vocab_size=2)
    {'eos_token': 1}
    """
    named = {}
    for name, value in settings.items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            token_id = vocabulary.get(text)
            if isinstance(token_id, int) and token_id < vocab_size:
                named[name] = token_id
    return named


def guess_tokens(
    tokenizer: tokenizers.Tokenizer, template: Template, *, vocab_size: int
) -> dict[str, int]:
    """Map names such as ``eos_token`` to what is conventionally called so, or is put there."""
    special = special_tokens(tokenizer)
    found = {
        name: next((special[text] for text in texts if text in special), None)
        for name, texts in _CONVENTIONS.items()
    }
    if template.before:
        found["bos_token"] = template.before[0]
    if template.after:
        found["eos_token"] = template.after[-1]
    return {
        name: token_id
        for name, token_id in found.items()
        if token_id is not None and token_id < vocab_size
    }
