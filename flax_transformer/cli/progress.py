"""A progress bar on standard error."""

import contextlib
from collections.abc import Callable, Iterator

from tqdm import tqdm


@contextlib.contextmanager
def progress_bar(total: int | None, *, unit: str = "line") -> Iterator[Callable[[int], None]]:
    """Yield a function that advances a bar; there is no bar where nobody watches a terminal.

    Args:
        total: what it advances to, None where that is not known.
        unit: of what it counts.
    """
    # None asks tqdm to look whether standard error is a terminal.
    with tqdm(total=total, unit=unit, disable=None, dynamic_ncols=True) as bar:

        def advance(count: int) -> None:
            bar.update(count)

        yield advance
