"""The dashboard's files: the page at `/`, and what it loads under `/static/`. Read once, when the API is made."""

import hashlib
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from app.web.freshness import unchanged

STATIC = Path(__file__).parent / "static"
INDEX = "index.html"
VENDORED = "vendor"
"""What is in this folder has its version in its path, and never changes under it."""

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
"""The types of what is served, by the names' ends. The system's own table may have others."""

ASK_AGAIN, FOR_EVER = "no-cache", "public, max-age=31536000, immutable"


class Served(NamedTuple):
    """A file as it is sent."""

    body: bytes
    media_type: str
    etag: str
    cache: str

    def answer(self, request: Request) -> Response:
        """The file, or 304 when the client has it."""
        headers = {"etag": self.etag, "cache-control": self.cache}
        return unchanged(request, self.etag) or Response(self.body, headers=headers, media_type=self.media_type)


def served_files(folder: Path = STATIC) -> dict[str, Served]:
    """Every file of the folder whose type is known, by its path below it."""
    found = {}
    for file in sorted(folder.rglob("*")):
        if file.suffix in TYPES:
            body, path = file.read_bytes(), PurePosixPath(file.relative_to(folder))
            etag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
            cache = FOR_EVER if path.parts[0] == VENDORED else ASK_AGAIN
            found[str(path)] = Served(body, TYPES[file.suffix], etag, cache)
    return found


def page_routes() -> APIRouter:
    """`/` and `/static/...`: only what is in the folder is there."""
    router = APIRouter(include_in_schema=False)
    files = served_files()

    @router.api_route("/", methods=["GET", "HEAD"])
    async def show_page(request: Request) -> Response:
        return files[INDEX].answer(request)

    @router.api_route("/static/{path:path}", methods=["GET", "HEAD"])
    async def show_file(request: Request, path: str) -> Response:
        if path not in files:
            raise HTTPException(404)
        return files[path].answer(request)

    return router
