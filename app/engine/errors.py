"""The engine's errors. Each message names the cause and what to do about it."""


class EngineError(Exception):
    """Anything that stops the engine."""


class LogBusy(EngineError):
    """Another process has the log's file open."""


class LogFailed(EngineError):
    """The log could not be written or synced (disk full, I/O error). Nothing of the failed commit is kept."""


class TopicMismatch(EngineError):
    """A topic exists with other partitions than declared, or is not declared at all."""
