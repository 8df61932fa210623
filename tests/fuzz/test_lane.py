"""The local lane's decoders, the daemon's and the SDK's, on anything: bodies, or one documented error."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from iris_client._frames import ProtocolError, decode_batch
from iris_client._sp import READ_BYTES, prefix
from iris_client._sp import Inbox as ClientInbox
from irisd.attach.tickets import Refusal, Tickets
from irisd.sp import Inbox, Scratch, SpError

MAX = 1000
PIECE = st.one_of(
    st.binary(max_size=40),
    st.binary(max_size=60).map(lambda body: prefix(len(body)) + body),
    st.integers(0, 2**64 - 5).map(prefix),
)
STREAM = st.lists(PIECE, max_size=8).map(b"".join)
CUTS = st.lists(st.integers(1, 50), max_size=30)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    out = []
    for cut in cuts:
        out.append(data[:cut])
        data = data[cut:]
    return [piece for piece in (*out, data) if piece]


def daemon_reads(data: list[bytes], size: int = 64) -> tuple[bytes, bool]:
    """What comes out, and whether it was refused."""
    inbox = Inbox(Scratch(size), max_size=MAX)
    out = b""
    for piece in data:
        while piece:
            space = inbox.space()
            assert 0 < len(space) <= 16 * 1024
            count = min(len(space), len(piece))
            space[:count] = piece[:count]
            try:
                out += inbox.filled(count)
            except SpError:
                return out, True
            piece = piece[count:]
    return out, False


def client_reads(data: list[bytes]) -> tuple[bytes, bool]:
    inbox = ClientInbox(MAX - 4)
    out = b""
    for piece in data:
        space = inbox.space()
        assert len(space) <= READ_BYTES
        space[: len(piece)] = piece
        inbox.filled(len(piece))
        try:
            while (body := inbox.next()) is not None:
                out += body
        except ProtocolError:
            return out, True
    return out, False


@given(STREAM, CUTS, st.integers(16, 100))
def test_both_ends_read_the_same_however_it_is_cut(data: bytes, cuts: list[int], size: int):
    whole, refused = client_reads([data] if data else [])
    cut = pieces(data, cuts)
    assert client_reads(cut) == (whole, refused)
    daemon, daemon_refused = daemon_reads(cut, size)
    assert daemon_refused == refused
    assert daemon == whole if not refused else whole.startswith(daemon)


@given(st.lists(st.binary(max_size=200), max_size=10), CUTS)
def test_what_was_said_is_read(bodies: list[bytes], cuts: list[int]):
    data = pieces(b"".join(prefix(len(body)) + body for body in bodies), cuts)
    assert daemon_reads(data) == client_reads(data) == (b"".join(bodies), False)


@given(st.binary(max_size=200))
def test_a_batch_reads_the_same_from_a_view(data: bytes):
    expected, found = None, None
    with suppress(ProtocolError):
        expected = decode_batch(data)
    with suppress(ProtocolError):
        found = decode_batch(memoryview(bytearray(data)))
    assert found == expected


@given(st.binary(max_size=40))
def test_nobody_guesses_a_ticket(guess: bytes):
    tickets: Tickets[str] = Tickets()
    tickets.issue(bytes(16), "app", 0, 0.0)
    assert tickets.redeem(guess, 0, 0.0) is Refusal.UNKNOWN or guess == bytes(16)
