"""Which embedded logs this process has open: everybody who names the same file gets the same log."""

from pathlib import Path

from yarl import URL

from app.engine.embedded_log import EmbeddedLog
from app.engine.errors import EngineError

_open: dict[Path, EmbeddedLog] = {}


def path_of(url: str | URL) -> Path:
    """The file of an `embedded:///path` URL.

    Raises:
        EngineError: the URL names no path.
    """
    path = URL(str(url)).path
    if not path or path == "/":
        message = f"{url} names no file: write embedded:///path/to/log.db"
        raise EngineError(message)
    return Path(path)


def log_at(url: str | URL) -> EmbeddedLog:
    """The open log of an `embedded:///path` URL; it is opened at the first call."""
    path = path_of(url)
    log = _open.get(path)
    if log is None or not log.is_open:
        log = EmbeddedLog(path)
        log.open()
        _open[path] = log
    return log
