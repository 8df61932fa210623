"""Without asyncio: `iris_client.sync` for scripts and threads. Plain functions serve from a thread pool.

    irisd                                  # a development daemon
    python examples/sync.py serve          # a member
    python examples/sync.py                # asks from four threads

Each command in a terminal of its own.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

from iris_client import sync as iris

primes = iris.Cluster("primes", concurrency=4, codec=iris.JSON)


@primes.on_request
def is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def ask() -> None:
    with iris.connect(codec=iris.JSON) as mesh, ThreadPoolExecutor(4) as pool:
        numbers = range(2, 30)
        answers = pool.map(lambda number: mesh.request("primes", number, returns=bool, timeout=2.0), numbers)
        print("primes:", *(number for number, prime in zip(numbers, answers, strict=True) if prime))


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        iris.run(primes)
    else:
        ask()
