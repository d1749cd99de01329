"""One row a minute, hour or day of each partition: what is counted of its orders. Key: size, time and partition."""

from app.domain.analytics import partition_of
from app.domain.rows import Bucket
from app.engine.declarations import TableSpec

ANALYTICS = TableSpec(
    "analytics",
    Bucket,
    deadline=lambda bucket: bucket.outdated,
    partition=lambda key, total: partition_of(key) % total,
)
