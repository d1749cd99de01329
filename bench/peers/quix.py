"""Quix Streams' program, run by a Python of its own.

`python bench/peers/quix.py SERVERS INPUT OUTPUT NAME FOLDER`. It commits every 5 s, its default:
with 100 ms, as the others have it, it is half as fast.
"""

import sys
from typing import Any

from quixstreams import Application, State


def add(line: dict[str, Any], state: State) -> dict[str, Any]:
    """One more line of a product."""
    row = state.get("row") or {"count": 0, "units": 0, "revenue": 0.0}
    quantity = line["quantity"]
    row = {
        "count": row["count"] + 1,
        "units": row["units"] + quantity,
        "revenue": row["revenue"] + quantity * line["unitPrice"],
    }
    state.set("row", row)
    return {"productId": line["productId"], **row}


def main() -> None:
    """Run until SIGTERM."""
    servers, source, target, name, folder = sys.argv[1:]
    application = Application(
        broker_address=servers,
        consumer_group=name,
        auto_offset_reset="earliest",
        state_dir=folder,
        processing_guarantee="exactly-once",
        loglevel="WARNING",
    )
    lines = application.topic(source, key_deserializer="str", value_deserializer="json")
    totals = application.topic(target, key_serializer="str", value_serializer="json")
    application.dataframe(lines).apply(add, stateful=True).to_topic(totals)
    application.run()


if __name__ == "__main__":
    main()
