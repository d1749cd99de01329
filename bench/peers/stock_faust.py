"""A stock Faust app: `python -m bench.peers.stock_faust SERVERS INPUT OUTPUT NAME FOLDER GUARANTEE SCHEME`.

SCHEME is the transport: Faust's own (`kafka`), or this engine's (`a4co-kafka`), which is exactly once by itself.
"""

import sys
from typing import Any

import faust

from bench.peers.lines import PARTITIONS


def application(
    servers: str, source: str, target: str, name: str, folder: str, guarantee: str, scheme: str
) -> faust.App:
    """The tuned app: what makes it faster is set, what is only for people is off."""
    faust_app = faust.App(
        name,
        broker=f"{scheme}://{servers}",
        store="memory://",
        datadir=folder,
        processing_guarantee=guarantee,
        topic_partitions=PARTITIONS,
        topic_disable_leader=True,
        producer_linger=0.01,
        broker_max_poll_records=2_000,
        stream_buffer_maxsize=8_192,
        consumer_auto_offset_reset="earliest",
        web_enabled=False,
    )
    lines = faust_app.topic(source, key_type=str, value_type=bytes, value_serializer="json")
    totals = faust_app.topic(target, key_type=str, value_serializer="json")
    table = faust_app.Table(f"{name}-rows", partitions=PARTITIONS)

    @faust_app.agent(lines)
    async def add(stream: Any) -> None:
        async for line in stream:
            product, quantity = line["productId"], line["quantity"]
            before = table.get(product) or {"count": 0, "units": 0, "revenue": 0.0}
            row = {
                "count": before["count"] + 1,
                "units": before["units"] + quantity,
                "revenue": before["revenue"] + quantity * line["unitPrice"],
            }
            table[product] = row
            await totals.send(key=product, value={"productId": product, **row})

    return faust_app


if __name__ == "__main__":
    worker = faust.Worker(application(*sys.argv[1:]), loglevel="WARNING", quiet=True)
    worker.execute_from_commandline()
