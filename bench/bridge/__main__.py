"""Our bridge beside nats-kafka and a bare loop: the same messages over the same servers, both ways.

A backlog of messages waits in a stream (or in `outbound`); a run is from a program's start until all of them are on the
other side. The programs take turns, each run has new topics, and counts only if every message came once, those of a key
in order. `python -m bench.bridge --programs ours,loop --log embedded` runs some of them.
"""

import argparse
import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from bench.bridge.judge import MEASURED_FROM, Judge
from bench.bridge.messages import spoken_in, spoken_out, told_in, told_out
from bench.bridge.programs import PROGRAMS, Program, Work
from bench.bridge.stream import Stream
from bench.bridge.topics import EmbeddedTopics, KafkaTopics, Topics
from bench.kafka import kafka
from bench.programs import STUCK, Missing, Wrong, in_turns, need, profiled, running, still_alive
from bench.report import conclude, cpu, peak_memory, progress
from deploy.kafka.broker import BrokerError
from tests.live.nats_server import NatsServer

WAYS = {"in": "JetStream to the log", "out": "the log to JetStream", "both": "out, and all of it mirrored back"}


class Run(NamedTuple):
    """Messages a second; processor time of the process for one of them, microseconds; its peak memory, MB."""

    speed: float
    microseconds: float
    rss: int


class Bench:
    """Runs programs between `topics` and `stream`, with files below `folder`."""

    def __init__(self, topics: Topics, stream: Stream, folder: Path, *, messages: int, slow: int, seed: int) -> None:
        self._topics, self._stream, self._folder = topics, stream, folder
        self._messages, self._slow, self._seed = messages, min(slow, messages), seed
        self._filled = False
        self._runs = 0

    async def run(self, program: Program, way: str, profile: Path | None = None) -> Run:
        """One run.

        Raises:
            Wrong: what came is not what must have come.
        """
        self._runs += 1
        count = self._slow if program.slow else self._messages
        name = f"{program.name}-{way}-{self._runs}".replace("_", "-")
        folder = self._folder / name
        folder.mkdir()
        self._topics.make(name)
        work = Work(way, self._topics.url(name), self._stream.url, name, folder, self._messages - count + 1)
        judge = await self._fill(way, name, count)
        output = self._folder / f"{name}.log"
        with running(program.command(work), output) as process:
            with profiled(process.pid, profile):
                each = await self._wait(way, name, count, process.pid, lambda: still_alive(process, output))
            rss = peak_memory(process.pid)
            # The last of them may be on their way: ends of partitions count the marks of transactions, too.
            await (self._topics.read(name, judge) if way == "in" else self._stream.read(judge))
        return Run(judge.speed(ordered=program.ordered), 1e6 * each, rss)

    async def _fill(self, way: str, name: str, count: int) -> Judge:
        """What waits on one side."""
        if way != "in":
            self._filled = False
            await self._stream.fresh()
            self._topics.fill(name, spoken_out(count, self._seed))
            return Judge(range(count), told_out)
        if not self._filled:
            await self._stream.fresh()
            told = partial(progress, "stream", total=self._messages)
            await self._stream.fill(spoken_in(self._messages, self._seed), told)
            self._filled = True
        return Judge(range(self._messages - count, self._messages), told_in)

    async def _wait(self, way: str, name: str, count: int, pid: int, alive: Callable[[], None]) -> float:
        """Return when so many may be there, with the processor time of one message behind the first ones, in seconds.

        Raises:
            Wrong: nothing new came for STUCK seconds, or what `alive` raises.
        """
        end, since, tenth = 0, time.monotonic(), max(1, count // 10)
        started: tuple[int, float] | None = None
        while end < count:
            await asyncio.sleep(0.2)
            alive()
            now = await (self._topics.mirrored(name) if way == "in" else self._stream.last())
            if now > end:
                if now // tenth != end // tenth:
                    progress(name, min(now // tenth * tenth, count), count)
                end, since = now, time.monotonic()
                if started is None and end >= count * MEASURED_FROM:
                    started = end, cpu(pid)
            elif time.monotonic() > since + STUCK:
                raise Wrong(f"nothing new for {STUCK:g} s at {end} of {count}")
        first, before = started or (0, 0.0)
        return (cpu(pid) - before) / max(1, count - first)


async def measure(
    programs: Sequence[Program], way: str, rounds: int, bench: Bench
) -> tuple[dict[str, list[Run]], dict[str, str]]:
    """Every good run, and why the last bad one was bad, by program."""
    good: dict[str, list[Run]] = {program.name: [] for program in programs}
    wrong: dict[str, str] = {}
    for turn, program in in_turns(programs, rounds):
        said = f"{way}, {turn}, {program.name}"
        try:
            run = await bench.run(program, way)
        except Wrong as error:
            wrong[program.name] = str(error)
            sys.stderr.write(f"{said}: does not count: {error}\n")
        else:
            good[program.name].append(run)
            sys.stderr.write(f"{said}: {run.speed:,.0f} messages/s, {run.microseconds:.1f} µs each, {run.rss} MB\n")
    return good, wrong


def figures(good: dict[str, list[Run]], wrong: dict[str, str]) -> dict[str, Any]:
    """Medians, all rounds, and how many times as fast as each other program ours is."""
    good = {name: runs for name, runs in good.items() if runs}
    medians = {name: statistics.median(run.speed for run in runs) for name, runs in good.items()}
    ours = medians.get("ours")
    others = {name: median for name, median in medians.items() if ours and name != "ours"}
    return {
        "messages_per_second": {name: round(median) for name, median in medians.items()},
        "rounds": {name: [round(run.speed) for run in runs] for name, runs in good.items()},
        "ours_to": {name: round((ours or 0) / median, 2) for name, median in others.items()},
        "cpu_microseconds_per_message": {
            name: round(statistics.median(run.microseconds for run in runs), 1) for name, runs in good.items()
        },
        "peak_rss_mb": {name: max(run.rss for run in runs) for name, runs in good.items()},
        "wrong": wrong,
    }


async def compare(
    bench: Bench, programs: Sequence[Program], ways: Sequence[str], rounds: int
) -> dict[str, dict[str, Any]]:
    """The figures of each way."""
    compared = {}
    for way in ways:
        takers = [program for program in programs if way != "both" or program.name == "ours"]
        compared[way] = {"what": WAYS[way], **figures(*await measure(takers, way, rounds, bench))}
    return compared


def options() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.bridge", description=__doc__)
    parser.add_argument("--messages", type=int, default=200_000, help="for each run of a fast program (200000)")
    parser.add_argument("--slow-messages", type=int, default=30_000, help="for each run of nats-kafka (30000)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--log", choices=("kafka", "embedded"), default="kafka")
    parser.add_argument("--ways", default=",".join(WAYS), help=f"of {','.join(WAYS)}")
    parser.add_argument("--programs", default=",".join(PROGRAMS), help=f"of {','.join(PROGRAMS)}")
    parser.add_argument("--sync", default='"2m"', help="JetStream's sync_interval (its own default is 2m); always")
    parser.add_argument("--profile", type=Path, help="also run `ours` once each way under py-spy, into this folder")
    return parser.parse_args()


def chosen(given: argparse.Namespace) -> list[Program]:
    """The programs that can be run; one that can't is left out with a word. Raises Missing."""
    programs = []
    for name in given.programs.split(","):
        program = PROGRAMS[name]
        if given.log not in program.logs:
            sys.stderr.write(f"{name:12} is not for the {given.log} log\n")
            continue
        try:
            program.prepare()
        except Missing as missing:
            sys.stderr.write(f"{name:12} is left out: {missing}\n")
            continue
        sys.stderr.write(f"{name:12} {program.what}\n")
        programs.append(program)
    return programs


async def run(given: argparse.Namespace, folder: Path) -> dict[str, dict[str, Any]]:
    """Start the servers and compare."""
    programs, ways = chosen(given), given.ways.split(",")
    server = NatsServer(folder / "nats", sync=given.sync)
    with contextlib.ExitStack() as stack:
        await server.start()
        stack.callback(server.stop)
        topics: Topics = EmbeddedTopics(folder)
        if given.log == "kafka":
            topics = KafkaTopics(stack.enter_context(kafka(folder / "kafka")))
        bench = Bench(
            topics, Stream(server.url), folder, messages=given.messages, slow=given.slow_messages, seed=given.seed
        )
        if given.profile:
            need("py-spy", "pip install py-spy")
            given.profile.mkdir(exist_ok=True)
            for way in ways:
                await bench.run(PROGRAMS["ours"], way, given.profile / f"{way}.svg")
        return await compare(bench, programs, ways, given.rounds)


def main() -> int:
    """The command."""
    given = options()
    unknown = {*given.programs.split(",")} - {*PROGRAMS} | {*given.ways.split(",")} - {*WAYS}
    if unknown:
        sys.stderr.write(f"unknown: {', '.join(unknown)}; there are {', '.join((*PROGRAMS, *WAYS))}\n")
        return 2
    try:
        with tempfile.TemporaryDirectory(prefix="a4co-bridge-") as name:
            compared = asyncio.run(run(given, Path(name)))
    except (Missing, Wrong, BrokerError) as error:
        sys.stderr.write(f"bench-bridge: {error}\n")
        return 1
    what = f"a backlog of marketplace messages over the bridge, {given.log} log"
    conclude(what, {"messages": given.messages, "sync": given.sync, **compared}, seed=given.seed)
    return 1 if any(way["wrong"] for way in compared.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
