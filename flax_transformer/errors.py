"""The errors that a user can do something about."""


class InputError(ValueError):
    """A fault of the input (an argument, a file, a config), not of the program.

    The message is one line that names what is wrong and, where there is one, the remedy. The
    commands print it without a traceback and exit with a non-zero status.
    """


class DivergenceError(ArithmeticError):
    """Training cannot go on: the loss is no longer a finite number."""
