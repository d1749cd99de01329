"""Who has the right credentials gets in to a real nats-server, and who has not is told what is wrong and what to do."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from app.nats_settings import NatsOptions
from app.settings import Settings
from bridge.connection import Disconnected, connect, raise_if_refused
from tests.live.nats_keys import USER, Authority, Key, Realm
from tests.live.nats_server import NatsServer
from tests.live.worker_process import WorkerProcess

pytestmark = pytest.mark.live

Starts = Callable[[str], Awaitable[NatsServer]]
OLIVE = 'authorization { users: [ { user: "olive", password: "CRUSHED" } ] }'


@pytest_asyncio.fixture
async def starts(tmp_path: Path) -> AsyncIterator[Starts]:
    """Starts a server with further lines of config."""
    servers: list[NatsServer] = []

    async def start(more: str) -> NatsServer:
        server = NatsServer(tmp_path / "nats", more=more)
        servers.append(server)
        await server.start()
        return server

    yield start
    for server in servers:
        server.stop()


async def gets_in(url: str, options: NatsOptions) -> bool:
    connection = await connect([url], "test", options)
    try:
        answer = await connection.client.request("$JS.API.INFO", b"", timeout=5)
        return b"account_info_response" in answer.data
    finally:
        await connection.close()


async def is_told(url: str, options: NatsOptions) -> str:
    """What is said to whom is not let in: one line."""
    with pytest.raises(Disconnected) as caught:
        await gets_in(url, options)
    said = str(caught.value)
    assert "\n" not in said
    assert "CRUSHED" not in said
    return said.partition(": ")[2]


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


# ---- who we are -------------------------------------------------------------------------------------------


async def test_a_user_with_the_right_password_gets_in(starts: Starts) -> None:
    server = await starts(OLIVE)
    assert await gets_in(server.url, NatsOptions(user="olive", password="CRUSHED"))
    assert await gets_in(server.url.replace("//", "//olive:CRUSHED@"), NatsOptions())
    said = await is_told(server.url, NatsOptions(user="olive", password="CRUSHED too much"))
    assert said.startswith("it refuses the user olive with this password: look at NATS_USER and NATS_PASSWORD")
    assert (await is_told(server.url.replace("//", "//olive:x@"), NatsOptions())).startswith(
        "it refuses the user or token in NATS_URL"
    )
    assert (await is_told(server.url, NatsOptions())).startswith(
        "it refuses us without credentials: set NATS_USER and NATS_PASSWORD, NATS_TOKEN, NATS_NKEY_FILE or "
    )


async def test_the_reason_of_a_refusal_is_heard_at_once(starts: Starts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of ours is on its way any more when the server hangs up, or its last words were lost with it."""
    monkeypatch.setattr("bridge.connection.HANG_UPS", 1)
    server = await starts(OLIVE)
    for _ in range(60):
        assert (await is_told(server.url, NatsOptions(user="olive", password="x"))).startswith("it refuses the user")


async def test_a_token_gets_in(starts: Starts) -> None:
    server = await starts('authorization { token: "CRUSHED" }')
    assert await gets_in(server.url, NatsOptions(token="CRUSHED"))
    assert (await is_told(server.url, NatsOptions(token="CRUSHED-not"))).startswith("it refuses this token: look at")


async def test_an_nkey_gets_in(starts: Starts, tmp_path: Path) -> None:
    known, other = Key(USER), Key(USER)
    server = await starts(f"authorization {{ users: [ {{ nkey: {known.public} }} ] }}")
    assert await gets_in(server.url, NatsOptions(nkey_file=written(tmp_path / "known", known.seed + "\n")))
    said = await is_told(server.url, NatsOptions(nkey_file=written(tmp_path / "other", other.seed)))
    assert said.startswith(f"it refuses the nkey in NATS_NKEY_FILE={tmp_path}/other: the server has to know its public")
    for nonsense in ("", "SUNONSENSE", known.public):
        said = await is_told(server.url, NatsOptions(nkey_file=written(tmp_path / "none", nonsense)))
        assert said == f"{tmp_path}/none holds no nkey seed (SU..., 58 characters)"
    assert "can't be read: No such file" in await is_told(server.url, NatsOptions(nkey_file=tmp_path / "missing"))


async def test_a_credentials_file_gets_in_as_long_as_it_has_not_expired(starts: Starts, tmp_path: Path) -> None:
    realm, elsewhere = Realm(), Realm()
    server = await starts(realm.config)
    creds = tmp_path / "a4co.creds"
    assert await gets_in(server.url, NatsOptions(creds_file=written(creds, realm.credentials())))
    for refused in (elsewhere.credentials(), realm.credentials(expires=time.time() - 60)):
        said = await is_told(server.url, NatsOptions(creds_file=written(creds, refused)))
        assert said.startswith(
            f"it refuses the credentials in NATS_CREDS_FILE={creds}: expired, revoked, or of another"
        )
    for nonsense in ("", realm.credentials().partition("-----BEGIN USER")[0]):
        said = await is_told(server.url, NatsOptions(creds_file=written(creds, nonsense)))
        assert said == f"NATS_CREDS_FILE={creds} holds no user JWT followed by its seed, as nsc writes them"


# ---- whom we trust ----------------------------------------------------------------------------------------


def tls(authority: Authority, more: str = "", **certificate: float) -> str:
    files = authority.issue("server", **certificate)  # type: ignore[arg-type]
    return f'tls {{ cert_file: "{files.cert}", key_file: "{files.key}", {more} }}'


async def test_a_server_is_trusted_by_its_authority_only(starts: Starts, tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path / "ours"), Authority(tmp_path / "strange")
    server = await starts(tls(authority))
    assert await gets_in(server.url, NatsOptions(ca_file=authority.ca))
    assert await gets_in(server.url.replace("nats:", "tls:"), NatsOptions(ca_file=authority.ca))
    for options in (NatsOptions(ca_file=stranger.ca), NatsOptions()):
        assert (await is_told(server.url, options)).startswith("its certificate is not trusted (")
    nonsense = NatsOptions(ca_file=written(tmp_path / "none.pem", "nonsense"))
    assert (await is_told(server.url, nonsense)).startswith(f"NATS_CA_FILE={tmp_path}/none.pem holds no certificates")


async def test_an_expired_certificate_is_told(starts: Starts, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ours")
    server = await starts(tls(authority, days=-1))
    said = await is_told(server.url, NatsOptions(ca_file=authority.ca))
    assert said.startswith("its certificate is not trusted (certificate has expired)")


async def test_a_certificate_of_another_host_is_told(starts: Starts, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ours")
    server = await starts(tls(authority))
    said = await is_told(server.url.replace("127.0.0.1", "localhost"), NatsOptions(ca_file=authority.ca))
    assert "NATS_URL the name in it" in said


async def test_a_server_that_wants_our_certificate_gets_it(starts: Starts, tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path / "ours"), Authority(tmp_path / "strange")
    server = await starts(tls(authority, f'ca_file: "{authority.ca}", verify: true'))
    ours, strange = authority.issue("bridge"), stranger.issue("bridge")
    assert await gets_in(server.url, NatsOptions(ca_file=authority.ca, cert_file=ours.cert, key_file=ours.key))
    assert "NATS_CERT_FILE" in await is_told(server.url, NatsOptions(ca_file=authority.ca))
    wrong = NatsOptions(ca_file=authority.ca, cert_file=strange.cert, key_file=strange.key)
    assert "client certificate" in await is_told(server.url, wrong)
    mixed = NatsOptions(ca_file=authority.ca, cert_file=ours.cert, key_file=strange.key)
    assert "are no certificate with its key" in await is_told(server.url, mixed)


async def test_tls_may_come_before_all_else(starts: Starts, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ours")
    server = await starts(tls(authority, "handshake_first: true"))
    assert await gets_in(server.url, NatsOptions(ca_file=authority.ca, tls_first=True))
    assert "NATS_TLS_FIRST=true" in await is_told(server.url, NatsOptions(ca_file=authority.ca))


async def test_nothing_is_said_to_a_server_without_tls_where_it_is_wanted(starts: Starts, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ours")
    server = await starts(OLIVE)
    secret = NatsOptions(ca_file=authority.ca, user="olive", password="CRUSHED")
    assert (await is_told(server.url, secret)).startswith("it offers no TLS, and tls:// in NATS_URL, or NATS_CA_FILE, ")
    by_url = server.url.replace("nats://", "tls://olive:CRUSHED@")
    assert (await is_told(by_url, NatsOptions())).startswith("it offers no TLS, and tls:// in NATS_URL")
    assert "NATS_TLS_FIRST is for servers with" in await is_told(server.url, NatsOptions(tls_first=True))


# ---- the whole application --------------------------------------------------------------------------------


async def test_a_refused_worker_says_why_tries_again_and_comes_in_once_it_may(starts: Starts, tmp_path: Path) -> None:
    server = await starts(OLIVE.replace("CRUSHED", "changed since"))
    password = written(tmp_path / "password", "CRUSHED\n")
    worker = WorkerProcess(
        tmp_path / "worker", NATS_URL=server.url, NATS_USER="olive", NATS_PASSWORD_FILE=str(password),
        DEBUG="nats:*,a4co:*",
    )  # fmt: skip
    worker.start()
    try:

        async def told() -> bool:
            answer = await worker.answer("/ready")
            return answer is not None and answer.status_code == 503 and "it refuses the user olive" in answer.text

        await worker.until(told)
        server.stop()
        server.more = OLIVE
        await server.start()
        await worker.ready()
        assert worker.running
        worker.stop()
        output = worker.output(1_000_000)
        assert output.count("it refuses the user olive") == 1
        assert "CRUSHED" not in output
    finally:
        await worker.close()


async def test_a_subject_that_we_may_not_use_is_told_and_nothing_is_lost(starts: Starts, tmp_path: Path) -> None:
    deny = 'user: "olive", password: "CRUSHED", permissions: { publish: { deny: ["$JS.API.STREAM.INFO.A4CO_EVENTS"] } }'
    server = await starts(f"authorization {{ users: [ {{ {deny} }} ] }}")
    worker = WorkerProcess(tmp_path / "worker", NATS_URL=server.url, NATS_USER="olive", NATS_PASSWORD="CRUSHED")
    worker.start()
    try:

        async def told() -> bool:
            answer = await worker.answer("/ready")
            return answer is not None and "a4co routes accounts" in answer.text and "stream.info" in answer.text.lower()

        await worker.until(told)
    finally:
        worker.stop()
        await worker.close()


async def test_after_a_flush_it_is_known_whether_something_was_refused(starts: Starts) -> None:
    """nats-py's own flush asks before it sends what is pending: its answer says nothing of that."""
    user = 'user: "olive", password: "CRUSHED", permissions: { publish: "allowed" }'
    server = await starts(f"authorization {{ users: [ {{ {user} }} ] }}")
    for _ in range(20):
        connection = await connect([server.url], "test", NatsOptions(user="olive", password="CRUSHED"))
        for _ in range(5):
            await connection.client.publish("allowed", b"")
        await connection.client.flush()
        raise_if_refused(connection.client)
        await connection.client.publish("denied", b"")
        await connection.client.flush()
        with pytest.raises(Disconnected, match="permissions violation"):
            raise_if_refused(connection.client)
        await connection.close()


def test_the_settings_give_what_the_bridge_comes_in_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    creds = written(tmp_path / "a4co.creds", "x")
    monkeypatch.setenv("NATS_CREDS_FILE", str(creds))
    monkeypatch.setenv("NATS_INBOX_PREFIX", "_INBOX.bridge")
    options = Settings().nats
    assert (options.creds_file, options.inbox_prefix) == (creds, "_INBOX.bridge")
