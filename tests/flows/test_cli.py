import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from click.testing import CliRunner, Result

from app.cli import main
from app.engine.embedded_log import EmbeddedLog

PRODUCTS = """product_id,name,category,artisan,on_hand,threshold
product_aceite_picual,Aceite Picual,aceite,artisan_1,50,10
product_queso_cabra,Queso de cabra,queso,artisan_2,25,5
"""


def a4co(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


class Worker(HTTPServer):
    """Answers as the running worker does, and keeps what it was sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.status = 200
        self.imported: list[list[dict[str, object]]] = []


class Answer(BaseHTTPRequestHandler):
    server: Worker

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/api/stock/import":
            self.server.imported.append(body)
        answer = (
            {"imported": len(body)}
            if self.server.status == 200
            else {"title": "Not ready", "detail": "the disk is full"}
        )
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name it has above
        pass


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    with Worker() as server:
        monkeypatch.setenv("WEB_PORT", str(server.server_port))
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def products(tmp_path: Path) -> Path:
    file = tmp_path / "products.csv"
    file.write_text(PRODUCTS)
    return file


@pytest.mark.parametrize(
    "command",
    [
        "",
        "worker",
        "bridge",
        "demo",
        "config",
        "config show",
        "dlq",
        "dlq list",
        "dlq show",
        "dlq replay",
        "dlq discard",
        "offsets",
        "routes",
        "routes test",
        "stock",
        "stock import",
        "tables",
        "tables verify",
        "topics",
    ],
)
def test_every_command_explains_itself(command: str) -> None:
    result = a4co(*command.split(), "--help")
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: a4co {command}".rstrip() + " [OPTIONS]")


def test_help_loads_nothing_of_the_application() -> None:
    probe = "import sys, app.cli; print([m for m in ('faust', 'nats', 'pydantic', 'fastapi') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_the_version_is_the_packages() -> None:
    assert a4co("--version").output.startswith("a4co, version ")


@pytest.mark.parametrize("command", [["worker"], ["bridge"], ["demo"], ["config", "show"]], ids=" ".join)
def test_a_wrong_setting_is_one_line_and_exit_2(monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    monkeypatch.setenv("PARTITIONS", "four")
    result = a4co(*command)
    assert result.exit_code == 2
    assert result.output == "Error: PARTITIONS=four is wrong; allowed: a whole number from 1 to 256\n"


def test_a_wrong_option_is_exit_2() -> None:
    assert a4co("demo", "--orders", "0").exit_code == 2


def test_the_process_ends_with_2_and_without_a_traceback_on_a_wrong_setting() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", "from app.cli import main; main()", "worker"],
        env=os.environ | {"BROKER": "redis://127.0.0.1:9092"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert ran.stderr.startswith("Error: BROKER=redis://127.0.0.1:9092 is wrong")
    assert "Traceback" not in ran.stderr


def test_the_bridge_alone_is_refused_on_the_embedded_log() -> None:
    result = a4co("bridge")
    assert result.exit_code == 1
    assert "the bridge runs inside the worker" in result.output


def test_a_worker_without_a_bridge_is_refused_on_the_embedded_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE", "inside")  # which is put back afterwards
    result = a4co("worker", "--without-bridge")
    assert result.exit_code == 2
    assert "BRIDGE=apart needs Kafka" in result.output


def test_config_show_prints_values_sources_and_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_URL", "nats://olive:CRUSHED@10.0.0.1")
    table = a4co("config", "show").output
    assert "NATS_URL" in table
    assert "CRUSHED" not in table
    settings = json.loads(a4co("config", "show", "--json").output)
    assert settings["NATS_URL"] == {"value": "nats://olive:***@10.0.0.1", "source": "environment"}
    assert settings["WEB_PORT"] == {"value": "6066", "source": "default"}


def test_routes_lists_subjects_and_their_topics() -> None:
    lines = [line.split() for line in a4co("routes").output.splitlines()]
    assert ["order.created", "orders"] in [line[:2] for line in lines]


def test_routes_test_tells_the_topic_and_with_a_payload_the_key(tmp_path: Path) -> None:
    assert "topic orders" in a4co("routes", "test", "order.created").output
    assert "no route" in a4co("routes", "test", "order.crated").output
    payload = tmp_path / "event.json"
    payload.write_text("not json")
    assert "dead letter" in a4co("routes", "test", "order.created", str(payload)).output


def test_stock_import_hands_all_products_to_the_running_worker(worker: Worker, products: Path) -> None:
    result = a4co("stock", "import", str(products))
    assert (result.exit_code, result.output) == (0, "2 products imported\n")
    [sent] = worker.imported
    assert sent[0] == {
        "productId": "product_aceite_picual",
        "name": "Aceite Picual",
        "category": "aceite",
        "artisanId": "artisan_1",
        "onHand": 50,
        "threshold": 10,
    }
    assert [product["productId"] for product in sent] == ["product_aceite_picual", "product_queso_cabra"]


def test_one_bad_line_and_nothing_is_sent(worker: Worker, products: Path) -> None:
    products.write_text(PRODUCTS + "product_miel_azahar,Miel,miel,artisan_1,many,1\n")
    result = a4co("stock", "import", str(products))
    assert result.exit_code == 1
    assert f"{products}: line 4: on_hand must be a whole number from 0, not 'many'\n" in result.output
    assert worker.imported == []


def test_what_the_worker_refuses_is_told(worker: Worker, products: Path) -> None:
    worker.status = 503
    result = a4co("stock", "import", str(products))
    assert result.exit_code == 1
    assert result.output.endswith("answered 503: Not ready: the disk is full\n")


def test_without_a_worker_stock_import_says_how_to_start_one(
    monkeypatch: pytest.MonkeyPatch, worker: Worker, products: Path
) -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as closed:
        port = closed.server_port
    monkeypatch.setenv("WEB_PORT", str(port))
    result = a4co("stock", "import", str(products))
    assert result.exit_code == 1
    assert f"no worker answers at http://127.0.0.1:{port}/" in result.output
    assert "start `a4co worker` first" in result.output


def test_faust_tells_why_it_can_not_have_the_log(tmp_path: Path) -> None:
    log = EmbeddedLog(tmp_path / "log.db")
    log.open()
    command = [sys.executable, "-m", "faust", "-A", "app.main", "worker"]
    settings = {"DATA_DIR": str(tmp_path), "BROKER": f"embedded://{log.path}", "PYTHONPATH": str(Path.cwd())}
    ended = subprocess.run(
        command, env=os.environ | settings, capture_output=True, text=True, check=False, cwd=tmp_path
    )
    log.close()
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"a4co: the embedded log {log.path} is in use by the process {os.getpid()}")
