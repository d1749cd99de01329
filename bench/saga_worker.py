"""One worker of `bench.saga_kafka`: the whole application without its bridge.

`python -m bench.saga_worker SERVERS NAME FOLDER PREFIX [uncounted]` prints how many partitions it has of every
table, whenever that changes, and runs until SIGTERM. Then it prints a line of JSON: transactions and records by lane.
`uncounted`: nothing is counted for the analytics, as bench/saga_faust.py counts nothing.
"""

import asyncio
import json
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from agents.analytics import COUNT_ORDERS
from app.bridging import APP_ID
from app.engine.kafka.log import KafkaLog
from app.engine.records import Record
from app.main import Marketplace
from app.settings import Settings
from tables.analytics import ANALYTICS


def leave_uncounted(market: Marketplace) -> None:
    """Take the analytics' agent and table away, and what tells it of orders."""
    application = market.engine.application
    kept = [reducer for reducer in application.reducers if reducer.name != COUNT_ORDERS]
    application.reducers = [replace(reducer, tally=None) for reducer in kept]
    del market.engine.tables[ANALYTICS.name]


async def main() -> int:
    """Run until SIGTERM (0) or a failure (1)."""
    servers, name, folder, prefix, *more = sys.argv[1:]
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set_result, 0)
    settings = Settings(kafka_url=f"kafka://{servers}", worker_name=name, data_dir=Path(folder), topic_prefix=prefix)
    assert settings.kafka is not None
    log = KafkaLog(settings.kafka, APP_ID)
    market = Marketplace(settings, log)
    market.engine.on_failure = lambda _error: ended.set_result(1)
    if more:
        leave_uncounted(market)
    transactions, records = Counter[str](), Counter[str]()

    def processed(lane: str, batch: Sequence[Record], _outcomes: Sequence[str], _seconds: float) -> None:
        transactions[lane] += 1
        records[lane] += len(batch)

    market.engine.application.hooks.processed = processed
    await log.connect()
    await market.engine.open()
    await market.engine.start()
    told: list[int] = []
    while not ended.done():
        has = [len(table.partitions) for table in market.engine.tables.values()]
        if has != told:
            told = has
            print(*has, flush=True)
        await asyncio.wait([ended], timeout=0.1)
    await market.engine.stop()
    await log.disconnect()
    print(json.dumps({"transactions": transactions, "records": records}), flush=True)
    return ended.result()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
