"""Every drop has a reason and a counter, and docs/observing.md says what each means and what to do."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from irisd.membership import Verdict
from irisd.sp import AnswerVerdict, QuestionVerdict

ROOT = Path(__file__).resolve().parents[2]

# What stands between braces in a reason, by how the reason begins.
VALUES: dict[str, set[str]] = {
    "record-": {str(Verdict.FUTURE), str(Verdict.FULL)},
    "survey-": {*map(str, AnswerVerdict), *map(str, QuestionVerdict)} - {"counted", "asked", "malformed"},
}


def texts(node: ast.expr) -> Iterator[str]:
    """The texts an expression may come to; where it is put together, what can stand there is."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.IfExp(body=one, orelse=other):
            yield from texts(one)
            yield from texts(other)
        case ast.JoinedStr(values=[ast.Constant(value=str(start)), ast.FormattedValue()]):
            for value in VALUES.get(start.removeprefix("dropped."), ()):
                yield f"{start}{value}"


def reasons(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(attr="drop", value=owner), args=[reason, *_]):
                if ast.unparse(owner).endswith("core") or ast.unparse(owner) == "self":
                    yield from texts(reason)
            case ast.Subscript(value=ast.Attribute(attr="_drops"), slice=reason):
                yield from texts(reason)
            case ast.Dict(keys=[ast.Constant(value="hop-limit")]):
                yield "hop-limit"
            case ast.Subscript(slice=reason):
                yield from (text.removeprefix("dropped.") for text in texts(reason) if text.startswith("dropped."))


def in_the_source() -> set[str]:
    found: set[str] = set()
    for path in (ROOT / "irisd").rglob("*.py"):
        found.update(reasons(path.read_text()))
    return found


def in_the_table() -> set[str]:
    text = (ROOT / "docs" / "observing.md").read_text()
    table = text[text.index("| reason |") :]
    return set(re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE))


def test_every_reason_is_explained_and_no_other():
    source, table = in_the_source(), in_the_table()
    assert source - table == set(), "drops that docs/observing.md does not explain"
    assert table - source == set(), "reasons that nothing is dropped for any more"


def test_the_search_finds_what_it_looks_for():
    assert {"push-failed", "push-lost", "record-from-the-future", "survey-late", "belief-unseen", "hop-limit"} <= (
        in_the_source()
    )


def test_every_drop_of_the_brain_goes_through_one_place():
    """A reason that is worked out elsewhere would be missed above."""
    for path in (ROOT / "irisd").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(attr="drop", value=owner), args=[reason, *_]):
                    if ast.unparse(owner).endswith("core"):
                        assert list(texts(reason)), f"{path}:{node.lineno}: which reason?"
