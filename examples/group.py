"""A group: a cluster that subscribes, so that each event goes to one of its members.

    irisd                                  # a development daemon
    python examples/group.py serve         # two or more times: members that share the orders
    python examples/group.py               # publishes orders

Each command in a terminal of its own.
"""

from __future__ import annotations

import asyncio
import sys

import iris_client as iris

billing = iris.Cluster("billing", codec=iris.JSON)


@billing.on_event("orders.*")
async def bill(order: dict[str, int]) -> None:
    print(f"billed order {order['number']}", flush=True)


async def publish() -> None:
    async with iris.connect(codec=iris.JSON) as mesh:
        await mesh.publish_many("orders.new", [{"number": number} for number in range(20)])
        await mesh.flush()
        print("20 orders published")


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        iris.run(billing)
    else:
        asyncio.run(publish())
