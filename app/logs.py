"""How the process logs: everything through one handler on stderr, JSON unless a person watches.

`logging` and `structlog` both end here, so that faust, nats and uvicorn log in the same form as we do. Our own loggers
are named `a4co.` and what they are about.
"""

import logging
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor

from app.engine.errors import EngineError
from app.settings import Settings

# These tell of their own inner life at `info`; a warning of theirs is worth a line. mode logs every start and stop of
# a service under the name of its class's module: `app`, and `abc` for classes made on the way.
CHATTY = ("abc", "aiokafka", "app", "asyncio", "faust", "mail", "mode", "uvicorn")


def configure(settings: Settings, stream: TextIO | None = None) -> None:
    """Send every log line of this process to the stream (default: stderr), replacing what was set up before."""
    stream = stream or sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _without_known_ends,
                *_rendering(settings.service_name, person_watches=stream.isatty()),
            ],
        )
    )
    logging.captureWarnings(capture=True)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level.upper())
    for name in CHATTY:
        logging.getLogger(name).setLevel(max(root.level, logging.WARNING))
    for name in debugged(settings.debug):
        logging.getLogger(name).setLevel(logging.DEBUG)


def only_warnings() -> None:
    """Send warnings and worse to stderr, in plain lines: for a command that runs a part of the application."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _without_known_ends(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """An end that says its cause in one line needs no traceback: the engine's errors, and uvicorn's SystemExit."""
    raised = event.get("exc_info")
    if isinstance(raised, tuple) and isinstance(raised[1], EngineError | SystemExit):
        del event["exc_info"]
    return event


def _rendering(service: str, *, person_watches: bool) -> list[Processor]:
    if person_watches:
        return [
            structlog.dev.ConsoleRenderer(
                colors=not os.environ.get("NO_COLOR"),
                # Plain: the default shows the local variables too, and passwords are among them.
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]

    def add_service(_logger: Any, _method: str, event: EventDict) -> EventDict:
        event["service"] = service
        return event

    return [
        add_service,
        structlog.processors.format_exc_info,
        structlog.processors.EventRenamer("message"),
        structlog.processors.JSONRenderer(ensure_ascii=False),
    ]


def debugged(selection: str) -> Iterator[str]:
    """Yield the loggers that DEBUG selects: `nats:*` is nats, `a4co:bridge` is a4co.bridge, `*` is all ("")."""
    for entry in selection.replace(",", " ").split():
        if not entry.startswith("-"):  # those stay as quiet as LOG_LEVEL has them
            yield entry.removesuffix("*").rstrip(":").replace(":", ".")
