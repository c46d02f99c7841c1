"""The load of the job benchmark: a producer that submits lists over HTTP, and robots that claim, start and
complete over their sockets, each step after the one before it was acknowledged."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from multiprocessing.connection import Connection

import httpx
import msgspec
import uvloop
from processes import RoundFailed, heard
from raw_websocket import TextSocket

LIST = 500  # jobs a submission
ENOUGH = 2_000  # jobs in the queue, above which the producer waits
LISTS_PER_S = 20.0  # of a producer that keeps a pace
BEAT_S = 5.0
PATIENCE_S = 60.0
PAGE = 500

REGISTER = b'{"type":"register","id":"r","max_concurrent_jobs":%d}'
CLAIM = b'{"type":"claim","id":"c","request_id":"%d","limit":%d,"wait_ms":30000}'
START = b'{"type":"start","id":%d,"job_id":"%s","token":%d}'
COMPLETE = b'{"type":"complete","id":%d,"job_id":"%s","token":%d}'
BEAT = b'{"type":"heartbeat","status":"busy","jobs":%s}'


class Order(msgspec.Struct, frozen=True):
    """`slots` jobs a robot; `per_s` jobs a second, 0: as many as the robots do."""

    robots: int
    slots: int
    warm_up_s: float
    seconds: float
    per_s: float = 0.0


class Seen(msgspec.Struct, frozen=True):
    """Within the seconds of the order. A latency is from when a job was due to be submitted until a robot
    had it."""

    per_s: float
    p50_ms: float
    p99_ms: float


class Server(msgspec.Struct, frozen=True):
    port: int
    token: str


class Held(msgspec.Struct):
    job_id: str
    token: int
    name: str


class Heard(msgspec.Struct):
    type: str
    id: str | int | None = None
    jobs: list[Held] = []
    detail: str = ""


class Listed(msgspec.Struct):
    job_id: str
    status: str
    attempt: int


class Page(msgspec.Struct):
    jobs: list[Listed]
    next_cursor: str | None = None


_heard = msgspec.json.Decoder(Heard).decode
_page = msgspec.json.Decoder(Page).decode


class Ledger:
    """What became of every job."""

    def __init__(self) -> None:
        self.submitted: set[str] = set()
        self.granted: set[str] = set()
        self.completed: set[str] = set()
        self.latencies_ms: list[float] = []
        self.failure = ""

    def grant(self, job: Held) -> None:
        if job.job_id in self.granted:
            self.failure = f"{job.job_id} was granted twice"
        self.granted.add(job.job_id)
        self.latencies_ms.append((time.monotonic_ns() - int(job.name)) / 1e6)

    def check(self) -> None:
        if self.failure:
            raise RoundFailed(self.failure)


class Robot(TextSocket):
    """Claims as many jobs as it has slots, works at them at once, and claims again when all are done."""

    def __init__(self, path: str, opened: asyncio.Future[None], ledger: Ledger, slots: int) -> None:
        super().__init__(path, opened)
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ledger = ledger
        self._slots = slots
        self._held: list[Held] = []
        self._left = 0
        self._claims = time.monotonic_ns()  # no other robot's, and no earlier one's

    def begin(self) -> None:
        self.say(REGISTER % self._slots)
        self.flush()

    def beat(self) -> None:
        jobs = [{"job_id": job.job_id, "token": job.token} for job in self._held]
        self.say(BEAT % msgspec.json.encode(jobs))
        self.flush()

    def on_text(self, data: bytes) -> None:
        message = _heard(data)
        if message.type == "error":
            self._ledger.failure = message.detail
        elif message.type == "ack" and isinstance(message.id, int):
            self._acknowledged(*divmod(message.id, 2))
        elif message.type == "ack" and message.id == "c" and message.jobs:
            self._granted(message.jobs)
        elif message.type == "ack":
            self._claim()

    def _claim(self) -> None:
        self._held = []
        self._claims += 1
        self.say(CLAIM % (self._claims, min(self._slots, 10)))

    def _granted(self, jobs: list[Held]) -> None:
        self._held, self._left = jobs, len(jobs)
        for index, job in enumerate(jobs):
            self._ledger.grant(job)
            self.say(START % (2 * index, job.job_id.encode(), job.token))

    def _acknowledged(self, index: int, step: int) -> None:
        job = self._held[index]
        if step == 0:
            self.say(COMPLETE % (2 * index + 1, job.job_id.encode(), job.token))
            return
        self._ledger.completed.add(job.job_id)
        self._left -= 1
        if self._left == 0:
            self._claim()

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        if not self.ended.done():
            self.ended.set_result(None)


class Load:
    def __init__(self, server: Server, order: Order) -> None:
        self._server = server
        self._order = order
        self._ledger = Ledger()
        self._robots: list[Robot] = []
        self._submissions: set[asyncio.Task[None]] = set()
        self._http = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{server.port}/api/v1",
            headers={"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"},
            timeout=PATIENCE_S,
        )

    async def run(self) -> Seen:
        """Raises RoundFailed if a job was lost, done twice or refused."""
        await self._connect()
        source = self._paced() if self._order.per_s else self._fed()
        tasks = [asyncio.create_task(source), asyncio.create_task(self._beat())]
        await asyncio.sleep(self._order.warm_up_s)
        seen = await self._measure()
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, *self._submissions, return_exceptions=True):
            if isinstance(ended, Exception):
                raise RoundFailed(f"the load failed: {ended!r}")
        await self._finish()
        await self._check_store()
        await self._leave()
        return seen

    async def _connect(self) -> None:
        ledger, slots, token = self._ledger, self._order.slots, self._server.token
        for number in range(self._order.robots):
            path = f"/api/v1/ws/robot/bench-{number}?token={token}"
            self._robots.append(await Robot.connect(self._server.port, path, ledger, slots))
        for robot in self._robots:
            robot.begin()

    async def _measure(self) -> Seen:
        ledger = self._ledger
        ledger.latencies_ms.clear()
        before, start_s = len(ledger.completed), time.monotonic()
        await asyncio.sleep(self._order.seconds)
        done, took_s = len(ledger.completed) - before, time.monotonic() - start_s
        ledger.check()
        if not done:
            raise RoundFailed("no job was done")
        latencies_ms = sorted(ledger.latencies_ms)
        p50, p99 = (latencies_ms[int(len(latencies_ms) * share)] for share in (0.5, 0.99))
        return Seen(done / took_s, p50, p99)

    # -- where jobs come from

    async def _fed(self) -> None:
        """Keeps the queue from running dry, and short."""
        ledger = self._ledger
        while True:
            if len(ledger.submitted) - len(ledger.granted) < ENOUGH:
                task = self._submit(LIST, time.monotonic_ns())
                await asyncio.shield(task)
            else:
                await asyncio.sleep(0.002)

    async def _paced(self) -> None:
        start_ns, sent = time.monotonic_ns(), 0
        for number in range(1_000_000_000):
            due_ns = start_ns + int(number / LISTS_PER_S * 1e9)
            await asyncio.sleep(max(0.0, (due_ns - time.monotonic_ns()) / 1e9))
            count = int((number + 1) * self._order.per_s / LISTS_PER_S) - sent
            sent += count
            self._submit(count, due_ns)

    def _submit(self, count: int, due_ns: int) -> asyncio.Task[None]:
        """What was sent is waited for, also at the end."""
        task = asyncio.get_running_loop().create_task(self._send(count, due_ns))
        self._submissions.add(task)
        task.add_done_callback(self._submissions.discard)
        return task

    async def _send(self, count: int, due_ns: int) -> None:
        body = b"[" + b",".join([b'{"name":"%d"}' % due_ns] * count) + b"]"
        answer = await self._http.post("/jobs", content=body)
        if answer.status_code != 201:
            self._ledger.failure = f"a submission was refused: {answer.status_code} {answer.text[:200]}"
            return
        self._ledger.submitted.update(job.job_id for job in _page(answer.content).jobs)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            for robot in self._robots:
                robot.beat()

    # -- what became of them

    async def _finish(self) -> None:
        ledger, until_s = self._ledger, time.monotonic() + PATIENCE_S
        while len(ledger.completed) < len(ledger.submitted):
            ledger.check()
            if time.monotonic() > until_s:
                lost = len(ledger.submitted) - len(ledger.completed)
                raise RoundFailed(f"{lost} of {len(ledger.submitted)} jobs were not done")
            await asyncio.sleep(0.05)
        ledger.check()
        if ledger.completed != ledger.submitted:
            raise RoundFailed("robots were given jobs that nobody submitted")

    async def _check_store(self) -> None:
        """The server says the same: every job completed, by its first attempt."""
        found: set[str] = set()
        cursor = ""
        while not found.issuperset(self._ledger.submitted):
            query = {"status": "completed", "limit": str(PAGE)} | ({"cursor": cursor} if cursor else {})
            page = _page((await self._http.get("/jobs", params=query)).content)
            found.update(job.job_id for job in page.jobs if job.attempt == 1)
            if page.next_cursor is None and not found.issuperset(self._ledger.submitted):
                raise RoundFailed(
                    f"{len(self._ledger.submitted - found)} jobs are not completed, or not once"
                )
            cursor = page.next_cursor or ""

    async def _leave(self) -> None:
        for robot in self._robots:
            robot.transport.abort()
        await asyncio.gather(*(robot.ended for robot in self._robots))
        await self._http.aclose()


def run_load(server: Server, pipe: Connection) -> None:
    """The process: obeys orders, one after another."""

    async def run() -> None:
        with suppress(EOFError, ConnectionError):
            while True:
                order: Order = await heard(pipe)
                try:
                    pipe.send(await Load(server, order).run())
                except RoundFailed as failure:
                    pipe.send(failure)

    with suppress(KeyboardInterrupt):
        uvloop.run(run())
