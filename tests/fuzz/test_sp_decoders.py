"""Any bytes, cut anywhere, give messages or one documented error, and the same ones each time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from irisd.sp import (
    FIRST_HOP,
    EndpointType,
    Framing,
    HelloDecoder,
    MessageDecoder,
    MessageEncoder,
    QuestionVerdict,
    Respondent,
    SpError,
    SpFault,
    SpStream,
    encode_hello,
    split_pair1,
)
from irisd.sp.backtrace import backtrace_size

MAX_SIZE = 200
FRAMINGS = st.sampled_from(Framing)
HOP_LIMITS = st.sampled_from([None, 1, 8])
CUTS = st.lists(st.integers(0, 40), max_size=30)
SIZES = st.one_of(st.integers(0, 20), st.integers(MAX_SIZE - 2, MAX_SIZE + 2), st.integers(0, 2**64 - 1))


@st.composite
def nearly_messages(draw: st.DrawFn) -> bytes:
    """Streams that are right often enough to reach every branch."""
    stream = b""
    for _ in range(draw(st.integers(0, 6))):
        kind = draw(st.sampled_from([b"", b"\x01", b"\x01", b"\x02"]))
        body = draw(st.binary(max_size=30))
        hops = draw(st.sampled_from([b"", FIRST_HOP, b"\x00\x00\x00\x09", b"\xff\xff\xff\xff"]))
        size = draw(st.one_of(st.just(len(hops) + len(body)), SIZES))
        stream += kind + size.to_bytes(8) + hops + body
    return stream


STREAMS = st.one_of(st.binary(max_size=300), nearly_messages())


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    """Cut a stream into pieces of the given lengths, empty ones too; the last takes the rest."""
    cut: list[bytes] = []
    for length in cuts:
        cut.append(stream[:length])
        stream = stream[length:]
    return [*cut, stream]


def outcome(decoder: MessageDecoder, chunks: list[bytes]) -> tuple[list[bytes], SpFault | None]:
    got: list[bytes] = []
    for chunk in chunks:
        try:
            got += decoder.feed(chunk)
        except SpError as error:
            return got, error.fault
        assert decoder.held <= MAX_SIZE + 13
    return got, None


@given(STREAMS, CUTS, FRAMINGS, HOP_LIMITS)
def test_the_cuts_do_not_matter(stream: bytes, cuts: list[int], framing: Framing, hop_limit: int | None) -> None:
    def decoder() -> MessageDecoder:
        return MessageDecoder(framing, max_size=MAX_SIZE, hop_limit=hop_limit)

    bytewise, cutwise, whole = decoder(), decoder(), decoder()
    reference, fault = outcome(bytewise, [stream[at : at + 1] for at in range(len(stream))])
    got, got_fault = outcome(cutwise, pieces(stream, cuts))
    assert got_fault == fault
    # Messages completed by the very feed that shows a fault are lost with it; no others.
    assert got == reference[: len(got)]
    if fault is None:
        assert got == reference
        assert outcome(whole, [stream]) == (reference, None)
        assert bytewise.held == cutwise.held == whole.held
        assert bytewise.hop_drops == cutwise.hop_drops == whole.hop_drops
        assert bytewise.is_between_messages == cutwise.is_between_messages == whole.is_between_messages


@given(STREAMS, FRAMINGS)
def test_the_pass_that_takes_hop_counts_off_agrees_with_the_plain_form(stream: bytes, framing: Framing) -> None:
    plain = MessageDecoder(framing, max_size=MAX_SIZE)
    fused = MessageDecoder(framing, max_size=MAX_SIZE, hop_limit=8)
    chunks = [stream[at : at + 1] for at in range(len(stream))]
    messages, fault = outcome(plain, chunks)
    expected: list[bytes] = []
    for message in messages:
        try:
            body = split_pair1(message, 8)
        except SpError as error:
            fault = error.fault
            break
        if body is not None:
            expected.append(body)
    got, got_fault = outcome(fused, chunks)
    assert got == expected
    # The fused form may see a headless message by its size alone, before it is complete.
    assert got_fault == fault or (fault is None and got_fault is SpFault.MALFORMED)


@given(st.lists(st.binary(max_size=MAX_SIZE - 4)), CUTS, FRAMINGS, st.booleans())
def test_what_is_encoded_comes_back(bodies: list[bytes], cuts: list[int], framing: Framing, is_pair1: bool) -> None:
    encoder = MessageEncoder(framing, max_size=MAX_SIZE, header=FIRST_HOP if is_pair1 else b"")
    stream = b"".join(encoder.encode_many(bodies))
    assert stream == b"".join(b"".join(encoder.encode(body)) for body in bodies)
    decoder = MessageDecoder(framing, max_size=MAX_SIZE, hop_limit=8 if is_pair1 else None)
    assert outcome(decoder, pieces(stream, cuts)) == (bodies, None)
    assert decoder.is_between_messages


@given(
    st.one_of(
        st.binary(max_size=20),
        st.builds(
            lambda endpoint, at, value, rest: (
                encode_hello(endpoint)[:at] + value + encode_hello(endpoint)[at + 1 :] + rest
            ),
            st.sampled_from(EndpointType),
            st.integers(0, 8),
            st.binary(max_size=1),
            st.binary(max_size=5),
        ),
    ),
    CUTS,
    st.sets(st.sampled_from(EndpointType), min_size=1),
)
def test_a_hello_is_right_or_refused(data: bytes, cuts: list[int], accept: set[EndpointType]) -> None:
    decoder = HelloDecoder(accept)
    chunks = pieces(data, cuts)
    for index, chunk in enumerate(chunks):
        try:
            greeting = decoder.feed(chunk)
        except SpError as error:
            assert not any(data.startswith(encode_hello(endpoint)) for endpoint in accept)
            assert error.endpoint is None or error.endpoint not in accept or error.fault is SpFault.RESERVED
            return
        if greeting is not None:
            endpoint, rest = greeting
            assert endpoint in accept
            assert encode_hello(endpoint) + rest + b"".join(chunks[index + 1 :]) == data
            return
    assert len(data) < 8
    assert any(encode_hello(endpoint).startswith(data) for endpoint in accept)


@given(st.one_of(STREAMS, STREAMS.map(lambda rest: encode_hello(EndpointType.RESPONDENT) + rest)), CUTS, FRAMINGS)
def test_a_stream_gives_messages_or_one_error(data: bytes, cuts: list[int], framing: Framing) -> None:
    stream = SpStream([EndpointType.SURVEYOR, EndpointType.PAIR1], framing, max_size=MAX_SIZE)
    for chunk in pieces(data, cuts):
        try:
            messages = stream.receive(chunk)
        except SpError:
            return
        assert not messages or stream.peer is not None


TAGS = st.lists(st.integers(0, 0x7FFF_FFFF).map(lambda tag: tag.to_bytes(4)), max_size=10).map(b"".join)


@given(st.one_of(st.binary(max_size=50), st.builds(lambda tags, rest: tags + rest, TAGS, st.binary(max_size=10))))
def test_a_backtrace_ends_or_is_refused(message: bytes) -> None:
    try:
        size = backtrace_size(message, 8)
    except SpError as error:
        assert error.fault is SpFault.MALFORMED
        assert len(message) < 32
        return
    tops = [bool(message[at] & 0x80) for at in range(0, min(len(message) // 4, 8) * 4, 4)]
    assert size == (None if True not in tops else 4 * (tops.index(True) + 1))


@given(st.lists(st.tuples(st.integers(0, 2), st.binary(max_size=12))))
def test_a_respondent_survives_any_questions(asked: list[tuple[int, bytes]]) -> None:
    respondent: Respondent[int] = Respondent(questions_per_pipe=2)
    for pipe, message in asked:
        verdict, question = respondent.question_received(pipe, message)
        assert (question is not None) == (verdict is QuestionVerdict.ASKED)
        if question is not None:
            assert question.backtrace + question.body == message
    assert sum(respondent.counts.values()) == len(asked)
