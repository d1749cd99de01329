"""What happens when orders came further: they are counted, by minute, hour and day. domain/analytics.py decides how."""

from app import topics
from app.domain.analytics import count
from app.domain.causes import caused
from app.domain.messages import BucketOutdated
from app.domain.rows import Bucket
from app.engine.declarations import Reducer
from app.engine.records import Send
from tables.analytics import ANALYTICS

COUNT_ORDERS = "count_orders"


def count_orders(delay: float) -> Reducer[Bucket]:
    """The agent that owns `analytics`. It collects for `delay` seconds: a bucket is written whole at each commit."""
    return Reducer(
        name=COUNT_ORDERS,
        reads=(topics.ORDER_FACTS,),
        table=ANALYTICS,
        rule=count,
        encode=topics.sends_of,
        timer=_timer,
        collects=delay,
    )


def _timer(bucket: str, deadline: float, now: float) -> Send:
    return topics.outdated(BucketOutdated(event_id=caused(bucket, "outdated", str(deadline)), key=bucket, at=now))
