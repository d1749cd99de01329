"""The routes: the marketplace's table, what a file changes in it, and what becomes of one message."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from app.cli import main
from app.domain.dialects import Undecodable
from bridge.keys import key_expression
from bridge.routes import ROUTES, covers, explain, overlap
from bridge.routes_file import RoutesError, load_routes

CREATED = json.dumps(
    {"eventId": "e-1", "eventType": "OrderCreatedEvent", "aggregateId": "order-1", "eventData": {}}
).encode()

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        file = tmp_path / "routes.toml"
        file.write_text(text)
        return file

    return write


# ---- the table --------------------------------------------------------------------------------------------


def test_the_marketplaces_routes_are_exact_and_cover_the_three_dialects() -> None:
    subjects = [route.subject for route in ROUTES]
    assert not any("*" in subject or ">" in subject or subject.endswith(".dlq") for subject in subjects)
    assert {subject: (ROUTES[subject].topic, ROUTES[subject].dialects) for subject in subjects}.items() >= {
        "order.created": ("orders", "a"),
        "user.verified.v1": ("users", "b"),
        "shipment.delivered.v1": ("orders", "c"),
        "payment.failed.v1": ("payments", "bc"),
    }.items()
    assert ROUTES.of("order.created.dlq") is None
    with pytest.raises(KeyError):
        ROUTES["order.created.dlq"]


def test_a_message_is_explained_step_by_step() -> None:
    assert explain("order.created", CREATED)[-2:] == ["eventId e-1", "key order-1"]
    assert explain("order.created", b"{")[-1] == "told to order.created.dlq"
    assert "nearest: order.created" in explain("order.create")[-1]


@pytest.mark.parametrize(
    ("pattern", "subject", "covered", "overlapping"),
    [
        ("order.>", "order.created", True, True),
        ("order.>", "order", False, False),
        ("order.*", "order.created.v1", False, False),
        ("*.created", "order.created", True, True),
        ("order.*", "order.>", False, True),
        ("order.>", "order.*", True, True),
        ("a.*.c", "a.b.*", False, True),
        ("a.*.c", "a.b.d", False, False),
        ("a.b", "a.b", True, True),
    ],
)
def test_patterns_cover_and_overlap_as_nats_says(pattern: str, subject: str, covered: bool, overlapping: bool) -> None:
    assert covers(pattern, subject) is covered
    assert overlap(pattern, subject) is overlapping
    assert overlap(subject, pattern) is overlapping


# ---- the file ---------------------------------------------------------------------------------------------


def test_a_file_switches_off_changes_directions_and_adds_subjects(write: Write) -> None:
    routes = load_routes(
        write("""
        [[route]]
        subject = "user.registered"
        on = false

        [[route]]
        subject = "order.confirmed"
        direction = "in"

        [[route]]
        subject = "artisan.>"
        topic = "artisans"
        key = "eventData.artisanId | subject.2"

        [[route]]
        subject = "artisan.secret.*"
        topic = "artisans"
        on = false

        [[route]]
        subject = "order.returned"
        """)
    )
    assert "switched off" in explain("user.registered", None, routes)[-1]
    assert not routes["order.confirmed"].published
    assert routes["order.cancelled"].published
    assert routes["order.returned"].topic == "orders"
    assert routes["order.returned"].identify("order.returned", CREATED).key == "order-1"
    assert routes["artisan.paco.moved"].subject == "artisan.>"
    assert routes["artisan.secret.x"].on is False
    assert routes.of("artisan.paco.moved.dlq") is None
    assert routes.of("artisans.paco") is None
    assert [topic.name for topic in routes.more_topics()] == ["artisans"]
    assert routes["artisan.paco.moved"].identify("artisan.paco.moved", b'{"eventData":{"artisanId":7}}').key == "7"
    assert explain("artisan.paco.moved", b"{}", routes)[-1] == "key paco"
    assert explain("artisan.paco.moved", b"[]", routes)[-2].startswith("dead letter: not-an-object")
    assert len(list(routes)) == len(list(ROUTES)) + 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[route]]\nsubject = ">"\ntopic = "t"', "its first token must be a word"),
        ('[[route]]\nsubject = "*.created"\ntopic = "t"', "its first token must be a word"),
        ('[[route]]\nsubject = "$JS.API"\ntopic = "t"', "its first token must be a word"),
        ('[[route]]\nsubject = "_INBOX.>"\ntopic = "t"', "its first token must be a word"),
        ('[[route]]\nsubject = "a..b"\ntopic = "t"', "is no subject"),
        ('[[route]]\nsubject = "a.>.b"\ntopic = "t"', "is no subject"),
        ('[[route]]\nsubject = "a b"\ntopic = "t"', "is no subject"),
        ('[[route]]\nsubject = "artisan.x.dlq"\ntopic = "t"', "dead letters are not mirrored"),
        ('[[route]]\nsubject = "a4co.>"\ntopic = "t"', "the bridge's own"),
        ('[[route]]\nsubject = "artisan.>"', "needs a topic"),
        ('[[route]]\nsubject = "artisan.>"\ntopic = "orders"', "is the application's own"),
        ('[[route]]\nsubject = "artisan.>"\ntopic = "stock-commands"', "is the application's own"),
        ('[[route]]\nsubject = "artisan.>"\ntopic = "a/b"', "letters, digits"),
        ('[[route]]\nsubject = "artisan.>"\ntopic = "t"\nkey = "a b"', "neither a path"),
        ('[[route]]\nsubject = "artisan.>"\ntopic = "t"\ndirection = "out"', "nothing to say on it"),
        ('[[route]]\nsubject = "artisan.>"\ntopic = "t"\ndialect = "a"', "leave dialect out"),
        ('[[route]]\nsubject = "order.created"\ntopic = "t"', "leave topic and key out"),
        ('[[route]]\nsubject = "order.created"\nkey = "eventId"', "leave topic and key out"),
        ('[[route]]\nsubject = "order.created"\ndirection = "both"', "nothing to say on it"),
        ('[[route]]\nsubject = "order.returned"\ntopic = "returns"', "leave topic and key out"),
        ('[[route]]\nsubject = "order.created"\non = "no"', "route 1: on"),
        ('[[route]]\nsubject = "order.created"\ncolour = 1', "route 1: colour"),
        ('[[route]]\ntopic = "t"', "route 1: subject"),
        (
            '[[route]]\nsubject = "order.created"\n[[route]]\nsubject = "order.created"',
            "route 2: order.created is there",
        ),
        ('[route]\nsubject = "order.created"', "in double brackets"),
        ("[[rout]]", "'rout' is unknown"),
        ("[[route", "routes.toml: "),
        (
            '[[route]]\nsubject = "a.*.c"\ntopic = "t"\n[[route]]\nsubject = "a.b.*"\ntopic = "t"',
            "both cover the same subjects",
        ),
    ],
)
def test_what_cannot_be_is_one_line_with_the_row(write: Write, text: str, said: str) -> None:
    with pytest.raises(RoutesError) as error:
        load_routes(write(text))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(RoutesError, match=r"none\.toml"):
        load_routes(tmp_path / "none.toml")


def test_a_key_is_the_first_that_is_there() -> None:
    key = key_expression("aggregateId | eventData.artisan.id | subject.2 | subject")
    assert key("loyalty.points", {"aggregateId": "a", "eventData": {"artisan": {"id": "b"}}}) == "a"
    assert key("loyalty.points", {"aggregateId": "", "eventData": {"artisan": {"id": 12}}}) == "12"
    assert key("loyalty.points", {"aggregateId": None, "eventData": []}) == "points"
    assert key("loyalty", {}) == "loyalty"
    with pytest.raises(Undecodable, match="missing-key"):
        key_expression("aggregateId")("loyalty.points", {"aggregateId": "x" * 1_000})


# ---- the command line -------------------------------------------------------------------------------------


def test_the_commands_know_the_file(write: Write) -> None:
    file = write('[[route]]\nsubject = "artisan.>"\ntopic = "artisans"')
    listed = CliRunner().invoke(main, ["routes"], env={"ROUTES_FILE": str(file)})
    last = listed.output.splitlines()[-1].split("  ")
    assert [cell.strip() for cell in last if cell.strip()] == [
        "artisan.>", "artisans", "aggregateId | eventId | subject", "any", "in",
    ]  # fmt: skip
    tested = CliRunner().invoke(
        main, ["routes", "test", "artisan.new", "-"], env={"ROUTES_FILE": str(file)}, input="{}"
    )
    assert tested.output.splitlines()[-1] == "key artisan.new"
    file.write_text('[[route]]\nsubject = ">"')
    for command in (["routes"], ["worker"]):
        refused = CliRunner().invoke(main, command, env={"ROUTES_FILE": str(file)})
        assert refused.exit_code == 2
        assert refused.output.startswith("Error: ROUTES_FILE: ")


def test_the_example_file_adds_the_rest_of_the_marketplaces_subjects() -> None:
    routes = load_routes(Path(__file__).parents[2] / "docs" / "examples" / "routes.toml")
    families = [
        "artisan",
        "product",
        "geo",
        "loyalty",
        "saga",
        "analytics",
        "chat",
        "cms",
        "admin",
        "event",
        "system",
        "integration",
    ]
    assert all(routes.of(f"{family}.thing.happened") for family in families)
    assert len(routes.more_topics()) == len(families)
