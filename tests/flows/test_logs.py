import json
import logging
from collections.abc import Iterator
from io import StringIO

import pytest
import structlog

from app import logs
from app.engine.errors import LogBusy
from app.settings import load


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    levels = {name: logging.getLogger(name).level for name in (*logs.CHATTY, "nats", "a4co.bridge")}
    yield
    root.handlers = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def lines(stream: StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_our_logger_and_a_librarys_log_the_same_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_NAME", "crunchy-streams")
    stream = StringIO()
    logs.configure(load(), stream)
    structlog.get_logger("a4co.bridge").info("mirrored", subject="order.created", count=3)
    logging.getLogger("nats").warning("lost %s", "10.0.0.1")
    ours, theirs = lines(stream)
    assert ours.pop("timestamp")
    assert ours == {
        "message": "mirrored",
        "level": "info",
        "logger": "a4co.bridge",
        "service": "crunchy-streams",
        "subject": "order.created",
        "count": 3,
    }
    assert (theirs["message"], theirs["level"], theirs["logger"]) == ("lost 10.0.0.1", "warning", "nats")


def test_an_exception_is_one_line_of_json_with_its_traceback() -> None:
    stream = StringIO()
    logs.configure(load(), stream)
    try:
        raise ValueError("crushed")
    except ValueError:
        logging.getLogger("a4co.main").exception("failed")
    [line] = lines(stream)
    assert "ValueError: crushed" in str(line["exception"])


def test_a_person_at_a_terminal_reads_text() -> None:
    stream = Terminal()
    logs.configure(load(), stream)
    logging.getLogger("a4co.main").info("ready")
    assert "ready" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_a_traceback_at_a_terminal_does_not_show_the_local_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    logs.configure(load(), stream)
    password = "SESAME"
    try:
        raise ValueError(f"crushed with {len(password)} letters")
    except ValueError:
        logging.getLogger("a4co.main").exception("failed")
    told = stream.getvalue()
    assert "ValueError: crushed with 6 letters" in told
    assert password not in told
    assert "\x1b" not in told


@pytest.mark.parametrize("end", [LogBusy("in use by the process 7"), SystemExit(3)])
def test_an_end_that_says_its_cause_has_no_traceback(end: BaseException) -> None:
    stream = StringIO()
    logs.configure(load(), stream)
    try:
        raise end
    except BaseException:
        logging.getLogger("mode").exception("Crashed reason=%r", end)
    [line] = lines(stream)
    assert repr(end) in str(line["message"])
    assert "exception" not in line


def test_debug_selects_the_loggers_that_tell_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEBUG", "a4co:bridge,nats:*")
    stream = StringIO()
    logs.configure(load(), stream)
    for name in ("a4co.bridge", "nats", "a4co.engine"):
        logging.getLogger(name).debug("detail")
        structlog.get_logger(name).debug("detail")
    assert [line["logger"] for line in lines(stream)] == ["a4co.bridge", "a4co.bridge", "nats", "nats"]


@pytest.mark.parametrize(
    ("selection", "loggers"),
    [
        ("", []),
        ("nats:*,a4co:*", ["nats", "a4co"]),
        ("a4co:bridge nats", ["a4co.bridge", "nats"]),
        ("faust:transport:*", ["faust.transport"]),
        ("-nats:*, *", [""]),
    ],
)
def test_debug_is_written_as_the_marketplaces_services_write_it(selection: str, loggers: list[str]) -> None:
    assert list(logs.debugged(selection)) == loggers


def test_chatty_libraries_are_heard_from_warning_on_unless_debug_selects_them(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = StringIO()
    logs.configure(load(), stream)
    logging.getLogger("aiokafka").info("rebalance")
    assert lines(stream) == []
    monkeypatch.setenv("DEBUG", "aiokafka:*")
    logs.configure(load(), stream)
    logging.getLogger("aiokafka").info("rebalance")
    assert [line["message"] for line in lines(stream)] == ["rebalance"]
