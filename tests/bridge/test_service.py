"""How the bridge goes on when something of it ends."""

import asyncio

import pytest

from bridge.connection import Disconnected
from bridge.service import _first_end


async def test_what_nats_py_cancels_while_it_waits_for_an_answer_is_a_lost_connection() -> None:
    """It would end the bridge without a word."""

    async def asks() -> None:
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        answer.cancel()
        await answer

    with pytest.raises(Disconnected, match="before it had answered"):
        await _first_end(asks(), asyncio.Event().wait())


async def test_a_graver_error_comes_first_and_an_end_in_peace_is_none() -> None:
    async def fails(error: Exception) -> None:
        raise error

    with pytest.raises(KeyError):
        await _first_end(fails(Disconnected("gone")), fails(KeyError("a defect")), asyncio.Event().wait())
    await _first_end(asyncio.sleep(0), asyncio.Event().wait())
