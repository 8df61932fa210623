"""A finder that goes on with other seeds and tags."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from irisd.config import Address
from irisd.discovery.finder import Finder
from irisd.discovery.table import Attempted

ONE, TWO, THREE = (Address("127.0.0.1", port) for port in (1, 2, 3))


class Nobody:
    """No dial gets through."""

    async def attempt(self, service: str, addresses: Sequence[Address], expected: bytes) -> Attempted:
        return Attempted("unreachable")

    def is_linked(self, service: str, node_id: bytes) -> bool:
        return False

    def wants(self, service: str, node_id: bytes) -> bool:
        return True


async def test_other_seeds_and_tags() -> None:
    finder = Finder(
        "shop", b"\x01" * 16, (b"tag-1",), Nobody(),
        clock=lambda: 1.0, random=Random(1), tell=lambda event, **fields: None, changed=lambda: None,
    )  # fmt: skip
    finder.start((ONE, TWO), ())
    kept = finder.seeds[1]
    finder.use((TWO, THREE), (b"tag-1", b"tag-2"))
    assert [seed.written for seed in finder.seeds] == [TWO, THREE]
    assert finder.seeds[0] is kept
    assert sorted(address for row in finder.rows() for address in row.addresses) == [str(TWO), str(THREE)]
    assert finder.tags == (b"tag-1", b"tag-2")
    await finder.stop()
