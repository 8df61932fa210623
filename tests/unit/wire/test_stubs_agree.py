"""Our encoding and the generated stubs' are the same language, in both directions."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from iris_proto.v1 import frame_pb2 as pb
from irisd.model import Frame, Kind, MiB
from irisd.wire import decode_batch, encode_batch

TEXT = st.text(max_size=12)
UINT64 = st.integers(0, 2**64 - 1)
UINT32 = st.integers(0, 2**32 - 1)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "id": UINT64,
    "address": TEXT,
    "remaining_ms": UINT32,
    "hops": UINT32,
    "method": TEXT,
    "content_type": TEXT,
    "member": TEXT,
    "members": st.lists(TEXT, max_size=3),
    "count": UINT64,
    "code": st.integers(0, 13),
    "executed": st.integers(0, 3),
    "reason": TEXT,
    "detail": st.text(max_size=400),
    "lost": UINT64,
    "lost_unknown": st.booleans(),
    "idempotent": st.booleans(),
    "total": UINT64,
    "patterns": UINT32,
    "concurrency": UINT32,
    "group": TEXT,
    "when_full": st.integers(0, 3),
    "max_bytes": UINT64,
    "version": TEXT,
    "node": TEXT,
    "balance": st.integers(0, 5),
    "key": TEXT,
    "priority": UINT32,
    "hedge_ms": UINT32,
    "carries": st.integers(0, 25),
    "max_large": UINT64,
    "cost": UINT64,
    "at_once": st.booleans(),
    "lane": TEXT,
    "ticket": st.binary(max_size=20),
    "lanes": UINT32,
}
KINDS = st.sampled_from([int(kind) for kind in Kind if kind < 64])
HEADERS = st.dictionaries(TEXT, TEXT, max_size=4)


@st.composite
def stub_frames(draw: st.DrawFn) -> pb.Frame:
    said = draw(st.fixed_dictionaries({}, optional=FIELDS))
    headers = draw(HEADERS)
    messages = draw(st.lists(st.binary(max_size=20), max_size=4))
    header = pb.Header(kind=pb.Kind.Name(draw(KINDS)), headers=headers, sizes=[len(m) for m in messages], **said)
    return pb.Frame(header=header, body=b"".join(messages) if messages else draw(st.binary(max_size=50)))


def ours_from(stub: pb.Frame) -> Frame:
    """The frame a stub stands for, by reflection rather than by bytes."""
    frame = Frame(stub.header.kind, body=stub.body)
    for name in FIELDS:
        value = getattr(stub.header, name)
        setattr(frame, name, tuple(value) if name == "members" else value)
    frame.sizes = b"".join(size.to_bytes(4, "little") for size in stub.header.sizes)
    frame.headers = tuple(
        pb.Header.HeadersEntry(key=key, value=value).SerializeToString() for key, value in stub.header.headers.items()
    )
    return frame


def differences(one: Frame, other: Frame) -> list[str]:
    names = [*FIELDS, "kind", "sizes", "body", "more"]
    different = [name for name in names if getattr(one, name) != getattr(other, name)]
    return different + ["headers"] * (entries(one) != entries(other))


def entries(frame: Frame) -> dict[str, str]:
    """The app's headers, which the daemon itself never reads."""
    parsed = [pb.Header.HeadersEntry.FromString(entry) for entry in frame.headers]
    return {entry.key: entry.value for entry in parsed}


@given(st.lists(stub_frames(), max_size=3))
def test_what_the_stubs_write_we_read(stubs: list[pb.Frame]):
    raw = pb.Batch(frames=stubs).SerializeToString()
    for mine, stub in zip(decode_batch(raw, MiB), stubs, strict=True):
        assert differences(mine, ours_from(stub)) == []


@given(st.lists(stub_frames(), max_size=3))
def test_what_we_write_the_stubs_read(stubs: list[pb.Frame]):
    batch = pb.Batch.FromString(encode_batch([ours_from(stub) for stub in stubs]))
    assert list(batch.frames) == stubs


@given(stub_frames(), st.integers(1, 2**40))
def test_first_parts(stub: pb.Frame, total: int):
    stub.header.more, stub.header.total = True, total
    del stub.header.sizes[:]
    (mine,) = decode_batch(pb.Batch(frames=[stub]).SerializeToString(), MiB)
    assert (mine.more, mine.total) == (True, total)
    assert pb.Batch.FromString(encode_batch([mine])).frames[0] == stub


def test_every_field_of_the_proto_is_known_here():
    names = {field.name for field in pb.Header.DESCRIPTOR.fields}
    assert names == {*FIELDS, "kind", "headers", "sizes", "more"}
    assert {kind.name: int(kind) for kind in Kind if kind < 64} == {
        name.removeprefix("KIND_"): number for name, number in pb.Kind.items() if number
    }
