"""Print the alerts as they come, with aiokafka."""

import asyncio

from aiokafka import AIOKafkaConsumer


async def main() -> None:
    settings = {"auto_offset_reset": "earliest", "isolation_level": "read_committed"}
    async with AIOKafkaConsumer("alerts", bootstrap_servers="localhost:9092", **settings) as alerts:
        async for record in alerts:
            print(record.value.decode())


asyncio.run(main())
