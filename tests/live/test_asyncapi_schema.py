"""AsyncAPI's own parser takes the document, and every example is as its schema says; a fault in it is seen."""

import json
import subprocess
from typing import Any

import pytest

from app.asyncapi.document import document
from bridge.routes import ROUTES
from tests.live.node_services import installed

pytestmark = pytest.mark.live


def faults(made: dict[str, Any]) -> list[str]:
    ran = subprocess.run(
        ["node", "--import", "tsx", "check_asyncapi.ts"],
        cwd=installed(), input=json.dumps(made), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found: list[str] = json.loads(ran.stdout)
    return found


def test_the_document_is_asyncapi_and_every_example_fits_its_schema() -> None:
    assert faults(document(ROUTES)) == []


def test_a_document_with_faults_is_refused() -> None:
    made = json.loads(json.dumps(document(ROUTES)))
    made["components"]["messages"]["order.created.a"]["examples"][0]["payload"]["eventData"]["items"] = []
    made["operations"]["receive.order.created"]["action"] = "hear"
    assert [fault.partition(":")[0] for fault in faults(made)] == [
        "operations.receive.order.created.action",
        "order.created.a",
    ]
