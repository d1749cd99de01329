"""Tables of Faust apps after a restart: what is deleted stays deleted, and sets are what their changes add up to."""

from pathlib import Path
from typing import Any, cast

import faust

from app.engine.open_logs import log_at
from app.engine.records import Send
from tests.waiting import wait_until

SHELVES = "norte: +aceite\nsur: +sal\nnorte: +vino\nsur: -sal\nnorte: +aceite\noeste: +miel\nnorte: -vino\n"


def shop(folder: Path) -> faust.App:
    """Remembers what is on each shelf, as a set, and what was put there last, unless it was taken away."""
    app = faust.App(
        "shop", broker=f"embedded://{folder}/log.db", store="memory://", topic_partitions=2, web_enabled=False,
        datadir=str(folder / "data"),
    )  # fmt: skip
    moves = app.topic("moves", key_type=str, value_type=str)
    last = app.Table("last", key_type=str, value_type=str)
    shelves = app.SetTable("shelves", key_type=str, value_type=str)

    @app.agent(moves)
    async def move(stream: Any) -> None:
        async for shelf, what in stream.items():
            if what[0] == "+":
                last[shelf] = what[1:]
                shelves[shelf].add(what[1:])
            else:
                last.pop(shelf, None)
                shelves[shelf].discard(what[1:])

    return app


def rows(app: faust.App) -> tuple[dict[str, str], dict[str, set[str]]]:
    shelves = cast(Any, app.tables["shelves"])
    return dict(cast(Any, app.tables["last"])), {shelf: set(shelves[shelf]) for shelf in ("norte", "sur", "oeste")}


async def test_a_restarted_app_has_the_rows_that_it_had(tmp_path: Path) -> None:
    log = log_at(f"embedded://{tmp_path}/log.db")
    log.declare("moves", 2)
    moves = [line.split(": ") for line in SHELVES.splitlines()]
    await log.commit([Send("moves", shelf.encode(), f'"{what}"'.encode()) for shelf, what in moves])
    expected = ({"oeste": "miel"}, {"norte": {"aceite"}, "sur": set(), "oeste": {"miel"}})

    first = shop(tmp_path)
    await first.start()
    await wait_until(lambda: rows(first) == expected, within=20)
    await first.stop()

    again = shop(tmp_path)
    await again.start()
    await wait_until(lambda: rows(again) == expected, within=20)
    await again.stop()
    log.close()
