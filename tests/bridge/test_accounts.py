"""The permissions of the bridge's user: what the routes ask for, and the file in deploy/ is the one that is made."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from app.cli import main
from bridge.accounts import permissions
from bridge.routes import IN, ROUTES, Direction, Route, Routes

DEPLOY = Path(__file__).parents[2] / "deploy" / "nats"


def test_the_file_in_deploy_is_the_one_that_the_command_makes() -> None:
    made = CliRunner().invoke(main, ["routes", "accounts"])
    assert made.exit_code == 0
    assert made.output == (DEPLOY / "bridge.conf").read_text("utf-8"), "a4co routes accounts > deploy/nats/bridge.conf"


def test_a_subject_that_is_only_read_is_only_read() -> None:
    routes = Routes([
        Route("order.created", "orders", IN, "a", "order id"),
        Route("order.confirmed", "orders", Direction.BOTH, "a", "order id"),
        Route("order.failed.v1", "orders", Direction.OUT, "c", "order id"),
        Route("user.verified", "users", IN, "a", "user id", on=False),
        Route("artisan.*", "artisans", IN, key="aggregateId"),
        Route("chat.>", "chats", IN, key="aggregateId"),
    ])  # fmt: skip
    allowed = permissions(routes, "EVENTS", "_INBOX_X")
    assert [subject for subject in allowed.publish if not subject.startswith("$")] == [
        "order.confirmed", "order.failed.v1", "order.created.dlq", "order.confirmed.dlq", "artisan.*.dlq", "chat.>",
        "a4co.bridge.barrier",
    ]  # fmt: skip
    assert allowed.subscribe == (
        "_INBOX_X.>", "order.created a4co-streams", "order.confirmed a4co-streams", "artisan.* a4co-streams",
        "chat.> a4co-streams",
    )  # fmt: skip


def test_only_named_streams_may_be_touched_and_only_our_own_be_changed() -> None:
    alone = set(permissions(ROUTES, "EVENTS", "_INBOX").publish)
    asked = {subject for subject in alone if subject.startswith("$")} - {"$JS.API.STREAM.LIST"}
    assert all(".EVENTS" in subject for subject in asked)
    assert not {"$JS.API.STREAM.DELETE.EVENTS", "$JS.API.STREAM.PURGE.EVENTS"} & asked
    beside = set(permissions(ROUTES, "EVENTS", "_INBOX", ["ORDERS"]).publish) - alone
    assert "$JS.ACK.ORDERS.>" in beside
    assert all(".ORDERS" in subject for subject in beside)
    assert not any("STREAM.CREATE" in subject or "STREAM.UPDATE" in subject for subject in beside)


@pytest.mark.parametrize("name", ["bridge.conf", "accounts.conf"])
def test_no_password_stands_in_the_files(name: str) -> None:
    words = (DEPLOY / name).read_text("utf-8").replace(",", " ").split()
    given = [words[at + 1] for at, word in enumerate(words) if word == "password:"]
    assert all(password.startswith("$") for password in given)
