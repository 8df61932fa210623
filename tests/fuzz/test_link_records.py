"""Record streams under nonsense: what opens is what was sealed, and all else has one error."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from irisd.link.noise import CipherState
from irisd.link.outcome import LinkEnd, Outcome
from irisd.link.session import Received, Session, SessionError, Settled


def sessions() -> tuple[Session, Session]:
    there, back = b"\x01" * 32, b"\x02" * 32
    return (
        Session(CipherState(there), CipherState(back), b"", rekey_every=3),
        Session(CipherState(back), CipherState(there), b"", rekey_every=3),
    )


stream_pieces = st.one_of(
    st.binary(min_size=1, max_size=300),
    st.builds(Settled, st.integers(0, 2**64 - 1)),
)
closes = st.builds(LinkEnd, st.sampled_from([Outcome.CLOSED, Outcome.SILENT]), st.just("why"), st.just(True))


def sealed(session: Session, pieces: list[bytes | Settled], close: LinkEnd | None) -> bytes:
    stream = b""
    for piece in pieces:
        buffers = session.seal_settle(piece.generation) if isinstance(piece, Settled) else session.seal([piece])
        stream += b"".join(buffers)
    return stream + b"".join(session.seal_close(close) if close else [])


def feed(session: Session, data: bytes, sizes: list[int], received: list[Received]) -> bytes:
    """Feed as a connection does: what was not used comes again; return what was left over."""
    rest, position = b"", 0
    for size in [*sizes, len(data)]:
        rest += data[position : position + size]
        position += size
        rest = rest[session.open(memoryview(rest), received) :]
    return rest


@given(st.lists(stream_pieces, max_size=10), st.none() | closes, st.lists(st.integers(0, 400), max_size=20))
def test_any_cut_gives_what_was_sealed(pieces: list[bytes | Settled], close: LinkEnd | None, sizes: list[int]) -> None:
    one, two = sessions()
    received: list[Received] = []
    rest = feed(two, sealed(one, pieces, close), sizes, received)
    assert rest == b""
    assert received == [*pieces, *([close] if close else [])]


@given(st.lists(stream_pieces, min_size=1, max_size=6), st.integers(0), st.integers(1, 255))
def test_any_changed_byte_ends_in_a_prefix(pieces: list[bytes | Settled], place: int, change: int) -> None:
    one, two = sessions()
    stream = bytearray(sealed(one, pieces, None))
    stream[place % len(stream)] ^= change
    received: list[Received] = []
    try:
        two.open(memoryview(stream), received)
    except SessionError as error:
        assert error.outcome is Outcome.TAMPERED
    assert received == pieces[: len(received)] and len(received) < len(pieces)


@given(st.lists(stream_pieces, min_size=1, max_size=6), st.integers(0))
def test_any_truncation_gives_a_prefix(pieces: list[bytes | Settled], place: int) -> None:
    one, two = sessions()
    stream = sealed(one, pieces, None)
    received: list[Received] = []
    two.open(memoryview(stream[: place % len(stream)]), received)
    assert received == pieces[: len(received)]


@given(st.binary(max_size=600))
def test_nonsense_never_opens(data: bytes) -> None:
    _, two = sessions()
    received: list[Received] = []
    try:
        two.open(memoryview(data), received)
    except SessionError as error:
        assert error.outcome is Outcome.TAMPERED
    assert received == []


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_any_notices_from_a_holder_of_the_key(notices: list[bytes]) -> None:
    one, two = sessions()
    received: list[Received] = []
    try:
        for notice in notices:
            record = one._record(b"") + (one._record(notice))
            two.open(memoryview(b"".join(record)), received)
    except SessionError as error:
        assert error.outcome is Outcome.VIOLATION
    for item in received:
        assert isinstance(item, Settled | LinkEnd)
        if isinstance(item, LinkEnd):
            assert item.detail == "" or item.detail.isprintable()
