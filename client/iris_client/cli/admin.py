"""``iris drain`` and ``iris reload``: the local daemon operated, over its admin socket."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from iris_client._errors import DaemonUnavailable, Denied
from iris_client.cli.control import Control, ask_once
from iris_client.cli.options import Settings, examples, with_settings
from iris_client.cli.output import Failure, print_json
from iris_client.cli.values import count_of, show_size
from iris_proto.v1 import admin_pb2 as pb

if TYPE_CHECKING:
    import grpc.aio

RELOAD_TIMEOUT: Final = 10.0

admin_option = click.option(
    "--admin",
    metavar="PATH",
    help="The admin socket. [default: as the daemon says]",
)


@click.command(
    short_help="Let the daemon finish its work, and end it.",
    epilog=examples(
        "iris drain",
        "iris drain --timeout 60s      # instead of the daemon's drain_timeout",
        "iris drain --json | jq .under_way",
    ),
)
@admin_option
@with_settings
async def drain(settings: Settings, admin: str | None) -> None:
    """Drain the local daemon: it takes nothing new, finishes what is under way, and exits.

    The same as SIGTERM, but one can watch: what is under way is shown until it is over. --timeout says how long that
    may take; what is left then is given up, its callers are told, and the exit code is 1. Interrupting this command
    does not stop the drain.
    """
    request = pb.DrainRequest(timeout=settings.timeout if settings.timeout_given else 0.0)
    last: pb.DrainProgress | None = None
    async with _open(settings, admin) as stub:
        import grpc.aio

        try:
            async for progress in stub.Drain(request):
                if last is None or _shown(progress) != _shown(last):
                    _show(settings, progress)
                last = progress
        except grpc.aio.AioRpcError as error:
            if last is None or not last.drained:
                raise _translated(error) from None
    if last is None or not last.drained:
        raise DaemonUnavailable("the daemon ended before its drain was over")
    if last.cut_short:
        raise Failure(f"time was up: {last.under_way} calls and tunnels were given up", kind="CutShort")


@click.command(
    "reload",
    short_help="Let the daemon read its settings, keys and tokens again.",
    epilog=examples("iris reload", "iris reload --json | jq .restart"),
)
@admin_option
@with_settings
async def reload(settings: Settings, admin: str | None) -> None:
    """Let the local daemon read its settings, key and token files again, as SIGHUP does.

    Says what was taken up, and what was changed and wants a restart. If something is wrong with a file, nothing is
    changed, and the message says what it is.
    """
    async with _open(settings, admin) as stub:
        import grpc.aio

        try:
            result: pb.ReloadResult = await stub.Reload(pb.ReloadRequest(), timeout=RELOAD_TIMEOUT)
        except grpc.aio.AioRpcError as error:
            raise _translated(error) from None
    applied, restart = list(result.applied), list(result.restart)
    if settings.json:
        print_json({"applied": applied, "restart": restart})
        return
    print(f"reloaded: {', '.join(applied) or 'nothing has changed'}")
    if restart:
        print(f"needs a restart: {', '.join(restart)}")


def _shown(progress: pb.DrainProgress) -> tuple[Any, ...]:
    return progress.under_way, progress.attachments, progress.queued, progress.drained


def _show(settings: Settings, progress: pb.DrainProgress) -> None:
    if settings.json:
        print_json(
            {
                "under_way": progress.under_way,
                "attachments": progress.attachments,
                "queued": progress.queued,
                "left": round(progress.left, 3),
                "drained": progress.drained,
                "cut_short": progress.cut_short,
            }
        )
    elif progress.drained:
        print("given up" if progress.cut_short else "drained", flush=True)
    else:
        apps = count_of(progress.attachments, "app")
        what = f"{progress.under_way} under way, {apps}, {show_size(progress.queued)} queued"
        print(f"draining: {what}; {progress.left:.0f} s left", flush=True)


@asynccontextmanager
async def _open(settings: Settings, path: str | None) -> AsyncIterator[Any]:
    """A stub for the daemon's admin socket.

    Raises:
        DaemonUnavailable: No daemon answers, or it has no such socket.
        Denied: The socket is another user's.
    """
    import grpc.aio

    from iris_proto.v1 import admin_pb2_grpc

    place = _checked(path or await ask_once(settings, _admin_socket) or "")
    channel: grpc.aio.Channel = grpc.aio.insecure_channel(
        f"unix:{place}",
        options=(("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)),
    )
    try:
        yield admin_pb2_grpc.AdminStub(channel)
    finally:
        await channel.close(None)


async def _admin_socket(control: Control) -> str:
    status = await control.status()
    for row in status.listeners:
        if row.purpose == "admin":
            return row.address.removeprefix("unix://")
    raise Failure(
        "this daemon has no admin socket",
        hint="its setting admin_socket is off; SIGTERM drains it, SIGHUP reloads it",
        kind="NoAdmin",
    )


def _checked(path: str) -> str:
    """The path in full, if there is a socket that this user may open."""
    path = os.path.abspath(path)
    try:
        found = os.stat(path)
    except PermissionError:
        raise _denied(path, "") from None
    except OSError as error:
        raise DaemonUnavailable(
            f"there is no admin socket at {path} ({error.strerror}); is the daemon on this host, and running?"
        ) from None
    if not stat.S_ISSOCK(found.st_mode):
        raise Failure(f"{path} is no socket", kind="NoAdmin")
    if sys.platform != "win32" and not os.access(path, os.R_OK | os.W_OK):
        raise _denied(path, f" (user {found.st_uid})")
    return path


def _denied(path: str, owner: str) -> Denied:
    return Denied(f"the admin socket {path} is for the daemon's own user{owner} only; run this as that user")


def _translated(error: grpc.aio.AioRpcError) -> Exception:
    status, detail = error.code().name, error.details() or ""
    if status == "FAILED_PRECONDITION":
        return Failure(detail, kind="BadSettings")
    if status == "UNAVAILABLE":
        return DaemonUnavailable(f"the daemon does not answer: {detail.rpartition(': ')[2] or detail}")
    if status == "UNIMPLEMENTED":
        return Failure("what answers there is no Iris daemon's admin socket", kind="NoAdmin")
    return Failure(f"the daemon failed: {detail or status.lower()}")
