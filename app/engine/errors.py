"""The engine's errors. Each message names the cause and what to do about it."""


class EngineError(Exception):
    """Anything that stops the engine."""


class LogBusy(EngineError):
    """Another process has the log's file open."""


class LogFailed(EngineError):
    """The log could not be written or synced (disk full, I/O error). Nothing of the failed commit is kept."""


class LogAway(LogFailed):
    """The log does not answer. Whoever waits will be answered when it is back."""


class StoreDamaged(EngineError):
    """A table's store can't be read. It is rebuilt from the changelog when it is opened the next time."""


class TopicMismatch(EngineError):
    """A topic exists with other partitions than declared, or is not declared at all."""


class OffsetsForgotten(EngineError):
    """The log has forgotten how far a lane was, which had been further than the topics' start."""


class CommitAborted(EngineError):
    """A transaction was not committed and can be tried again: nothing of it is kept."""


class CommitUnknown(LogFailed):
    """Whether a transaction was committed is not known: the log ceased to answer in the midst of it."""


class PartitionElsewhere(EngineError):
    """The key's partition is another worker's, or not ready yet: ask who has it, or again later."""

    def __init__(self, table: str, partition: int) -> None:
        super().__init__(f"partition {partition} of {table} is not ready on this worker")
        self.table = table
        self.partition = partition
