"""Survey: ask every member, take answers until a deadline, know who was silent.

    irisd                                  # a development daemon
    python examples/survey.py serve        # as often as you like: members
    python examples/survey.py              # asks them all

Each command in a terminal of its own.
"""

from __future__ import annotations

import asyncio
import os
import sys

import iris_client as iris

printers = iris.Cluster("printers", codec=iris.JSON)


@printers.on_survey
async def status(question: str) -> dict[str, int | str]:
    if question != "paper?":
        raise iris.Reject("only paper is counted here", code="unknown-question")
    return {"pid": os.getpid(), "sheets": 250}


async def ask_all() -> None:
    async with iris.connect(codec=iris.JSON) as mesh:
        async with mesh.survey("printers", "paper?", timeout=1.0) as survey:
            async for answer in survey:
                print(f"{answer.member}: {answer.error or answer.body.decode()}")
        # Ended early, because all had answered; or at the deadline, and then these were silent.
        print(f"asked {len(survey.asked)}, answered {len(survey.answered)}, silent: {survey.silent}")


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        iris.run(printers)
    else:
        asyncio.run(ask_all())
