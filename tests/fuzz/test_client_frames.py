"""The client's decoders on anything: a value, or one documented error, and never more memory than came."""

from __future__ import annotations

from contextlib import suppress

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from iris_client._assembly import Assembly
from iris_client._codecs import JSON
from iris_client._errors import CodecError, InvalidName
from iris_client._frames import ProtocolError, append_frame, decode_batch, make
from iris_client._names import address, headers, topic, topic_filter
from iris_client._session import Session
from iris_client._urls import InvalidUrl, parse_url
from iris_proto.v1 import frame_pb2 as pb
from tests.unit.client.ground import Daemon, Promise

HEADERS = st.builds(
    make,
    kind=st.integers(0, 30),
    id=st.integers(0, 40),
    address=st.sampled_from(["", "t", "databases", "shop/databases@eu", "\x00"]),
    member=st.sampled_from(["", "m"]),
    node=st.sampled_from(["", "abcd"]),
    more=st.booleans(),
    total=st.one_of(st.integers(0, 40), st.just(2**63)),
    carries=st.sampled_from([0, 0, 0, 11]),
    max_large=st.sampled_from([0, 1 << 20]),
    count=st.one_of(st.integers(0, 1000), st.just(2**63)),
    code=st.integers(0, 20),
    executed=st.integers(0, 5),
    remaining_ms=st.integers(0, 2**32 - 1),
    lost=st.integers(0, 5),
    lost_unknown=st.booleans(),
    sizes=st.lists(st.integers(0, 8), max_size=4),
    members=st.lists(st.text(max_size=3), max_size=2),
)
FRAMES = st.lists(st.tuples(HEADERS, st.binary(max_size=16)), max_size=12)


def encoded(frames: list[tuple[pb.Header, bytes]]) -> bytes:
    chunks: list[bytes] = []
    for header, body in frames:
        append_frame(chunks, header.SerializeToString(), body)
    return b"".join(chunks)


@given(FRAMES)
def test_frames_round_trip_and_agree_with_protobuf(frames: list[tuple[pb.Header, bytes]]):
    data = encoded(frames)
    assert decode_batch(data) == frames
    batch = pb.Batch.FromString(data)
    assert [(frame.header, frame.body) for frame in batch.frames] == frames
    assert decode_batch(batch.SerializeToString()) == frames


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes):
    try:
        frames = decode_batch(data)
    except ProtocolError:
        return
    batch = pb.Batch.FromString(data)  # what we take, protobuf takes
    assert [(frame.header, frame.body) for frame in batch.frames] == frames


@given(FRAMES, st.data())
def test_any_truncation_and_any_flipped_bit(frames: list[tuple[pb.Header, bytes]], data: st.DataObject):
    raw = bytearray(encoded(frames))
    if raw and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        raw = raw[: data.draw(st.integers(0, len(raw)))]
    with suppress(ProtocolError):
        decode_batch(bytes(raw))


@given(st.lists(FRAMES, max_size=6))
def test_a_daemon_that_says_anything(batches: list[list[tuple[pb.Header, bytes]]]):
    """Whatever a daemon says, the session goes on or gives the stream up by name, and can attach again."""
    daemon = Daemon(max_body=1000)
    promises = [Promise() for _ in range(5)]
    _open_everything(daemon, promises)
    daemon.take()
    try:
        for frames in batches:
            daemon.session.received(encoded(frames), daemon.now)
            daemon.take()
    except ProtocolError:
        pass
    daemon.session.lane_down("gone")
    daemon.now += 100
    daemon.session.on_deadline(daemon.now)
    daemon.attach()
    assert daemon.session._assembly._held == 0
    daemon.session.lane_down("gone")
    assert all(promise.ended for promise in promises)


def _open_everything(daemon: Daemon, promises: list[Promise]) -> None:
    from iris_client._calls import Standing, SurveyCall, Unary
    from iris_client._changes import ChangeQueue, WatchCall
    from iris_client._eventqueue import EventQueue, SubscribeCall
    from iris_client._frames import Kind
    from iris_client._requestcall import RequestCall
    from iris_client._tunnelcall import TunnelCall

    session: Session = daemon.session
    deadline = daemon.now + 5
    session.open(Unary(make(kind=Kind.REQUEST, address="x"), b"", deadline, "request", promises[0]), daemon.now)
    session.flush(promises[1], deadline)
    for at, large in ((3, True), (4, False)):
        header = make(kind=Kind.REQUEST, address="x", max_large=1 << 20)
        session.request(RequestCall(header, b"body", deadline, "request", promises[at], large=large), daemon.now)
    session.tunnel(TunnelCall(make(kind=Kind.TUNNEL), b"", deadline, "tunnel", promises[2]), daemon.now)
    session.open(SurveyCall(make(kind=Kind.SURVEY), b"", deadline, "survey", lambda: None), daemon.now)
    queue = EventQueue(1000, drop_oldest=True)
    session.stand(SubscribeCall(make(kind=Kind.SUBSCRIBE), queue, "subscription", lambda error: None))
    session.stand(WatchCall(make(kind=Kind.WATCH), ChangeQueue(3), "watch", lambda error: None))
    session.join(Standing(make(kind=Kind.JOIN), "joining", lambda error: None), "databases", _Echo())


class _Echo:
    def takes(self, delivery) -> bool:
        return True

    def arriving(self, delivery) -> None: ...

    def lost(self, delivery) -> None: ...

    def deliver(self, delivery) -> None:
        if delivery.kind == 19:
            delivery.flow.accept()
        elif delivery.id & 2 and delivery.max_reply:
            delivery.reply_large(bytes(100_000))
        else:
            delivery.reply(delivery.body)


@given(st.lists(st.tuples(st.integers(1, 3), st.booleans(), st.binary(max_size=8), st.integers(0, 20)), max_size=20))
def test_parts_hold_no_more_than_came(parts: list[tuple[int, bool, bytes, int]]):
    assembly = Assembly()
    came = 0
    try:
        for id, first, body, total in parts:
            came += len(body)
            if first:
                assembly.begin(make(kind=12, id=id, more=True, total=total), body, 16)
            else:
                assembly.part(make(kind=23, id=id, more=bool(total % 2)), body)
            assert 0 <= assembly._held <= came
    except ProtocolError:
        pass


@given(st.text(max_size=250))
def test_names_agree_with_the_daemons(name: str):
    names = pytest.importorskip("irisd.router.names")
    pairs = ((topic, names.valid_topic), (topic_filter, names.valid_filter), (address, names.parse_address))
    for ours, theirs in pairs:
        try:
            ours(name)
        except InvalidName:
            continue
        theirs(name)  # what we let through, no daemon refuses


@given(st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=70))
def test_headers(given_headers: dict[str, str]):
    try:
        checked = headers(given_headers)
    except InvalidName:
        return
    assert checked == given_headers
    assert dict(pb.Header.FromString(make(headers=checked).SerializeToString()).headers) == checked


@given(st.one_of(st.text(max_size=60), st.from_regex(r"(unix|tcp|tls)://[a-z0-9:/\[\]%.?=@-]{0,30}", fullmatch=True)))
def test_urls(url: str):
    with suppress(InvalidUrl):
        assert str(parse_url(url)).startswith(("unix://", "tcp://", "tls://", "inproc://"))


@given(
    st.binary(max_size=60), st.sampled_from([int, str, list[int], dict[str, int], int | None, tuple[int, str], float])
)
def test_json(body: bytes, wanted: object):
    with suppress(CodecError):
        JSON.decode(body, wanted)


def test_protobuf_refuses_what_we_refuse():
    with pytest.raises(DecodeError):
        pb.Batch.FromString(b"\x0a\x05")
