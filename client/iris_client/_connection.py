"""The asyncio half of a mesh: opens lanes, pumps the session through them, and opens new ones when they break.

One task per mesh receives (and reconnects); one per lane sends. A batch is whatever waited when the stream could take
more. Deadlines of all calls share one timer.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from random import Random
from typing import Final

from iris_client._errors import DaemonUnavailable, Denied
from iris_client._frames import ProtocolError
from iris_client._lane import CLOSED, Buffer, Lane, LaneEnded, OpenLane, Stream
from iris_client._model import State, StateChange
from iris_client._session import Session
from iris_client._urls import Target

_log = logging.getLogger("iris_client")

DENIALS: Final = frozenset({"NOT_FOUND", "UNAUTHENTICATED", "PERMISSION_DENIED"})
FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 5.0
WANTED_PAUSE: Final = 0.1
"""The longest while somebody waits for the next daemon."""
ATTEMPT_TIMEOUT: Final = 5.0
"""Seconds one target may take to say WELCOME before the next is tried."""
FINISH_TIMEOUT: Final = 2.0
"""Seconds the daemon may take to end a stream that this app has finished."""


class Connection:
    """Keeps one session attached.

    Args:
        session: What to attach. Its ``wake`` must be :meth:`wake`.
        targets: Where to look for a daemon, in order.
        open_lane: Opens a lane to one of them.
        token: For targets that want one.
        random: Jitter for the pauses between attempts.
        lane: ``auto`` moves to a faster lane where the daemon offers one, ``local`` accepts nothing else, ``grpc``
            stays.

    Attributes:
        state: Where it stands.
        url: The target it is attached to, or was last.
        lane: What carries its frames, or did last: ``grpc``, ``local`` or ``inproc``.
        loop: The event loop it was made on, and lives on.
        on_state: Called with every change of ``state``.
    """

    def __init__(
        self,
        session: Session,
        targets: Sequence[Target],
        open_lane: OpenLane,
        token: str | None,
        random: Random,
        *,
        lane: str = "auto",
    ) -> None:
        self._session = session
        self._targets = list(targets)
        self._open_lane = open_lane
        self._token = token
        self._random = random
        self._wanted_lane = lane
        self._sleeping: asyncio.Future[None] | None = None  # the sender, with nothing to send
        self._wanted = asyncio.Event()  # somebody begins to wait for the next daemon
        self._idle: asyncio.Future[None] | None = None  # whoever waits for the session to be idle
        self._wants: Callable[[], bool] = lambda: True
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self._lane: Lane | None = None
        self._closing = False
        self._stopping = False
        self._in_order = False  # the daemon ended the stream after it had read all of it
        self.state = State.CONNECTING
        self.url = ""
        self.lane = ""
        self.loop = asyncio.get_running_loop()
        self.on_state: Callable[[StateChange], None] = lambda change: None
        session.on_timer(self._deadline_set)
        session.on_goodbye = self._goodbye

    # ------------------------------------------------------------- opening

    async def start(self, timeout: float) -> None:
        """Attach, within ``timeout`` seconds; a daemon that is late is waited for.

        Raises:
            DaemonUnavailable: Nobody answered; names everything tried.
            Denied: A daemon answered and refused.
        """
        deadline = time.monotonic() + timeout
        tried: dict[Target, str] = {}
        pause = FIRST_PAUSE
        while True:
            denied: LaneEnded | None = None
            for target in self._targets:
                try:
                    lane = await self._attach(target, deadline - time.monotonic())
                except LaneEnded as ended:
                    # A reason says more than silence, or than an end without one: gRPC loses some.
                    if target not in tried or (ended.status != "DEADLINE_EXCEEDED" and ended.detail != CLOSED):
                        tried[target] = ended.detail or ended.status
                    if ended.status in DENIALS:
                        denied = ended
                else:
                    self._lane = lane
                    self._task = asyncio.create_task(self._run(lane), name="iris-mesh")
                    return
            if denied is not None:
                raise Denied(f"the daemon refuses: {denied.detail or denied.status.lower()}")
            left = deadline - time.monotonic()
            if left <= 0:
                raise DaemonUnavailable(_unavailable(tried, timeout))
            await asyncio.sleep(min(left, pause * (0.5 + self._random.random() / 2)))
            pause = min(pause * 2, 1.0)

    async def _attach(self, target: Target, left: float) -> Lane:
        """Open a lane, wait for WELCOME, and move to a faster one where there is one.

        Raises:
            LaneEnded: It could not be opened, or the daemon refused.
        """
        limit = max(0.0, left if len(self._targets) == 1 else min(left, ATTEMPT_TIMEOUT))
        lane: Lane = (stream := await self._open_lane(target, self._token))
        session = self._session
        moves = target.scheme == "unix" and self._wanted_lane != "grpc" and hasattr(os, "getuid")
        try:
            async with asyncio.timeout(limit):
                session.user = str(os.geteuid()) if moves else ""
                session.lane_up()
                hello = session.take(lane.batch, time.monotonic())
                assert hello is not None
                with suppress(LaneEnded):  # receive says how it ended
                    await lane.send(hello)
                while not session.attached:
                    session.received(await stream.receive(), time.monotonic())
                lane = await self._moved(stream)
        except TimeoutError:
            await self._give_up(lane)
            raise LaneEnded("DEADLINE_EXCEEDED", f"no answer within {limit:.1f} s") from None
        except ProtocolError as error:
            await self._give_up(lane)
            raise LaneEnded("INTERNAL", f"not a daemon this SDK understands: {error}") from None
        except BaseException:
            await self._give_up(lane)
            raise
        self.url, self.lane = str(target), lane.name
        self._targets.sort(key=lambda known: known != target)  # where it was, it may be again
        self._set_state(State.ATTACHED, self.url)
        return lane

    async def _moved(self, lane: Stream) -> Lane:
        """The lane to carry on with.

        Raises:
            LaneEnded: It broke, or is not the one that was asked for.
        """
        from iris_client._lane_local import CannotMove, move

        session, limits, wanted = self._session, self._session.limits, self._wanted_lane
        session.on_lane = None
        reason = "the daemon offers no local lane here"
        if limits.lane and wanted != "grpc":
            try:
                local = await move(lane, limits.lane, limits.ticket, session.ping if limits.alone else None)
            except CannotMove as error:
                reason = str(error)
                _log.debug("no local lane, staying on gRPC: %s", reason)
            else:
                session.on_lane = local.told
                return local
        if wanted == "local":
            raise LaneEnded("UNAVAILABLE", f"lane='local': {reason}")
        return lane

    async def _give_up(self, lane: Lane) -> None:
        self._session.lane_down("the stream could not be opened")
        await lane.close()

    # ------------------------------------------------------------- pumping

    def wake(self) -> None:
        """There is something to send."""
        self._wanted.set()
        sleeping = self._sleeping
        if sleeping is not None:
            self._sleeping = None
            if not sleeping.done():
                sleeping.set_result(None)

    async def _run(self, lane: Lane) -> None:
        pause = FIRST_PAUSE
        try:
            while True:
                began = time.monotonic()
                self._lane = lane
                reason = await self._pump(lane)
                self._lane = None
                await lane.close()
                expected = self._session.draining
                self._detached(reason)
                if time.monotonic() - began > LONGEST_PAUSE:
                    pause = FIRST_PAUSE
                if expected:
                    pause = 0.0  # its successor may be there already
                if self._stopping or (self._closing and self._session.quiet):
                    return
                lane, pause = await self._reattach(pause, reason)
        finally:
            if self._lane is not None:
                await self._lane.close()
                self._lane = None

    async def _pump(self, lane: Lane) -> str:
        """Send and receive until the lane ends; return why it did."""
        session = self._session
        sender = asyncio.create_task(self._send(lane), name="iris-mesh-send")

        def received(batch: Buffer) -> None:
            session.received(batch, time.monotonic())
            if self._idle is not None:
                self._check_idle()

        try:
            await lane.pump(received)
        except LaneEnded as ended:
            self._in_order = self._stopping and ended.status == "OK"
            return ended.detail or f"the daemon ended the stream ({ended.status})"
        except ProtocolError as error:
            _log.error("the daemon at %s broke the protocol, attaching again: %s", self.url, error)
            return f"the daemon broke the protocol: {error}"
        except Exception:
            _log.exception("a defect of the SDK broke its stream, attaching again")
            return "a defect of the SDK broke the stream; its log says how"
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    async def _send(self, lane: Lane) -> None:
        session, clock = self._session, time.monotonic
        try:
            while True:
                batch = session.take(lane.batch, clock())
                if batch is not None:
                    await lane.send(batch)
                    continue
                if self._idle is not None:
                    self._check_idle()
                self._sleeping = sleeping = self.loop.create_future()
                await sleeping
        except LaneEnded:
            return  # the receiver learns how
        except Exception:
            _log.exception("a defect of the SDK broke its stream, attaching again")
            await lane.close()

    async def _reattach(self, pause: float, reason: str) -> tuple[Lane, float]:
        said = reason
        while True:
            await self._pause(pause * (0.5 + self._random.random() / 2))
            pause = min(max(pause * 2, FIRST_PAUSE), LONGEST_PAUSE)
            for target in tuple(self._targets):
                try:
                    return await self._attach(target, ATTEMPT_TIMEOUT), pause
                except LaneEnded as ended:
                    problem = f"{target}: {ended.detail or ended.status}"
                    if ended.status in DENIALS and problem != said:
                        said = problem
                        _log.warning("the daemon refuses this app now, trying on: %s", problem)

    async def _pause(self, seconds: float) -> None:
        """Wait before the next attempt: not for long once somebody waits for it to succeed."""
        until = time.monotonic() + seconds
        self._wanted.clear()
        while (left := until - time.monotonic()) > 0:
            if self._session.waits:
                await asyncio.sleep(min(left, WANTED_PAUSE * (0.5 + self._random.random() / 2)))
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._wanted.wait()
            self._wanted.clear()

    def _detached(self, reason: str) -> None:
        unknown = self._session.lane_down(reason)
        if unknown and not self._in_order:
            _log.warning("%d published messages may have been lost with the stream to %s", unknown, self.url)
        if not self._closing:
            self._set_state(State.DETACHED, reason)

    def _goodbye(self, reason: str) -> None:
        self._set_state(State.DRAINING, reason or "the daemon is leaving")

    def _set_state(self, state: State, reason: str) -> None:
        if state is self.state:
            return
        self.state = state
        self.on_state(StateChange(state, reason))

    # ---------------------------------------------------------------- time

    def _deadline_set(self, deadline: float) -> None:
        if self._timer is None or deadline < self._timer_at:
            self._schedule(deadline)

    def _schedule(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self.loop.call_later(max(0.0, deadline - time.monotonic()), self._tick)

    def _tick(self) -> None:
        self._timer = None
        # Timers of an event loop may fire a little early; a call must not then find its deadline ahead.
        self._session.on_deadline(max(time.monotonic(), self._timer_at))
        following = self._session.next_deadline()
        if following is not None and self._timer is None:
            self._schedule(following)

    # ------------------------------------------------------------- closing

    async def until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Wait until ``condition`` holds, looked at whenever something was sent or came; False when time ran out."""
        if condition():
            return True
        if self._task is None or self._task.done():
            return False
        self._wants = condition
        self._idle = idle = self.loop.create_future()
        try:
            await asyncio.wait((idle, self._task), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._idle = None
            idle.cancel()
        return condition()

    def look_again(self) -> None:
        """Something changed that :meth:`until` may be waiting for."""
        if self._idle is not None:
            self._check_idle()

    def _check_idle(self) -> None:
        idle = self._idle
        if idle is not None and not idle.done() and self._wants():
            idle.set_result(None)

    def closing(self) -> None:
        """From here on, a stream that ends is not replaced, unless something still waits to be sent."""
        self._closing = True

    async def stop(self, reason: str, *, kindly: bool) -> None:
        """End the stream and everything with it. Kindly: let the daemon see it finished, and finish too."""
        self._closing = self._stopping = True
        task = self._task
        if task is not None and not task.done():
            if kindly and self._lane is not None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(FINISH_TIMEOUT):
                        await self._lane.finish()
                await asyncio.wait((task,), timeout=FINISH_TIMEOUT)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._task = None
        if self._lane is not None:  # the task was cancelled before its first step
            await self._lane.close()
            self._lane = None
        unknown = self._session.lane_down(reason)
        if unknown:  # it did not end in time, so nobody has said yet what became of them
            _log.warning("%d published messages may have been lost with the stream to %s", unknown, self.url)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._set_state(State.CLOSED, reason)


def _unavailable(tried: dict[Target, str], timeout: float) -> str:
    lines = "".join(f"\n  {target}: {reason}" for target, reason in tried.items())
    return f"no Iris daemon answered within {timeout:g} s; tried:{lines}\nStart one with: irisd"


def refuse_plain_token(target: Target) -> None:
    """Keep a token from crossing a network in clear.

    Raises:
        Denied: The target is TCP without TLS, and not on this machine.
    """
    if target.scheme == "tcp" and not target.loopback:
        raise Denied(f"{target}: a token is not sent in clear to another host; use tls://{target.place}")
