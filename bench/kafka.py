"""A Kafka broker for a bench: on a free port, with data of its own and the jars of `make kafka`."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from deploy.kafka import broker

KAFKA = Path("data/kafka")
"""Where `make kafka` keeps its jars; the folder that a bench runs in is the repository."""


@contextlib.contextmanager
def kafka(folder: Path, more: str = "") -> Iterator[str]:
    """Runs meanwhile, with everything in `folder`; gives host:port. Raises BrokerError when it can't.

    `more`: lines that are added to its configuration.
    """
    folder.mkdir()
    (folder / "more.properties").write_text(more, "utf-8")
    (folder / "libs").symlink_to(broker.jars(KAFKA).absolute())
    port = broker.free_port(0)
    broker.start(folder, port)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        broker.stop(folder)
