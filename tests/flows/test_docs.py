"""What README and docs/ name is there: files, headings, commands, make's targets, paths, settings."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from app.cli import main
from app.settings import Settings
from app.web.api import create_api
from tests.flows.shop import Shop

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
PLACE = re.compile(r"(?:agents|app|bench|bridge|deploy|docs|tables|tests)/[\w./-]*\w(?:\.\w+)?")
OTHERS = re.compile(r"^(OTEL|NATS_SERVER|KAFKA_PORT)")
"""Settings of somebody else's, and variables of make's."""

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def in_code(page: Path) -> Iterator[str]:
    """What stands in backticks, and the lines of indented blocks."""
    text = page.read_text()
    yield from CODE.findall(text)
    yield from (line.strip() for line in text.splitlines() if line.startswith("    "))


def headings(page: Path) -> set[str]:
    """The anchors of a page, as they are made of its headings."""
    lines = [line.lstrip("#").strip().lower() for line in page.read_text().splitlines() if re.match("#+ ", line)]
    return {re.sub(r"[^\w\s-]", "", line).replace(" ", "-") for line in lines}


def fits(pattern: str, path: str) -> bool:
    """Whether the path is one of the pattern's: `{}` stands for a part."""
    return re.fullmatch(re.escape(pattern).replace(r"\{\}", "[^/]+"), path) is not None


@each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in headings(target), link


@each_page
def test_every_place_in_the_tree_is_there(page: Path) -> None:
    for code in in_code(page):
        for place in PLACE.findall(code):
            assert "*" in code or (ROOT / place).exists(), code


@each_page
def test_every_command_is_there_with_its_options(page: Path) -> None:
    for code in in_code(page):
        words = re.sub(r"[\[\]|\\]", " ", code.partition("#")[0]).split()
        if "a4co" not in words:
            continue
        command: click.Command = main
        words = words[words.index("a4co") + 1 :]
        while words and isinstance(command, click.Group) and re.match(r"[a-z]", words[0]):
            found = command.commands.get(words.pop(0).rstrip(",:"))
            assert found is not None, code
            command = found
        options = {name for parameter in command.params for name in parameter.opts} | {"--help"}
        assert {word for word in words if word.startswith("--")} <= options, code


@each_page
def test_every_target_of_make_is_there(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for code in in_code(page):
        if words := re.match(r"make ([a-z-]+)", code):
            assert words[1] in targets, code


@each_page
def test_every_path_is_answered(page: Path, shop: Shop) -> None:
    paths = {re.sub(r"\{\w+\}", "{}", path) for path in create_api(shop.views()).openapi()["paths"]}
    for code in in_code(page):
        for named in re.findall(r"(?<![\w.])/api/[\w{}/.-]*[\w}]", code):
            plain = re.sub(r"\{\w+\}", "{}", named)
            assert any(fits(path, plain) or fits(plain, path) for path in paths), code


@each_page
def test_every_setting_is_there(page: Path) -> None:
    known = {name.upper() for name in Settings.model_fields}
    for code in in_code(page):
        for name in re.findall(r"^((?:NATS|KAFKA|WEB|PAYMENT|ROLE|SMTP|LOG|TOPIC|LIVE)_[A-Z_]+)(?:=|$)", code):
            assert name.removesuffix("_FILE") in known or name in known or OTHERS.match(name), code
