from __future__ import annotations

import pytest

from irisd.sp import EndpointType, Framing, SpError, SpFault, SpLimitError, SpStream
from tests.vectors.sp.golden import golden

GOLDEN = golden()


def test_one_endpoint_says_hello_at_once_and_only_once() -> None:
    stream = SpStream(EndpointType.SURVEYOR, Framing.TCP)
    assert stream.data_to_send() == GOLDEN["hello.SURVEYOR"]
    assert stream.data_to_send() == b""
    assert (stream.local, stream.peer) == (EndpointType.SURVEYOR, None)


def test_messages_flow_after_the_hello_even_in_its_segment() -> None:
    stream = SpStream(EndpointType.SURVEYOR, Framing.TCP)
    assert stream.receive(GOLDEN["hello.RESPONDENT"] + GOLDEN["tcp.hi"]) == [b"hi"]
    assert stream.peer is EndpointType.RESPONDENT
    assert stream.receive(bytearray(GOLDEN["tcp.empty"])) == [b""]
    assert b"".join(stream.send(b"h", b"i")) == GOLDEN["tcp.hi"]


def test_pair1_headers_come_and_go_by_themselves() -> None:
    stream = SpStream(EndpointType.PAIR1, Framing.IPC)
    data = GOLDEN["hello.PAIR1"] + GOLDEN["ipc.pair1.hi"] * 2
    assert [m for at in range(len(data)) for m in stream.receive(data[at : at + 1])] == [b"hi", b"hi"]
    assert b"".join(stream.send(b"hi")) == GOLDEN["ipc.pair1.hi"]


def test_messages_in_circles_are_counted() -> None:
    stream = SpStream(EndpointType.PAIR1, Framing.TCP)
    assert stream.hop_drops == 0
    assert stream.receive(GOLDEN["hello.PAIR1"] + GOLDEN["tcp.pair1.hop9"] + GOLDEN["tcp.pair1.hi"]) == [b"hi"]
    assert stream.hop_drops == 1


def test_with_several_on_offer_the_peer_decides() -> None:
    stream = SpStream([EndpointType.RESPONDENT, EndpointType.PAIR1], Framing.TCP)
    assert stream.data_to_send() == b""
    with pytest.raises(RuntimeError, match="not in yet"):
        stream.send(b"too early")
    assert stream.receive(GOLDEN["hello.PAIR1"] + GOLDEN["tcp.pair1.hi"]) == [b"hi"]
    assert (stream.local, stream.peer) == (EndpointType.PAIR1, EndpointType.PAIR1)
    assert stream.data_to_send() == GOLDEN["hello.PAIR1"]
    assert b"".join(stream.send(b"hi")) == GOLDEN["tcp.pair1.hi"]


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"GET / HTTP/1.1\r\n", SpFault.NOT_SP),
        (GOLDEN["hello.SURVEYOR"], SpFault.WRONG_PEER),
        (GOLDEN["hello.RESPONDENT"] + (65).to_bytes(8), SpFault.TOO_LARGE),
    ],
)
def test_a_broken_peer_stays_broken(data: bytes, fault: SpFault) -> None:
    stream = SpStream(EndpointType.SURVEYOR, Framing.TCP, max_size=64)
    for _ in range(2):
        with pytest.raises(SpError) as refused:
            stream.receive(data)
        assert refused.value.fault is fault


def test_the_limit_holds_both_ways() -> None:
    stream = SpStream(EndpointType.PAIR1, Framing.TCP, max_size=6)
    assert b"".join(stream.send(b"hi")) == GOLDEN["tcp.pair1.hi"]
    with pytest.raises(SpLimitError):
        stream.send(b"hi!")
