"""A real Prometheus with the project's own configuration, whose targets and intervals are the test's."""

import asyncio
import math
import re
import shutil
import subprocess
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.live.nats_server import free_ports
from tests.waiting import need_live

DEPLOYED = Path(__file__).parents[2] / "deploy" / "prometheus"
COMPARED = re.compile(r"\s(?:[<>]=?|[!=]=)\s(?:bool\s)?|\s(?:and|or|unless)\s")


class Prometheus:
    """Scrapes every second and evaluates the rules of deploy/prometheus. `jobs`: job -> host:port."""

    def __init__(self, folder: Path, jobs: dict[str, list[str]]) -> None:
        folder.mkdir()
        port = free_ports(1)[0]
        config = yaml.safe_load((DEPLOYED / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(DEPLOYED / pattern) for pattern in config["rule_files"]]
        for scrape in config["scrape_configs"]:
            scrape["static_configs"] = [{"targets": jobs.get(scrape["job_name"], [])}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        binary = shutil.which("prometheus") or need_live("prometheus is missing: it is a package of Debian")
        self._command = [
            binary, "--config.file=prometheus.yml", "--storage.tsdb.path=data",
            f"--web.listen-address=127.0.0.1:{port}",
        ]  # fmt: skip
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10)

    async def start(self) -> None:
        """Return when it is ready. Raises AssertionError with its output otherwise."""
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )
        deadline = time.monotonic() + 30
        while not await self._is_ready():
            assert self._process.poll() is None, self._output.read_text()
            assert time.monotonic() < deadline, self._output.read_text()
            await asyncio.sleep(0.05)

    async def _is_ready(self) -> bool:
        try:
            return (await self._client.get("/-/ready")).status_code == 200
        except httpx.TransportError:
            return False

    @property
    def _output(self) -> Path:
        return self._folder / "prometheus.log"

    async def close(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
        await self._client.aclose()

    async def api(self, path: str, **query: str) -> Any:
        """What its API answers. Raises AssertionError with its error."""
        answer = await self._client.get(f"/api/v1/{path}", params=query)
        assert answer.status_code == 200, f"{query}: {answer.text}"
        return answer.json()["data"]

    async def has_data(self, expression: str) -> bool:
        """Whether the expression, asked now, gives a number at all (0 is one)."""
        data = await self.api("query", query=expression)
        if data["resultType"] == "scalar":
            return True
        return any(not math.isnan(float(series["value"][1])) for series in data["result"])

    async def without_data(self, expressions: Iterable[str]) -> list[str]:
        """Those of the expressions that give nothing."""
        return [expression for expression in expressions if not await self.has_data(expression)]


def operands(expression: str) -> Collection[str]:
    """What an alert's expression compares and combines, outside of any brackets: it has to be there at any time."""
    depth, begin, parts = 0, 0, []
    for at, character in enumerate(expression):
        depth += (character in "([{") - (character in ")]}")
        found = COMPARED.match(expression, at) if depth == 0 and at >= begin else None
        if found:
            parts.append(expression[begin:at])
            begin = found.end()
    return [*parts, expression[begin:]]
