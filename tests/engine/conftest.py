"""Fixtures of the engine's own tests: a log in a folder of the test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.engine.embedded_log import EmbeddedLog


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EmbeddedLog]:
    log = EmbeddedLog(tmp_path / "log.db")
    log.open()
    log.declare("words", 3)
    log.declare("rows", 1, compacted=True)
    yield log
    log.close()


def reopened(log: EmbeddedLog) -> EmbeddedLog:
    """The same file, opened anew."""
    log.close()
    again = EmbeddedLog(log.path)
    again.open()
    return again
