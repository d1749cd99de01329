import json
import socket
from io import StringIO
from pathlib import Path

import pytest
from dotenv import dotenv_values

from app.nats_settings import nats_servers
from app.setting_types import is_loopback, redact
from app.settings import Settings, SettingsError, load, shown
from tests.flows.conftest import Opens

ROOT = Path(__file__).parents[2]


def given(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def wrong(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    """What is said about these variables."""
    given(monkeypatch, **variables)
    with pytest.raises(SettingsError) as caught:
        load()
    return str(caught.value)


def test_without_any_variable_everything_is_local_and_embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load()
    assert settings.nats_servers == ["nats://127.0.0.1:4222"]
    assert settings.broker == f"embedded://{tmp_path}/data/log.db"
    assert settings.log_path == tmp_path / "data" / "log.db"
    assert (settings.web_host, settings.web_port) == ("127.0.0.1", 6066)


def test_the_log_lies_in_the_data_folder_unless_it_is_told_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, DATA_DIR="/srv/olive #1")
    assert load().log_path == Path("/srv/olive #1/log.db")
    given(monkeypatch, BROKER="embedded:///var/crunchy.db")
    assert load().log_path == Path("/var/crunchy.db")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:6066"),
        ("0.0.0.0", f"http://{socket.gethostname()}:6066"),
        ("::1", "http://[::1]:6066"),
    ],
)
def test_the_others_reach_a_worker_where_it_listens_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, host: str, url: str
) -> None:
    given(monkeypatch, WEB_HOST=host, KAFKA_URL="kafka://127.0.0.1:9092")
    kafka = load().kafka
    assert kafka is not None
    assert kafka.url == url
    given(monkeypatch, WEB_URL="https://worker-1.a4co.es/")
    assert load().web_url == "https://worker-1.a4co.es"


def test_an_address_that_only_this_machine_reaches_is_told_from_others() -> None:
    here = ["http://127.0.0.1:6066", "http://localhost", "http://[::1]:6066", "kafka://127.0.0.1:9092,127.0.0.1:9093"]
    elsewhere = ["http://worker-1:6066", "http://192.0.2.1:6066", "kafka://kafka:9092"]
    assert [is_loopback(url) for url in here + elsewhere] == [True] * 4 + [False] * 3


def test_an_environment_variable_comes_before_the_env_file_and_an_empty_one_is_unset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(Settings.model_config, "env_file", ".env")
    Path(".env").write_text("WEB_PORT=7001\nPARTITIONS=8\nSERVICE_NAME=from-file\nMONGO_URL=of-another-service\n")
    given(monkeypatch, WEB_PORT="7002", PARTITIONS="")
    settings = load()
    assert (settings.web_port, settings.partitions, settings.service_name) == (7002, 8, "from-file")
    sources = {row.name: row.source for row in shown(settings)}
    assert [sources[name] for name in ("WEB_PORT", "PARTITIONS", "LOG_LEVEL")] == ["environment", ".env", "default"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PARTITIONS", "0"),
        ("PARTITIONS", "four"),
        ("WEB_PORT", "65536"),
        ("WEB_HOST", "two words"),
        ("WEB_URL", "worker-1:6066"),
        ("WEB_URL", "http://worker-1:6066/behind/a/path"),
        ("WEB_URL", "http://me:secret@worker-1"),
        ("PAYMENT_RETRY_DELAY", "-1"),
        ("PAYMENT_TIMEOUT", "nan"),
        ("RESERVATION_TTL", "inf"),
        ("PAYMENT_MAX_ATTEMPTS", "1.5"),
        ("MAIL_MAX_ATTEMPTS", "0"),
        ("NATS_URL", "127.0.0.1:4222"),
        ("NATS_URL", "nats://one:4222,http://two"),
        ("NATS_URL", "nats://one:port"),
        ("NATS_STREAM", "A4CO.EVENTS"),
        ("NATS_INBOX_PREFIX", "_INBOX.>"),
        ("NATS_INBOX_PREFIX", "two words"),
        ("NATS_CA_FILE", "/no/such/file.pem"),
        ("NATS_TLS_FIRST", "maybe"),
        ("PAYLOAD_LIMIT", "1023"),
        ("SMTP_URL", "mail.example.org"),
        ("MAIL_FROM", "nobody"),
        ("MAIL_FROM", "a@b.es\r\nBcc: c@d.es"),
        ("LOG_LEVEL", "loud"),
        ("PAYMENT_REQUEST", "payment.succeeded"),
        ("ROLE_RESERVE", "observe"),
        ("ROLE_CANCEL", "maybe"),
        ("ROLE_NOTIFY", "maybe"),
        ("BROKER", "embedded://data/log.db"),
        ("BROKER", "embedded:///var/"),
        ("BROKER", "sqlite:///var/log.db"),
    ],
)
def test_a_wrong_value_is_one_line_with_the_variable_the_value_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    said = wrong(monkeypatch, **{name: value})
    assert said.startswith(f"{name}={value} is wrong")
    assert "; allowed: " in said
    assert said.replace(value, "").count("\n") == 0


def test_a_long_time_is_shown_as_it_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, LOG_RETENTION="7776000", MAIL_RETRY_DELAY="0.5")
    values = {row.name: row.value for row in shown(load())}
    assert (values["LOG_RETENTION"], values["MAIL_RETRY_DELAY"]) == ("7776000", "0.5")


def test_every_wrong_variable_has_its_line_and_what_depends_on_them_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = wrong(monkeypatch, SMTP_URL="nope", PARTITIONS="0").splitlines()
    assert [line.partition("=")[0] for line in lines] == ["PARTITIONS", "SMTP_URL"]


def test_kafka_url_makes_kafka_the_log_and_broker_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_URL", "kafka://one:9092,two:9093")
    monkeypatch.setenv("WORKER_NAME", "worker-1")
    kafka = load().kafka
    assert kafka is not None
    assert (kafka.servers, kafka.worker) == ("one:9092,two:9093", "worker-1")
    monkeypatch.setenv("BROKER", "embedded:///tmp/log.db")
    assert load().kafka is None


def test_kafka_with_sasl_has_its_user_and_password_and_shows_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_URL", "kafka://one:9092")
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("KAFKA_SASL_USERNAME", "a4co")
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", "secret")
    kafka = load().kafka
    assert kafka is not None
    assert kafka.client["sasl.password"] == "secret"
    assert not any("secret" in row.value for row in shown(load()))


def test_a_kafka_url_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "KAFKA_URL" in wrong(monkeypatch, KAFKA_URL="http://one:9092")


@pytest.mark.parametrize(("said", "level"), [("WARN", "warning"), ("Info", "info"), ("verbose", "debug")])
def test_log_levels_are_understood_as_the_marketplace_writes_them(
    monkeypatch: pytest.MonkeyPatch, said: str, level: str
) -> None:
    given(monkeypatch, LOG_LEVEL=said)
    assert load().log_level == level


def test_we_send_the_mails_when_there_is_a_mail_server(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load().role_notify == "observe"
    given(monkeypatch, SMTP_URL="smtp://127.0.0.1:2525")
    assert load().role_notify == "act"
    given(monkeypatch, ROLE_NOTIFY="shadow")
    assert load().role_notify == "shadow"


def test_nobody_can_act_on_mails_without_a_mail_server(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wrong(monkeypatch, ROLE_NOTIFY="act").startswith("ROLE_NOTIFY=act needs SMTP_URL")


def test_standing_by_needs_other_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wrong(monkeypatch, STANDBY="true").startswith("STANDBY=true needs Kafka (KAFKA_URL)")
    given(monkeypatch, STANDBY="true", KAFKA_URL="kafka://127.0.0.1:9092")
    assert load().standby


def test_a_secret_can_lie_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "nats"
    secret.write_text("nats://olive:press@10.0.0.1:4222\n")
    given(monkeypatch, NATS_URL_FILE=str(secret))
    settings = load()
    assert settings.nats_url == "nats://olive:press@10.0.0.1:4222"
    assert {row.name: row for row in shown(settings)}["NATS_URL"][1:] == (
        "nats://olive:***@10.0.0.1:4222",
        "NATS_URL_FILE",
    )


def test_a_secret_file_that_is_missing_or_wrong_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "No such file" in wrong(monkeypatch, SMTP_URL_FILE=str(tmp_path / "none"))
    (tmp_path / "bad").write_text("http://olive:press@host")
    said = wrong(monkeypatch, SMTP_URL_FILE=str(tmp_path / "bad"))
    assert said.startswith("SMTP_URL=http://olive:***@host is wrong")


def test_a_variable_and_its_file_exclude_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nats").write_text("nats://a")
    said = wrong(monkeypatch, NATS_URL_FILE=str(tmp_path / "nats"), NATS_URL="nats://b")
    assert said == "NATS_URL and NATS_URL_FILE are both set: only one of them may be"


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("nats://127.0.0.1:4222", "nats://127.0.0.1:4222"),
        ("nats://olive:press@host", "nats://olive:***@host"),
        ("nats://token@host", "nats://***@host"),
        ("nats://olive:pr,e@s://s@one,tls://two:2,nats://t@three", "nats://olive:***@one,tls://two:2,nats://***@three"),
        ("olive:press@host", "***@host"),
    ],
)
def test_passwords_and_tokens_are_never_shown(url: str, seen: str) -> None:
    assert redact(url) == seen


@pytest.mark.parametrize(
    ("url", "servers"),
    [
        ("nats://one:4222, tls://two", ["nats://one:4222", "tls://two"]),
        ("nats://olive:pr,e@s@one,nats://two", ["nats://olive:pr,e@s@one", "nats://two"]),
        ("nats://olive:pr%2Ce%40s%25@one", ["nats://olive:pr,e@s%@one"]),
        ("nats://t%40ken@one", ["nats://t@ken@one"]),
        ("nats://olive:50%@one", ["nats://olive:50%@one"]),
        ("nats://olive:a%2Fb@one", ["nats://olive:a%2Fb@one"]),
        ("nats://ol%3Aive:a@one", ["nats://ol%3Aive:a@one"]),
    ],
)
def test_nats_hears_users_and_passwords_as_they_are(url: str, servers: list[str]) -> None:
    assert nats_servers(url) == servers


def test_no_secret_stands_in_the_settings_own_text_or_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, NATS_URL="nats://olive:CRUSHED@host", SMTP_URL="smtp://olive:CRUSHED@host")
    settings = load()
    assert "CRUSHED" not in repr(settings) + json.dumps(shown(settings))
    assert "CRUSHED" not in wrong(monkeypatch, NATS_URL="olive:CRUSHED@host", SMTP_URL="olive:CRUSHED@host")


def test_passwords_and_tokens_of_nats_are_shown_as_stars_and_may_lie_in_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("CRUSHED\n")
    given(monkeypatch, NATS_USER="olive", NATS_PASSWORD_FILE=str(tmp_path / "secret"))
    settings = load()
    assert (settings.nats.user, settings.nats.password) == ("olive", "CRUSHED")
    assert "CRUSHED" not in repr(settings) + repr(settings.nats) + json.dumps(shown(settings))
    assert {row.name: row.value for row in shown(settings)}["NATS_PASSWORD"] == "***"
    monkeypatch.delenv("NATS_USER")
    monkeypatch.delenv("NATS_PASSWORD_FILE")
    given(monkeypatch, NATS_TOKEN="CRUSHED")
    assert load().nats.token == "CRUSHED"
    assert {row.name: row.value for row in shown(load())}["NATS_TOKEN"] == "***"


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"NATS_TOKEN": "t", "NATS_USER": "u", "NATS_PASSWORD": "p"}, "NATS_USER and NATS_TOKEN are set: only one"),
        (
            {"NATS_URL": "nats://u:p@host", "NATS_TOKEN": "t"},
            "a user or token in NATS_URL and NATS_TOKEN are set",
        ),
        ({"NATS_USER": "u"}, "NATS_USER and NATS_PASSWORD go together: set both or none"),
        ({"NATS_CERT_FILE": "here"}, "NATS_CERT_FILE and NATS_KEY_FILE go together: set both or none"),
        ({"NATS_TOKEN": "t", "NATS_TOKEN_FILE": "here"}, "NATS_TOKEN and NATS_TOKEN_FILE are both set: only one"),
    ],
)
def test_who_we_are_to_nats_is_said_in_one_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str
) -> None:
    here = tmp_path / "here"
    here.write_text("CRUSHED")
    told = wrong(monkeypatch, **{name: str(here) if value == "here" else value for name, value in variables.items()})
    assert told.startswith(said)


def test_the_rules_get_the_times_counts_and_roles(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, PAYMENT_RETRY_DELAY="7", PAYMENT_MAX_ATTEMPTS="2", ROLE_CANCEL="observe", PAYMENT_REQUEST="none")
    policy = load().policy()
    assert (policy.payment_retry_delay, policy.payment_max_attempts, policy.payment_request) == (7, 2, "none")
    assert (policy.reserve, policy.confirm, policy.cancel, policy.notify) == ("act", "act", "observe", "observe")


async def test_the_clusters_name_is_told_in_the_health(open_market: Opens) -> None:
    market = await open_market(nats_cluster_name="GREEN-OLIVES")
    assert market.application.checks()["nats"]["cluster"] == "GREEN-OLIVES"


def test_the_example_file_names_every_setting_in_order_and_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / ".env.example").read_text()
    named = [line[1:].partition("=")[0] for line in text.splitlines() if line.startswith("#") and line[1:2].isupper()]
    assert named == [name.upper() for name in Settings.model_fields]
    uncommented = "\n".join(line[1:] if line[1:2].isupper() else line for line in text.splitlines())
    for name, value in dotenv_values(stream=StringIO(uncommented)).items():
        if value and not name.endswith("_FILE"):
            monkeypatch.setenv(name, value)
    load()
