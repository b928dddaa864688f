"""A file that only grows, and whose failures stop nothing."""

import logging
from pathlib import Path

_logger = logging.getLogger(__name__)


class AppendFile:
    """Appends records to a file, each whole or not at all.

    A record that cannot be written (no space left, say) is lost, with a warning for the first of
    them; later ones are tried again.
    """

    def __init__(self, path: Path):
        self._path = path
        self._warned = False

    def append(self, record: bytes) -> None:
        """Append one record; it is in the file when this returns."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab", buffering=0) as file:
                size = file.tell()
                if file.write(record) != len(record):  # the disk filled up within the record
                    file.truncate(size)
                    raise OSError("no space left for the whole record")
        except OSError as error:
            if not self._warned:
                _logger.warning("%s is not complete: %s", self._path, error)
            self._warned = True
