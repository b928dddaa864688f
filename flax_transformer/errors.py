"""The errors that a user can do something about."""


class InputError(ValueError):
    """A fault of the input (an argument, a file, a config), not of the program.

    The message is one line that names what is wrong and, where there is one, the remedy. The
    commands print it without a traceback and exit with a non-zero status.
    """


class DivergenceError(ArithmeticError):
    """Training cannot go on: the loss is no longer a finite number."""


def one_line(error: BaseException, max_length: int = 300) -> str:
    r"""Return the message of an error on one line, cut to ``max_length`` characters.

    >>> one_line(ValueError("first,\n  second"))
    'first, second'
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= max_length else text[: max_length - 1] + "…"
