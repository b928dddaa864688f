"""How a command ends: one line on standard error and an exit status."""

import contextlib
import os
import sys
from collections.abc import Callable

from flax_transformer.cli.command_parser import UsageError
from flax_transformer.errors import DivergenceError, InputError


def run_guarded(prog: str, command: Callable[[], int]) -> int:
    """Run ``command``; return its exit status, or that of the fault it ended in.

    A reader that has closed the pipe, as ``head`` does, is no fault: the status is 0.
    """
    try:
        status = command()
        # Here, so that a fault of the last write is met, not when the interpreter shuts down.
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _discard_stdout()
        return 0
    except KeyboardInterrupt:
        _print_error(prog, "interrupted")
        return 130
    except UsageError as error:
        _print_error(prog, f"{error} (see {prog} --help)")
        return 2
    except (InputError, DivergenceError) as error:
        _print_error(prog, str(error))
        return 1
    except OSError as error:
        _discard_stdout()
        _print_error(prog, describe_os_error(error))
        return 1
    return status


def describe_os_error(error: OSError) -> str:
    """Return the fault and, where it is known, the file.

    >>> describe_os_error(FileNotFoundError(2, "No such file or directory", "train.en"))
    'train.en: No such file or directory'
    """
    reason = error.strerror or str(error) or type(error).__name__
    return reason if error.filename is None else f"{os.fsdecode(error.filename)}: {reason}"


def _print_error(prog: str, message: str) -> None:
    with contextlib.suppress(OSError):  # nobody may be reading
        print(f"{prog}: error: {' '.join(message.split())}", file=sys.stderr)


def _discard_stdout() -> None:
    """Let what is still buffered go nowhere, or the interpreter would fail on it once more."""
    with contextlib.suppress(OSError):  # a stream without a file has nothing to flush
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
