"""A NATS that the user named by NATS_URL: used only when nothing of a marketplace is in it, left as it was found."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import nats
import nats.errors
import nats.js.errors
from nats.js import JetStreamContext

from app.demo.processes import DemoError
from app.setting_types import redact
from app.settings import Settings

TIMEOUT = 3  # seconds


@asynccontextmanager
async def borrowed_nats(settings: Settings) -> AsyncIterator[str]:
    """Yield its URL; afterwards the stream that the worker made is deleted.

    Raises:
        DemoError: it doesn't answer, has no JetStream, or a stream keeps a marketplace's events already: the worker,
            whose log is new, would take them for new ones, and the simulated services would charge real orders.
    """
    url, shown = settings.nats_url, redact(settings.nats_url)

    async def on_error(_error: Exception) -> None:
        """Say nothing: the exception says it."""

    try:
        client = await nats.connect(
            settings.nats_servers,
            name="a4co-demo",
            error_cb=on_error,
            connect_timeout=TIMEOUT,
            allow_reconnect=False,
            max_reconnect_attempts=1,
        )
    except (OSError, TimeoutError, nats.errors.Error) as error:
        raise DemoError(f"NATS_URL={shown}: no NATS answers ({error}); unset it, and the demo starts its own") from None
    try:
        jetstream = client.jetstream(timeout=TIMEOUT)
        stream = await _kept_by(jetstream, settings.nats_stream, shown)
        if stream is not None:
            raise DemoError(
                f"NATS_URL={shown}: the stream {stream} keeps a marketplace's events already, and the demo would act "
                f"on them. Unset NATS_URL, name another NATS, or delete the stream: nats stream rm {stream}"
            )
        try:
            yield url
        finally:
            with suppress(TimeoutError, nats.errors.Error):
                await jetstream.delete_stream(settings.nats_stream)
    finally:
        await client.close()


async def _kept_by(jetstream: JetStreamContext, name: str, shown: str) -> str | None:
    """The stream of this name, else the one that keeps order.created; None: there is neither."""
    try:
        try:
            await jetstream.stream_info(name)
        except nats.js.errors.NotFoundError:
            try:
                return await jetstream.find_stream_name_by_subject("order.created")
            except nats.js.errors.NotFoundError:
                return None
        return name
    except (TimeoutError, nats.errors.Error) as error:
        raise DemoError(f"NATS_URL={shown}: JetStream doesn't answer ({error}); start nats-server with -js") from None
