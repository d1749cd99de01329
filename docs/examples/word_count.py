"""A stock Faust app that counts words, exactly once: in a file with no broker to install, or on Kafka by another URL.

echo "la aceituna y el aceite" | python docs/examples/word_count.py send
python docs/examples/word_count.py worker -l info --without-web
"""

import asyncio
import os
import sys

import faust

BROKER = os.environ.get("BROKER", "embedded:///tmp/words/log.db")  # or a4co-kafka://127.0.0.1:9092
app = faust.App("word-count", broker=BROKER, store="memory://", topic_partitions=4, web_enabled=False)
words = app.topic("words", key_type=str, value_type=str)
counted = app.topic("counted", key_type=str, value_type=int)
counts = app.Table("counts", default=int)


@app.agent(words)
async def count(stream: faust.StreamT[str]) -> None:
    async for word in stream:
        counts[word] += 1
        await counted.send(key=word, value=counts[word])


async def send(text: str) -> None:
    async with app.producer:
        for word in text.split():
            await words.send(key=word, value=word)


if __name__ == "__main__":
    if sys.argv[1:] == ["send"]:
        asyncio.run(send(sys.stdin.read()))
    else:
        app.main()
