"""The programs that are compared: what each needs, how it is made on the first run, and how it is started."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.programs import BUILT, build, need

HERE = Path(__file__).parent
QUIX_PYTHON = BUILT / "quix" / "bin" / "python"
STREAMS = BUILT / "kafka-streams"


@dataclass(frozen=True)
class Program:
    """One program: its command line begins with `command`, and SERVERS INPUT OUTPUT NAME FOLDER and `more` follow.

    `slow`: it gets fewer records. `prepare` makes what it needs, once.
    """

    name: str
    what: str
    command: Sequence[str]
    more: Sequence[str] = ()
    slow: bool = False
    prepare: Callable[[], None] = lambda: None


def _build_streams() -> None:
    """Compile the Java program, beside the jars that Maven fetches; again when its source is newer."""
    need("javac", "on Debian: apt-get install openjdk-17-jdk-headless")
    built, sources = STREAMS / "built", [HERE / "kafka_streams" / name for name in ("pom.xml", "OrderTotals.java")]
    if built.exists() and built.stat().st_mtime > max(source.stat().st_mtime for source in sources):
        return
    need("mvn", "on Debian: apt-get install maven")
    sys.stderr.write("building Kafka Streams' program (94 MB of jars, once) ...\n")
    out = STREAMS.absolute()
    pom = sources[0]
    build("Maven", "mvn", "-q", "-B", "-f", pom, f"-Dout={out}", "compile", "dependency:copy-dependencies",
         f"-DoutputDirectory={out / 'libs'}")  # fmt: skip
    built.touch()


def _install_quix() -> None:
    """Quix Streams pins other versions than ours: it has a virtual environment of its own."""
    built, lock = BUILT / "quix" / "built", HERE / "quix.txt"
    if built.exists() and built.stat().st_mtime > lock.stat().st_mtime:
        return
    sys.stderr.write("installing Quix Streams (131 MB, once) ...\n")
    build("the virtual environment", sys.executable, "-m", "venv", "--clear", BUILT / "quix")
    build("pip", QUIX_PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
         "--require-hashes", "-r", lock)  # fmt: skip
    built.touch()


def _module(name: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"bench.peers.{name}")


PROGRAMS = {
    program.name: program
    for program in (
        Program("ours", "this engine", _module("ours")),
        Program(
            "kafka_streams", "Kafka Streams 4.2, EOSv2, one thread",
            ("java", "-cp", f"{STREAMS}/classes:{STREAMS}/libs/*", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
             "OrderTotals"),
            prepare=_build_streams,
        ),
        Program(
            "quix", "Quix Streams 3.28, exactly-once", (str(QUIX_PYTHON), str(HERE / "quix.py")), prepare=_install_quix
        ),
        Program("loop", "a bare Python loop over librdkafka: the ceiling", _module("loop")),
        Program(
            "faust", "stock Faust 0.15, exactly_once", _module("stock_faust"), ("exactly_once", "kafka"), slow=True
        ),
        Program(
            "faust_at_least_once", "stock Faust 0.15, at_least_once", _module("stock_faust"),
            ("at_least_once", "kafka"), slow=True,
        ),
        Program(
            "faust_on_ours", "the same Faust app on this engine's transport, exactly once", _module("stock_faust"),
            ("at_least_once", "a4co-kafka"), slow=True,
        ),
    )
}  # fmt: skip
