"""`a4co demo` as a user runs it: a real process with its real children, and the judge that it ends with."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nats
import orjson
import pytest
from nats.js.api import StreamConfig

from app.demo.envelope import encode, event
from app.demo.ledger import CONFIRMATION, Finding, Ledger, OnShelf
from app.demo.screen import verdict
from app.demo.servers import worker_environment
from app.settings import Settings
from tests.live.nats_server import NatsServer
from tests.waiting import wait_until

pytestmark = pytest.mark.live

COMMAND = [sys.executable, "-c", "from app.cli import main; main()", "demo"]
HOLDS = (
    "every order ended",
    "oversold 0",
    "lost 0",
    "one answer for each order",
    "nothing said twice",
    "one mail for each end",
    "stock = brought - sold",
    "no dead letters",
)


class RunningDemo:
    """The demo's process. Its output goes to a file: a pipe that nobody reads would stop it."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self._output = folder / "demo.out"
        with self._output.open("wb") as file:
            self.process = subprocess.Popen(
                [*COMMAND, *arguments],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ | {"DATA_DIR": str(folder / "data")} | environment,
            )

    def output(self) -> str:
        return self._output.read_text()

    def children(self) -> list[int]:
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in listed.split()]

    async def says(self, words: str, within: float = 30) -> None:
        def said() -> bool:
            assert self.process.poll() is None, f"the demo ended:\n{self.output()}"
            return words in self.output()

        await wait_until(said, within=within, what=f"the demo says {words!r}")

    async def ended(self, within: float) -> int:
        return await asyncio.to_thread(self.process.wait, within)


@contextmanager
def demo(folder: Path, *arguments: str, **environment: str) -> Iterator[RunningDemo]:
    running = RunningDemo(folder, *arguments, **environment)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait(10)
        print(running.output())


def alive(pid: int) -> bool:
    """Whether the process does anything any more: one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# ---- the whole of it --------------------------------------------------------------------------------------


async def test_forty_orders_end_by_themselves_with_a_good_verdict_and_leave_nothing(tmp_path: Path) -> None:
    with demo(tmp_path, "--orders", "40") as running:
        assert await running.ended(within=60) == 0
    output = running.output()
    for what in HOLDS:
        assert re.search(rf"^ok +{re.escape(what)}", output, re.MULTILINE), what
    assert "FAIL" not in output
    assert re.search(r"^first order confirmed after [0-9.]+ s", output, re.MULTILINE)
    assert "timers  scaled for the demo: PAYMENT_RETRY_DELAY 2 s (not 300)" in output
    of_us = re.search(r"heard on NATS: (\d+) events of the application", output)
    assert of_us is not None
    assert int(of_us[1]) > 100  # else "nothing said twice" says nothing
    for outcome in ("out of stock", "payment failed", "by the customer", "after another payment request"):
        assert outcome in output
    assert list((tmp_path / "data").iterdir()) == []


async def test_ctrl_c_ends_the_endless_demo_in_three_seconds_with_all_its_children(tmp_path: Path) -> None:
    with demo(tmp_path) as running:
        await running.says("first order confirmed")
        children = running.children()
        assert len(children) == 2  # nats-server and the worker
        running.process.send_signal(signal.SIGINT)
        asked = time.monotonic()
        assert await running.ended(within=10) == 0
        assert time.monotonic() - asked < 3
    assert not any(alive(child) for child in children)
    assert "stopped in" in running.output()
    assert list((tmp_path / "data").iterdir()) == []


async def test_a_dead_worker_ends_the_demo_with_its_last_words(tmp_path: Path) -> None:
    with demo(tmp_path) as running:
        await running.says("orders  10 a second")
        found = re.search(r"^worker +pid (\d+)", running.output(), re.MULTILINE)
        assert found is not None
        nats = [child for child in running.children() if child != int(found[1])]
        os.kill(int(found[1]), signal.SIGKILL)
        assert await running.ended(within=10) == 1
    assert "Error: the worker ended with -9; its last output:" in running.output()
    assert '"level"' in running.output()  # a line of its log
    assert not alive(nats[0])
    assert list((tmp_path / "data").glob("demo-*/worker.log"))


# ---- a NATS of the user's ---------------------------------------------------------------------------------


async def test_a_nats_that_keeps_a_marketplace_already_is_refused(tmp_path: Path, nats_server: NatsServer) -> None:

    client = await nats.connect(nats_server.url)
    await client.jetstream().add_stream(StreamConfig(name="THEIRS", subjects=["order.>"]))
    await client.close()
    with demo(tmp_path, "--orders", "5", NATS_URL=nats_server.url) as running:
        assert await running.ended(within=20) == 1
    assert "the stream THEIRS keeps a marketplace's events already" in running.output()


# ---- the judge --------------------------------------------------------------------------------------------

SHOP, ORDER = "product_jamon_iberico", "order_last_ham"


def heard(ledger: Ledger, subject: str, aggregate: str, **data: object) -> None:
    ledger.hear(subject, encode(event("AnyEvent", aggregate, data, "order-service")), by_us=False)


def sold_ham() -> Ledger:
    """Three hams were brought, an order of two was placed, paid and confirmed."""
    ledger = Ledger()
    heard(ledger, "inventory.stock.updated", SHOP, changeAmount=3)
    ledger.placed(ORDER)
    heard(ledger, "order.created", ORDER, items=[{"productId": SHOP, "quantity": 2}])
    heard(ledger, "payment.initiated", "payment_1", orderId=ORDER)
    heard(ledger, "order.confirmed", ORDER)
    return ledger


def failed(
    ledger: Ledger, *, left: int = 1, reserved: int = 0, state: str | None = "completed", mails: int = 1
) -> set[str]:
    """What the judge finds wrong when the application says this."""
    shelves = {
        name: OnShelf(0, 0) for name in ("product_aceite_picual", "product_queso_cabra", "product_miel_azahar")
    } | {SHOP: OnShelf(left, reserved)}
    states = {} if state is None else {ORDER: state}
    findings = ledger.judge(states, shelves, Counter({(ORDER, CONFIRMATION): mails}))
    return {finding.what for finding in findings if not finding.holds}


def test_the_judge_finds_nothing_wrong_with_an_order_that_went_well() -> None:
    assert failed(sold_ham()) == set()


def test_one_finding_that_does_not_hold_spoils_the_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert not verdict([Finding(False, "lost 1", "an order"), Finding(True, "oversold 0", "units")])
    assert "FAIL  lost 1" in capsys.readouterr().out


def test_the_judge_misses_a_unit() -> None:
    assert failed(sold_ham(), left=2) == {"stock = brought - sold"}
    assert failed(sold_ham(), reserved=1) == {"stock = brought - sold"}


def test_the_judge_misses_an_order_and_its_end() -> None:
    assert failed(sold_ham(), state=None) == {"every order ended", "lost 1"}
    assert failed(sold_ham(), state="confirmed") == {"every order ended"}


def test_the_judge_counts_mails() -> None:
    assert failed(sold_ham(), mails=0) == failed(sold_ham(), mails=2) == {"one mail for each end"}


def test_the_judge_hears_a_second_answer() -> None:
    ledger = sold_ham()
    heard(ledger, "order.confirmed", ORDER)
    assert failed(ledger) == {"one answer for each order"}


@pytest.mark.parametrize(("by_us", "wrong"), [(True, {"nothing said twice"}), (False, set())])
def test_the_judge_hears_the_application_repeat_itself_and_lets_services_do_so(by_us: bool, wrong: set[str]) -> None:
    ledger = sold_ham()
    warning = encode(event("LowStockWarningEvent", SHOP, {"currentStock": 1}, "inventory-service"))
    ledger.hear("inventory.stock.warning", warning, by_us=by_us)
    ledger.hear("inventory.stock.warning", warning, by_us=by_us)
    assert failed(ledger) == wrong


def test_the_judge_remembers_what_was_oversold_for_a_moment() -> None:
    ledger = sold_ham()
    ledger.placed("order_one_too_many")
    heard(ledger, "order.created", "order_one_too_many", items=[{"productId": SHOP, "quantity": 2}])
    heard(ledger, "order.confirmed", "order_one_too_many")
    heard(ledger, "order.cancelled", "order_one_too_many", cancelledBy="customer", reason="no")
    assert "oversold 1" in failed(ledger)


def test_the_judge_hears_dead_letters() -> None:
    ledger = sold_ham()
    ledger.hear("order.created.dlq", orjson.dumps({"originalSubject": "order.created"}), by_us=True)
    assert failed(ledger) == {"no dead letters"}


def test_the_users_settings_reach_the_worker_and_the_demos_own_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "url").write_text("smtp://real.example")
    monkeypatch.setenv("SMTP_URL_FILE", str(tmp_path / "url"))
    monkeypatch.setenv("LOG_LEVEL", "debug")
    monkeypatch.setenv("ROLE_CONFIRM", "observe")
    environment = worker_environment(Settings(), tmp_path, "nats://127.0.0.1:1", "smtp://127.0.0.1:2", 3)
    assert environment["LOG_LEVEL"] == "debug"
    assert environment["SMTP_URL"] == "smtp://127.0.0.1:2"
    assert "SMTP_URL_FILE" not in environment
    assert environment["ROLE_CONFIRM"] == "act"
    assert environment["BROKER"] == f"embedded://{tmp_path}/log.db"
