"""The one rule by which bytes become lines of text."""

import logging
from collections.abc import Iterable, Iterator

from flax_transformer.errors import InputError

_LOGGER = logging.getLogger(__name__)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def decode_lines(lines: Iterable[bytes], name: str, *, strict: bool) -> Iterator[str]:
    r"""Yield the lines of a UTF-8 text as they come, without their ends.

    Lines end at ``\n`` and nowhere else, so that their number is what ``wc -l`` tells (and one more
    if the last has no end), and no character within a sentence (U+2028, a form feed) shifts the
    lines of one file against another. A ``\r`` before the end and a byte order mark before the
    first line are dropped.

    Args:
        lines: what iterating over a binary stream gives.
        name: stands for the text in messages.
        strict: raise on bytes that are not UTF-8; otherwise they become U+FFFD, and a warning names
            the line.

    Raises:
        InputError: a line is not UTF-8, if ``strict``.

    >>> list(decode_lines([b"\xef\xbb\xbfa\r\n", b"\n", b"b"], "text", strict=True))
    ['a', '', 'b']
    """
    for number, line in enumerate(lines, start=1):
        if number == 1:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        line = line.removesuffix(b"\n").removesuffix(b"\r")
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            if strict:
                raise InputError(
                    f"{name} must be UTF-8, got byte 0x{line[error.start]:02x} in line {number}. "
                    "Convert it, for example with iconv."
                ) from None
            _LOGGER.warning(
                "%s: line %d is not UTF-8: its invalid bytes are read as U+FFFD", name, number
            )
            text = line.decode("utf-8", errors="replace")
        yield text
