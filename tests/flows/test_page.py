"""The dashboard's files: what is served, how it may be kept, and what no file of ours may do."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx
import pytest

from app.web.page import STATIC, VENDORED

ROOT = Path(__file__).parents[2]
OURS = [file for file in STATIC.rglob("*") if file.is_file() and VENDORED not in file.parts]


async def test_the_page_is_at_the_root_and_is_not_sent_again(web: httpx.AsyncClient) -> None:
    page = await web.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-cache"
    assert "default-src 'self'" in page.headers["content-security-policy"]
    again = await web.get("/", headers={"if-none-match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert (await web.head("/")).status_code == 200


@pytest.mark.parametrize(
    ("file", "media_type"),
    [
        ("main.js", "text/javascript; charset=utf-8"),
        ("style.css", "text/css; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
    ],
)
async def test_a_file_has_the_type_that_a_browser_wants(web: httpx.AsyncClient, file: str, media_type: str) -> None:
    answer = await web.get(f"/static/{file}")
    assert answer.headers["content-type"] == media_type
    assert answer.content == (STATIC / file).read_bytes()
    assert answer.headers["etag"]


async def test_what_has_its_version_in_its_path_is_kept_for_ever(web: httpx.AsyncClient) -> None:
    [library] = STATIC.glob("vendor/*/*.js")
    answer = await web.get(f"/static/{library.relative_to(STATIC)}")
    assert "immutable" in answer.headers["cache-control"]


@pytest.mark.parametrize("path", ["nothing.js", "../page.py", "%2e%2e/page.py", "panels", ""])
async def test_what_is_not_there_is_a_problem(web: httpx.AsyncClient, path: str) -> None:
    answer = await web.get(f"/static/{path}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_each_file_that_a_module_or_the_page_names_is_there() -> None:
    for file in OURS:
        text = file.read_text("utf-8")
        for name in re.findall(r'from "(\.[^"]+)"', text):
            assert (file.parent / name).is_file(), f"{file.name} imports {name}"
        for name in re.findall(r'(?:href|src)="/static/([^"]+)"', text):
            assert (STATIC / name).is_file(), f"{file.name} loads {name}"


def test_no_script_or_style_is_inline_and_no_text_becomes_markup() -> None:
    page = (STATIC / "index.html").read_text("utf-8")
    assert not re.search(r"<style|style=|<script(?![^>]*\ssrc=)|\son\w+=", page)
    assert not re.search(r"""["'(]https?://(?!www\.w3\.org)""", page)
    never = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|cssText")
    for file in OURS:
        if file.suffix == ".js":
            assert not (found := never.search(file.read_text("utf-8"))), f"{file.name}: {found}"


def test_the_wheel_has_the_files_and_the_vendored_licence(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for file in STATIC.rglob("*"):
        if file.is_file():
            assert f"app/web/static/{file.relative_to(STATIC)}" in names
    assert any(name.endswith("uplot-1.6.32/LICENSE") for name in names)
