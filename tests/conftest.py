"""What every test shares: the log that flows run over, and an environment without the developer's settings."""

import os

import pytest

from app.settings import Settings


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--log", choices=["embedded", "kafka"], default="embedded", help="the log that the flow tests run over"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of what only the embedded log has are skipped on another, with the reason that they give.

    With RERUN_LIVE=1 a test with real servers that fails is run once more, and named at the end: a machine that is
    shared may stand still for longer than any of them waits.
    """
    kind = config.getoption("--log")
    again = pytest.mark.flaky(reruns=1)
    for item in items:
        if os.environ.get("RERUN_LIVE") and "live" in item.path.parts:
            item.add_marker(again)
        for mark in item.iter_markers("embedded_only"):
            if kind != "embedded":
                item.add_marker(pytest.mark.skip(f"not on {kind}: {mark.args[0]}"))


@pytest.fixture(scope="session")
def log_kind(request: pytest.FixtureRequest) -> str:
    """The log that --log chose."""
    return str(request.config.getoption("--log"))


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the settings out of the environment, and don't read the developer's .env."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setitem(Settings.model_config, "env_file", None)
