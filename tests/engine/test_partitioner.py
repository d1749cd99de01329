"""A key goes to the partition that Kafka's Java client chooses: else a row and its messages are on two workers.

Trap: librdkafka's own default is CRC32, also under Faust's `confluent://` transport.
"""

import pytest

from app.engine.partitioner import partition_for

JAVA = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}
"""murmur2 of each key, as the tests of Kafka's Java client have it."""


@pytest.mark.parametrize(("key", "hashed"), JAVA.items(), ids=lambda value: None)
def test_a_key_goes_where_java_puts_it(key: bytes, hashed: int) -> None:
    for partitions in (1, 4, 7, 12):
        assert partition_for(key, partitions) == (hashed & 0x7FFFFFFF) % partitions
