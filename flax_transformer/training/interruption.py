"""Turn the signals that end a process into a request to end in good order."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class InterruptionGuard:
    """While it is entered, SIGINT and SIGTERM set :attr:`requested` instead of ending the process.

    A second signal ends the process at once, as without the guard. Outside the main thread, where
    Python handles no signals, the guard does nothing.

    Attributes:
        requested: name of the signal that came, or None.
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._request)
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._restore()

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, handler)
