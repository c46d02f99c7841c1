"""Watchers of one kind, who measure: what came, how late, and whether it was all."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, chain
from random import Random
from urllib.parse import quote

import msgspec
import numpy as np
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from fleet.events import JobStatusChanged, RobotStatusChanged
from simulators.load import beats
from simulators.load.beats import Floats, Ints
from simulators.load.clock import Clocked
from simulators.load.fleet import Sent
from simulators.load.latency import Latencies
from simulators.load.ledger import Latest, Ledger, Tally
from simulators.load.swarm import say_goodbye
from simulators.load.words import Words
from simulators.scenario import Watchers

log = logging.getLogger("fleetcast.watchers")
_socket_log = logging.getLogger("fleetcast.watchers.socket")  # picows logs the handshake, and the token in it
_socket_log.setLevel(logging.WARNING)

MAX_CONNECTING = 50
DIGEST_S = 0.05
AGAIN_S = 1.0  # at most, before who was thrown out comes again
NOT_OURS = -1
KEEP_US = 30_000_000  # how long the time of an event is kept for watchers who hear of it later
GARBAGE = (b"\x00\xff", b"{", b'{"type":"heartbeat"}', b"[" * 10_000)
PATHS = {"metrics-stream": "metrics/stream"}
_robot = msgspec.json.Decoder(RobotStatusChanged).decode
_job = msgspec.json.Decoder(JobStatusChanged).decode


class _Numbered(msgspec.Struct):
    type: str
    epoch: str | None
    offset: int | None
    data: msgspec.Raw


_numbered = msgspec.json.Decoder(_Numbered).decode


class Origin(msgspec.Struct, frozen=True):
    """When what a job's event tells of was due: its submission, or its robot's word."""

    job_id: str
    status: str
    at_us: int


class Second(msgspec.Struct, frozen=True):
    """Events received in a second, and how late those were that have a time: an encoded histogram."""

    second: int
    received: int
    latency: bytes


class WatchersReport(msgspec.Struct, frozen=True):
    """Counts since the beginning; histograms are encoded. `closed`: connections that the server ended, by
    close code. `gaps`: announced to watchers who resumed."""

    watchers: int
    connected: int
    received: int
    not_understood: int
    closed: dict[str, int]
    gaps: int
    beat_latency: bytes
    job_latency: bytes
    seconds: list[Second]


class Judged(msgspec.Struct, frozen=True):
    """`late`: watchers whose connection ended in between. What they missed meanwhile is not known to them."""

    tally: Tally
    late: int


class _Watcher(WSListener):
    """What it reads at once came at one time."""

    def __init__(self, crowd: WatcherCrowd, robots: int, conflating: bool) -> None:
        self.ledger: Ledger | Latest = Latest(robots) if conflating else Ledger(robots)
        self.stories = array("I")  # by a job's place
        self.transport: WSTransport | None = None
        self.opened = 0
        self.place = ""
        self._crowd = crowd
        self._frames: list[bytes] = []

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self.opened += 1
        self._crowd.on_open(self)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind == WSMsgType.TEXT:
            self._frames.append(frame.get_payload_as_bytes())
        elif kind == WSMsgType.PING:  # answered here: what picows answers itself is never the last of a read
            transport.send_pong(frame.get_payload_as_bytes())
        if frame.last_in_buffer:
            self._hand_over()
        if kind == WSMsgType.CLOSE:
            self._crowd.on_close(str(int(frame.get_close_code().value)))
            transport.send_close(frame.get_close_code())
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._hand_over()
        self.transport = None

    def _hand_over(self) -> None:
        if self._frames:
            frames, self._frames = self._frames, []
            self._crowd.on_read(self, frames)


_Read = tuple[_Watcher, int, list[bytes]]  # frames, and when they were read


class _Beats:
    """Heartbeats read from frames, each once: all watchers are sent the same bytes. Calling it gives each
    frame's robot (NOT_OURS for what is no heartbeat of ours), CPU and memory."""

    def __init__(self, read: Callable[[bytes], tuple[int, float, float]]) -> None:
        self._read = read
        self._places: dict[bytes, int] = {}
        self._table: list[tuple[int, float, float]] = []

    def __call__(self, frames: list[bytes]) -> tuple[Ints, Floats, Floats]:
        for frame in set(frames).difference(self._places):
            self._places[frame] = len(self._table)
            self._table.append(self._read(frame))
        places = np.fromiter(map(self._places.__getitem__, frames), dtype=np.int64, count=len(frames))
        table = np.array(self._table, dtype=np.float64).reshape(-1, 3)[places]
        return table[:, 0].astype(np.int64), table[:, 1], table[:, 2]


class _Stories:
    """What may become of a job, each sequence of statuses once: most jobs share theirs. 0 is the empty."""

    def __init__(self) -> None:
        self._all: list[list[str]] = [[]]
        self._after: dict[tuple[int, str], int] = {}

    def __getitem__(self, story: int) -> list[str]:
        return self._all[story]

    def after(self, story: int, status: str) -> int:
        """That story with one status more."""
        if (story, status) not in self._after:
            self._after[story, status] = len(self._all)
            self._all.append([*self._all[story], status])
        return self._after[story, status]


class WatcherCrowd(Clocked):
    """`spec.count` watchers of `spec.endpoint`. `fleets` are (name, count) of the robots that there are. One
    task keeps each connected; frames are taken in where they arrive, and looked at together."""

    def __init__(
        self,
        url: str,
        token: str,
        spec: Watchers,
        fleets: Sequence[tuple[str, int]],
        seed: int,
    ) -> None:
        super().__init__()
        path = PATHS.get(spec.endpoint, spec.endpoint)
        self._url = url.replace("http", "ws", 1).rstrip("/") + f"/api/v1/ws/{path}"
        self._token = token
        self._spec = spec
        self._rng = Random(seed)
        firsts = [0, *accumulate(robots for _, robots in fleets)]
        self._robots = {
            f"{name}-{number:03d}": first + number - 1
            for first, (name, robots) in zip(firsts, fleets, strict=False)
            for number in range(1, robots + 1)
        }
        self._watchers = [_Watcher(self, firsts[-1], spec.conflate is not None) for _ in range(spec.count)]
        self._connecting = asyncio.Semaphore(MAX_CONNECTING)
        self._heard: list[_Read] = []
        self._closed: Counter[str] = Counter()
        self._received = self._not_understood = self._gaps = 0
        self._beat_latency, self._job_latency = Latencies(), Latencies()
        self._second, self._in_second, self._late_in_second = 0, 0, Latencies()
        self._seconds: Words[Second] = Words()
        self._places: dict[str, int] = {}  # of jobs
        self._stories = _Stories()
        self._origins: dict[tuple[str, str], int] = {}
        self._early: dict[tuple[str, str], list[int]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._going = False

    # -- called by the conductor

    async def start(self) -> None:
        if self._tasks:
            return
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._keep(watcher)) for watcher in self._watchers]
        self._tasks.append(loop.create_task(self._digest_on()))

    async def stop(self) -> None:
        self._going = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for watcher in self._watchers:  # one that is not read would never see its goodbye answered
            if self._spec.behaviour == "slow" and watcher.transport is not None:
                watcher.transport.underlying_transport.resume_reading()
        await say_goodbye([watcher.transport for watcher in self._watchers if watcher.transport is not None])

    async def measure(self) -> None:
        """Latencies from now on: before, everybody came at once."""
        self._digest()
        self._beat_latency, self._job_latency, self._late_in_second = Latencies(), Latencies(), Latencies()

    async def drop(self) -> None:
        """All connections at once."""
        for watcher in self._watchers:
            if watcher.transport is not None:
                watcher.transport.disconnect(graceful=False)

    async def learn(self, origins: list[Origin]) -> None:
        """When the events were due that watchers hear of."""
        late = []
        for origin in origins:
            key = (origin.job_id, origin.status)
            self._origins[key] = origin.at_us
            late += [at_us - origin.at_us for at_us in self._early.pop(key, ())]
        self._note_job_latencies(late)
        horizon_us = self.clock.now_us() - KEEP_US
        self._origins = {key: at_us for key, at_us in self._origins.items() if at_us > horizon_us}
        self._early = {key: times for key, times in self._early.items() if times[0] > horizon_us}

    async def report(self, cursor: int) -> WatchersReport:
        self._digest()
        return WatchersReport(
            len(self._watchers),
            sum(watcher.transport is not None for watcher in self._watchers),
            self._received,
            self._not_understood,
            dict(self._closed),
            self._gaps,
            self._beat_latency.encoded(),
            self._job_latency.encoded(),
            self._seconds.since(cursor),
        )

    async def jobs_heard(self) -> dict[str, list[str]]:
        """Of each job the longest story that a watcher was told."""
        told: dict[str, list[str]] = {}
        for watcher in self._watchers:
            for job_id, story in self._told(watcher).items():
                if len(story) > len(told.get(job_id, ())):
                    told[job_id] = story
        return told

    def _told(self, watcher: _Watcher) -> dict[str, list[str]]:
        """Of each job."""
        named = zip(self._places, watcher.stories, strict=False)  # it may not have heard of the newest
        return {job_id: self._stories[story] for job_id, story in named if story}

    async def judge(self, sent: Sent, stories: dict[str, list[str]]) -> Judged:
        """Against what was sent, and what others were told of each job. Who means to miss something is not
        judged, nor who was not there all the time and did not resume."""
        self._digest()
        tally, late = Tally(), 0
        for watcher in self._watchers:
            if self._spec.behaviour not in ("well", "resuming"):
                continue
            if watcher.opened != 1 and not self._resumes:
                late += 1
            elif self._spec.endpoint == "robot-status":
                tally.add(watcher.ledger.judge(sent.numbers, sent.cuts))
            elif self._spec.endpoint == "live-jobs":
                tally.add(compared(stories, self._told(watcher)))
        return Judged(tally, late)

    # -- connections

    @property
    def _resumes(self) -> bool:
        return self._spec.behaviour == "resuming"

    @property
    def _measures(self) -> bool:
        """What slow ones and those who catch up receive late is their own doing."""
        return self._spec.behaviour in ("well", "reconnecting", "garbage")

    def on_open(self, watcher: _Watcher) -> None:
        if watcher.opened > 1 and not self._resumes:
            self._digest()
            watcher.ledger.join_late()

    def on_close(self, code: str) -> None:
        if not self._going:
            self._closed[code] += 1

    def on_read(self, watcher: _Watcher, frames: list[bytes]) -> None:
        self._heard.append((watcher, self.clock.now_us(), frames))

    async def _keep(self, watcher: _Watcher) -> None:
        every_s = self._spec.every
        while True:
            if not await self._connect(watcher):
                await asyncio.sleep(self._rng.uniform(0, AGAIN_S))
                continue
            while (transport := watcher.transport) is not None:
                match self._spec.behaviour:
                    case "slow":
                        transport.underlying_transport.pause_reading()
                        await asyncio.sleep(every_s or 0)
                        if watcher.transport is not None:
                            transport.underlying_transport.resume_reading()
                        await asyncio.sleep(0)
                    case "reconnecting" | "resuming":
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(every_s):
                                await transport.wait_disconnected()
                        transport.disconnect(graceful=False)
                    case "garbage":
                        transport.send(WSMsgType.TEXT, self._rng.choice(GARBAGE))
                        await asyncio.sleep(1.0)
                    case "well":
                        await transport.wait_disconnected()
            if self._spec.behaviour not in ("reconnecting", "resuming"):
                await asyncio.sleep(self._rng.uniform(0, AGAIN_S))

    async def _connect(self, watcher: _Watcher) -> bool:
        self._digest()  # its place is after all that it heard
        query = {"token": self._token}
        if self._resumes:
            query |= {"since": watcher.place} if watcher.place else {"v": "2"}
        if self._spec.conflate is not None:
            query["conflate"] = str(round(self._spec.conflate * 1_000))
        if self._spec.endpoint == "metrics-stream":
            query["interval"] = "1"
        given = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items() if value)
        opened = watcher.opened
        try:
            async with self._connecting:
                await ws_connect(
                    lambda: watcher,
                    f"{self._url}?{given}",
                    logger_name=_socket_log,
                    max_redirects=0,
                    enable_auto_pong=False,
                )
        except Exception as error:  # whatever it was, it comes again
            self._closed[type(error).__name__] += 1
        return watcher.opened > opened

    # -- what came

    async def _digest_on(self) -> None:
        while True:
            await asyncio.sleep(DIGEST_S)
            try:
                self._digest()
            except Exception:
                log.exception("what watchers heard could not be counted")

    def _digest(self) -> None:
        heard, self._heard = self._heard, []
        second = self.clock.now_us() // 1_000_000
        if second != self._second:
            self._end_second(second)
        events = [(watcher, at_us, self._plain(watcher, frames)) for watcher, at_us, frames in heard]
        received = sum(len(frames) for _, _, frames in events)
        self._received += received
        self._in_second += received
        match self._spec.endpoint:
            case "robot-status":
                self._digest_beats(events)
            case "live-jobs":
                self._digest_jobs(events)

    def _end_second(self, second: int) -> None:
        if self._in_second:
            self._seconds.add(Second(self._second, self._in_second, self._late_in_second.encoded()))
        self._second, self._in_second, self._late_in_second = second, 0, Latencies()

    def _plain(self, watcher: _Watcher, frames: list[bytes]) -> list[bytes]:
        """The events in numbered messages; the place of the last is where this watcher goes on."""
        if not self._resumes:
            return frames
        plain = []
        for message in map(_numbered, frames):
            if message.epoch is not None:
                watcher.place = f"{message.epoch}:{message.offset}"
            self._gaps += message.type == "gap"
            if message.type not in ("hello", "gap", "snapshot", "error"):
                plain.append(bytes(message.data))
        return plain

    def _digest_beats(self, heard: list[_Read]) -> None:
        by_watcher: dict[_Watcher, list[_Read]] = {}
        for read in heard:
            by_watcher.setdefault(read[0], []).append(read)
        beats_of = _Beats(self._read_beat)
        for watcher, reads in by_watcher.items():
            frames = list(chain.from_iterable(frames for _, _, frames in reads))
            robots, cpu, memory = beats_of(frames)
            ours = robots != NOT_OURS
            watcher.ledger.hear(robots[ours], beats.numbers_of(cpu[ours]))
            if self._measures:
                times = np.array([at_us for _, at_us, _ in reads], dtype=np.int64)
                received_us = np.repeat(times, [len(frames) for _, _, frames in reads])
                late_us = beats.latencies_us(memory[ours], received_us[ours])
                self._beat_latency.record(late_us)
                if self._spec.conflate is None:  # else it waits on purpose
                    self._late_in_second.record(late_us)

    def _read_beat(self, frame: bytes) -> tuple[int, float, float]:
        try:
            event = _robot(frame)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._not_understood += 1
            return NOT_OURS, 0.0, 0.0
        robot = self._robots.get(event.robot_id)
        if robot is None or event.status not in ("idle", "busy", "error") or event.memory_mb == 0:
            return NOT_OURS, 0.0, 0.0
        return robot, event.cpu_percent, event.memory_mb

    def _digest_jobs(self, heard: list[_Read]) -> None:
        late = []
        for watcher, at_us, frame in (
            (who, at_us, frame) for who, at_us, frames in heard for frame in frames
        ):
            try:
                event = _job(frame)
            except (msgspec.DecodeError, UnicodeDecodeError):
                self._not_understood += 1
                continue
            place = self._places.setdefault(event.job_id, len(self._places))
            if place >= len(watcher.stories):
                watcher.stories.extend([0] * (place + 1 - len(watcher.stories)))
            before = watcher.stories[place]
            watcher.stories[place] = self._stories.after(before, event.status)
            if event.status == "pending" and before:
                continue  # it is back in the queue: nobody's word of now
            key = (event.job_id, event.status)
            if (origin_us := self._origins.get(key)) is not None:
                late.append(at_us - origin_us)
            elif event.status in ("pending", "completed", "failed"):
                self._early.setdefault(key, []).append(at_us)
        self._note_job_latencies(late)

    def _note_job_latencies(self, late_us: list[int]) -> None:
        if late_us and self._measures:
            values = np.array(late_us, dtype=np.int64)
            self._job_latency.record(values)
            self._late_in_second.record(values)


def compared(stories: Mapping[str, list[str]], told: Mapping[str, list[str]]) -> Tally:
    """What one watcher was told of jobs, beside what others were."""
    tally = Tally()
    for job_id, story in stories.items():
        mine = told.get(job_id, [])
        tally.received += len(mine)
        missing, more = Counter(story) - Counter(mine), Counter(mine) - Counter(story)
        tally.lost += missing.total()
        tally.duplicated += more.total()
        tally.reordered += not missing and not more and mine != story
    return tally


def latencies(encoded: Sequence[bytes]) -> Latencies:
    """All in one."""
    merged = Latencies()
    for each in encoded:
        merged.add(Latencies(each))
    return merged
