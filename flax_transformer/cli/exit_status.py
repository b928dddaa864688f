"""How a command ends: one line on standard error and an exit status."""

import contextlib
import os
import sys
from collections.abc import Callable

from flax_transformer.cli.command_parser import UsageError
from flax_transformer.errors import DivergenceError, InputError

_MAX_REASON_LENGTH = 200


def run_guarded(prog: str, command: Callable[[], int], *, is_filter: bool) -> int:
    """Run ``command``; return its exit status, or that of the fault it ended in.

    For a filter it is no fault if the reader has closed the pipe, as ``head`` does: the status is
    0. Any other command has more to do than to print.
    """
    try:
        status = command()
        # Here, so that a fault of the last write is met, not when the interpreter shuts down.
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _discard_stdout()
        if is_filter:
            return 0
        _print_error(prog, "standard output was closed before the end")
        return 1
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
    except (MemoryError, RuntimeError) as error:  # that of JAX is one, too
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        _print_error(prog, describe_out_of_memory(error))
        return 1
    return status


def describe_os_error(error: OSError) -> str:
    """Return the fault and, where it is known, the file.

    >>> describe_os_error(FileNotFoundError(2, "No such file or directory", "train.en"))
    'train.en: No such file or directory'
    """
    reason = error.strerror or str(error) or type(error).__name__
    return reason if error.filename is None else f"{os.fsdecode(error.filename)}: {reason}"


def describe_out_of_memory(error: Exception) -> str:
    """Return what was wanted, in the words of XLA or NumPy, which hold the sizes; and the remedy.

    >>> describe_out_of_memory(MemoryError("Unable to allocate 8.00 EiB"))
    'out of memory (Unable to allocate 8.00 EiB). Make batches, the beam or the model smaller.'
    """
    first_line = (str(error).splitlines() or [""])[0].removeprefix("RESOURCE_EXHAUSTED: ")
    reason = first_line[:_MAX_REASON_LENGTH].rstrip(". ")
    sizes = f" ({reason})" if reason else ""
    return f"out of memory{sizes}. Make batches, the beam or the model smaller."


def _print_error(prog: str, message: str) -> None:
    with contextlib.suppress(OSError):  # nobody may be reading
        print(f"{prog}: error: {' '.join(message.split())}", file=sys.stderr)


def _discard_stdout() -> None:
    """Let what is still buffered go nowhere, or the interpreter would fail on it once more."""
    if sys.stdout is None:
        return
    with contextlib.suppress(OSError):  # a stream without a file has nothing to flush
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
