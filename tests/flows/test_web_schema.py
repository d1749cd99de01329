"""The OpenAPI document against the API: what it allows is answered as it says, and what it forbids is refused."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.config import SchemathesisConfig
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from app import topics
from app.engine.embedded_log import EmbeddedLog
from app.web import freshness
from app.web.api import create_api
from app.web.live.events import TOPICS
from app.web.live.stream import LiveStream
from tests.flows.shop import PARTITIONS, Shop, cheese, order

# A cursor is right or wrong by what it stands for, which no schema can say: then it is 400.
ACCEPTED = ["2xx", "3xx", "400", "401", "403", "404", "409", "429", "503"]
config = SchemathesisConfig.from_dict({"checks": {"positive_data_acceptance": {"expected-statuses": ACCEPTED}}})


shop = Shop(log=EmbeddedLog(Path(tempfile.mkdtemp()) / "log.db"))
shop.put(*(cheese(product_id=f"queso-{number}") for number in range(3)))
shop.put(*(order(f"order-{number}") for number in range(3)))
schema = schemathesis.openapi.from_asgi("/openapi.json", create_api(shop.views()), config=config)


@pytest.fixture(scope="module", autouse=True)
def log() -> Iterator[None]:
    """What the endpoints write to."""
    shop.log.open()
    for topic in (*(topic.name for topic in topics.ALL), *TOPICS):
        shop.log.declare(topic, PARTITIONS)
    yield
    shop.log.close()
    shutil.rmtree(shop.log.path.parent)


@pytest.fixture(autouse=True)
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freshness, "LONGEST_WAIT", 0.0)

    async def ends(*_arguments: Any) -> None:
        """What is live ends with what was missed."""

    monkeypatch.setattr(LiveStream, "_go_on", ends)


def no_server_error(_context: Any, response: schemathesis.Response, case: schemathesis.Case[Any]) -> None:
    """Nothing fails; what is not known yet is 503, and says when to come back."""
    if response.status_code >= 500:
        assert response.status_code == 503, f"{case.as_curl_command()}: {response.text}"
        assert response.json()["type"] in ("/docs#not-ready", "/docs#not-yet")


def forbidden_data_rejection(context: Any, response: schemathesis.Response, case: schemathesis.Case[Any]) -> None:
    """What the document forbids is refused. Schemathesis adds the fields of an order to any query, and what it does to
    these is not forbidden: a query may have parameters that the document does not name.
    """
    data = case.meta.phase.data if case.meta is not None else None
    if data is not None and data.parameter_location is ParameterLocation.QUERY:
        changed = {data.parameter, *(mutation.parameter for mutation in data.mutations)} - {None}
        if changed and not changed & {parameter.name for parameter in case.operation.query}:
            return
    negative_data_rejection(context, response, case)


CHECKS = [
    no_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    forbidden_data_rejection,
    unsupported_method,
]


@pytest.mark.slow
@schema.parametrize()
@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_the_api_is_what_its_document_says(case: schemathesis.Case[Any]) -> None:
    # Two lines of one product, or a wish for nothing, are wrong in a way that no schema says.
    # Schemathesis adds the fields of an order to any query, and a letter's `state` has other words.
    by_schema_alone = case.method == "GET" and not case.path.startswith("/api/dead-letters")
    case.call_and_validate(checks=[*CHECKS, positive_data_acceptance] if by_schema_alone else CHECKS)
