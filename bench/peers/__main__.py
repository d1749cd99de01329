"""Our engine beside its peers on one Kafka broker: a row read and written and one output for each record, exactly once.

All read the same records; each run has new topics, a new group and a new folder, and the programs take turns. A run
counts only if its outputs are what the model says. `python -m bench.peers --programs ours,loop` runs some of them.
"""

import argparse
import contextlib
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.kafka import kafka
from bench.peers.judge import Judge
from bench.peers.lines import MEASURED_FROM, Row, lines, model
from bench.peers.programs import PROGRAMS, Program
from bench.programs import Missing, Wrong, in_turns, need, profiled, running, still_alive
from bench.report import conclude, cpu, progress
from deploy.kafka import broker


class Run(NamedTuple):
    """Records a second, and the processor time that the process took for a record, its start included."""

    speed: float
    microseconds: float


class Bench:
    """Runs programs on the broker at `servers`, with files below `folder`."""

    def __init__(self, servers: str, folder: Path, *, records: int, slow_records: int, seed: int) -> None:
        self._judge = Judge(servers)
        self._folder = folder
        self._records, self._slow_records, self._seed = records, slow_records, seed
        self._models: dict[int, dict[str, Row]] = {}
        self._runs = 0

    def _input(self, records: int) -> str:
        """The topic with so many records, filled once."""
        topic = f"lines-{records}"
        if records not in self._models:
            self._models[records] = model(records, self._seed)
            self._judge.make(topic)
            self._judge.fill(topic, lines(records, self._seed), lambda done: progress(topic, done, records))
        return topic

    def run(self, program: Program, profile: Path | None = None) -> Run:
        """One run.

        Raises:
            Wrong: its outputs are not what they must be.
        """
        self._runs += 1
        name = f"{program.name}-{self._runs}".replace("_", "-")
        records = self._slow_records if program.slow else self._records
        source, target, folder = self._input(records), f"{name}-out", self._folder / name
        folder.mkdir()
        self._judge.make(target, f"{name}-changelog")
        arguments = [*program.command, self._judge.servers, source, target, name, str(folder), *program.more]
        log = self._folder / f"{name}.log"
        with contextlib.closing(self._judge.outputs(target)) as outputs:
            with running(arguments, log) as process:
                with profiled(process.pid, profile):
                    self._judge.wait(
                        target,
                        records,
                        lambda: still_alive(process, log),
                        lambda done: progress(name, done, records),
                    )
                    outputs.read(records)
                spent = cpu(process.pid)
            outputs.read()  # what it may have said while it ended
            outputs.judge(records, self._models[records])
            return Run(outputs.speed(), 1e6 * spent / records)


def measure(programs: Sequence[Program], rounds: int, bench: Bench) -> tuple[dict[str, list[Run]], dict[str, str]]:
    """Every good run, and why the last bad one was bad, by program."""
    good: dict[str, list[Run]] = {program.name: [] for program in programs}
    wrong: dict[str, str] = {}
    for turn, program in in_turns(programs, rounds):
        try:
            run = bench.run(program)
        except Wrong as error:
            wrong[program.name] = str(error)
            sys.stderr.write(f"{turn} {program.name}: does not count: {error}\n")
        else:
            good[program.name].append(run)
            said = f"{run.speed:,.0f} records/s, {run.microseconds:.1f} µs of processor time each"
            sys.stderr.write(f"{turn} {program.name}: {said}\n")
    return good, wrong


def figures(good: dict[str, list[Run]], wrong: dict[str, str]) -> dict[str, Any]:
    """Medians, all rounds, and how many times as fast as each other program ours is."""
    good = {name: runs for name, runs in good.items() if runs}
    medians = {name: statistics.median(run.speed for run in runs) for name, runs in good.items()}
    ours = medians.get("ours")
    others = {name: median for name, median in medians.items() if ours and name != "ours"}
    return {
        "records_per_second": {name: round(median) for name, median in medians.items()},
        "rounds": {name: [round(run.speed) for run in runs] for name, runs in good.items()},
        "ours_to": {name: round((ours or 0) / median, 2) for name, median in others.items()},
        "cpu_microseconds_per_record": {
            name: round(statistics.median(run.microseconds for run in runs), 1) for name, runs in good.items()
        },
        "wrong": wrong,
    }


def options() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--records", type=int, default=600_000, help="for each run of a fast program (600000)")
    parser.add_argument("--slow-records", type=int, default=20_000, help="for each run of stock Faust (20000)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--programs", default=",".join(PROGRAMS), help=f"of {','.join(PROGRAMS)}")
    parser.add_argument("--profile", type=Path, help="also run `ours` once under py-spy, which writes this file")
    return parser.parse_args()


def main() -> int:
    """The command."""
    given = options()
    unknown = [name for name in given.programs.split(",") if name not in PROGRAMS]
    if unknown:
        sys.stderr.write(f"no program {unknown[0]!r}: there are {', '.join(PROGRAMS)}\n")
        return 2
    programs = [PROGRAMS[name] for name in given.programs.split(",")]
    for program in programs:
        sys.stderr.write(f"{program.name:20} {program.what}\n")
    try:
        if given.profile:
            need("py-spy", "pip install py-spy")
        for program in programs:
            program.prepare()
        with tempfile.TemporaryDirectory(prefix="a4co-peers-") as folder, kafka(Path(folder) / "kafka") as servers:
            bench = Bench(
                servers, Path(folder), records=given.records, slow_records=given.slow_records, seed=given.seed
            )
            if given.profile:
                bench.run(PROGRAMS["ours"], given.profile)
            good, wrong = measure(programs, given.rounds, bench)
    except (Missing, Wrong, broker.BrokerError) as error:
        sys.stderr.write(f"bench-peers: {error}\n")
        return 1
    what = f"a row read and written and one output for each record on Kafka, behind the first {MEASURED_FROM:.0%}"
    conclude(what, {"records": given.records, **figures(good, wrong)}, seed=given.seed)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
