"""What a Faust app's broker URL and credentials say of the Kafka cluster."""

import ssl
from typing import Any

import faust
import pytest

from app.engine.errors import EngineError
from app.engine.faust.kafka_transport import options_of
from app.engine.kafka.options import KafkaOptions


def options(broker: str, **settings: Any) -> KafkaOptions:
    return options_of(faust.App("shop", broker=broker, web_enabled=False, **settings))


def test_a_url_names_brokers_prefix_protocol_and_settings_of_the_client() -> None:
    given = options("a4co-kafka://one:9093;two?prefix=jaen.&group.protocol=classic&client.rack=b")
    assert (given.servers, given.prefix, given.group_protocol) == ("one:9093,two:9092", "jaen.", "classic")
    assert given.client == {"client.rack": "b"}


def test_each_worker_has_a_name_of_its_own() -> None:
    assert options("a4co-kafka://one").worker != options("a4co-kafka://one").worker


def test_a_name_and_a_password_are_given_to_the_client_and_the_url_has_the_last_word() -> None:
    credentials = faust.SASLCredentials(username="olivares", password="picual", mechanism="SCRAM-SHA-512")
    given = options("a4co-kafka://one?security.protocol=SASL_SSL", broker_credentials=credentials)
    assert given.client == {
        "security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "olivares",
        "sasl.password": "picual",
    }  # fmt: skip


def test_a_context_that_can_t_be_given_to_the_client_is_named_with_the_way_out() -> None:
    with pytest.raises(EngineError, match=r"SSLCredentials can't be given to librdkafka: .*ssl.ca.location"):
        options("a4co-kafka://one", broker_credentials=faust.SSLCredentials(context=ssl.create_default_context()))
