"""A stock Faust app whose handlers wait for ever, or fail, the first time that a message says so."""

import asyncio
import os
from pathlib import Path

import faust

app = faust.App(
    "misbehaving", broker=os.environ["BROKER"], store=os.environ.get("STORE", "memory://"), topic_partitions=4,
    web_enabled=False,
)  # fmt: skip
told = app.topic("told", key_type=str, value_type=str)
gathered = app.topic("gathered", value_type=str)
done = app.topic("done", key_type=str)
counts = app.Table("counts", default=int)


def the_first_time(what: str) -> bool:
    """Whether this has not yet happened; a restart changes nothing."""
    flag = Path(os.environ["FLAGS"]) / what
    first = not flag.exists()
    flag.touch()
    return first


@app.agent(told, concurrency=int(os.environ.get("CONCURRENCY", "1")))
async def do(stream: faust.StreamT[str]) -> None:
    """Count, and say so; in between, misbehave."""
    async for key, what in stream.items():
        counts[key] += 1
        if what == "wait" and the_first_time("waited"):
            await asyncio.sleep(3_600)
        if what == "fail" and the_first_time("failed"):
            raise ValueError(what)
        await done.send(key=key, value=counts[key])


@app.agent(gathered)
async def do_together(stream: faust.StreamT[str]) -> None:
    """Say so for each of some messages; the last of them may wait for ever."""
    async for batch in stream.take(10, within=0.5):
        for what in batch:
            if what == "wait" and the_first_time("waited"):
                await asyncio.sleep(3_600)
            await done.send(key=what, value=1)


if __name__ == "__main__":
    app.main()
