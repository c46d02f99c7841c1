"""The wire: what robots say to a door and a door to robots, and what doors say to the rooms.

Times are milliseconds (`_ms`), cpu in percent, memory in MB. Numbers are finite: JSON has no others.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from fleet.job import Job, JobEvent, JobStatus
from fleet.robot import Robot
from fleet.wall_time import WallTime

# In a Python pattern `$` would let a final newline in. No id begins with a dot: in a path `..` is a step.
Id = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_:-][A-Za-z0-9_.:-]*\Z")]
Label = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+\Z")]
Text = Annotated[str, Meta(max_length=1_000)]
Cpu = Annotated[float, Meta(ge=0, le=100_000)]
Memory = Annotated[float, Meta(ge=0, le=1e9)]
Depth = Annotated[int, Meta(ge=0, le=2**53)]
Capabilities = Annotated[list[Label], Meta(max_length=64)]
Token = Annotated[int, Meta(ge=0, le=2**53)]
RequestId = Annotated[str, Meta(min_length=1, max_length=64)]
ReportedStatus = Literal["idle", "busy", "error"]
LATE_ADMISSION = "late_admission"  # the code of a claim whose robot must be admitted anew


class JobSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):  # not kw_only: see Job
    """A job as it is submitted."""

    name: Annotated[str, Meta(min_length=1, max_length=255)]
    payload: dict[str, Any] = {}
    priority: Annotated[int, Meta(ge=0, le=20)] = 10
    environment: Label | None = None
    required_capabilities: Capabilities = []
    not_before: WallTime | None = None
    max_attempts: Annotated[int, Meta(ge=1, le=1_000)] = 3
    timeout_s: Annotated[float, Meta(gt=0, le=31_536_000)] | None = None
    pending_timeout_s: Annotated[float, Meta(gt=0, le=31_536_000)] | None = None


class RobotTraits(msgspec.Struct, frozen=True, kw_only=True):
    """What a robot says of itself."""

    name: Annotated[str, Meta(max_length=255)] = ""
    hostname: Annotated[str, Meta(max_length=255)] = ""
    environment: Label = "development"
    capabilities: Capabilities = []
    tags: Capabilities = []
    max_concurrent_jobs: Annotated[int, Meta(ge=1, le=100)] = 1


class RobotSpec(RobotTraits, frozen=True, kw_only=True):
    """A robot as it registers."""

    robot_id: Id


class JobToken(msgspec.Struct, frozen=True):
    job_id: Id
    token: Token


class Once(msgspec.Struct, frozen=True, kw_only=True):
    """A command that must not be carried out twice. Its sender makes `request_id`; the fleet's client does
    so for every command that has none."""

    request_id: str = ""


class Keyed(Once, frozen=True, kw_only=True):
    """A command whose `request_id` may be of a client's own making, for as long as `idempotency_s`:
    `fingerprint` then tells one request from another under the same id."""

    fingerprint: str = ""


# -- from doors to the job store: each is idempotent on an id that its sender made


class Submit(Keyed, frozen=True):
    """New jobs under ids that the door made. All or nothing. Without a `request_id` the first of the ids
    tells that it is repeated."""

    job_ids: list[str]
    specs: list[JobSpec]
    retry_of: str | None = None


class Get(msgspec.Struct, frozen=True):
    job_id: str


class Retry(Keyed, frozen=True):
    """A new job like `job_id`, under an id that the door made. Repeated as Submit is."""

    job_id: str
    new_job_id: str


class Cancel(Once, frozen=True):
    job_id: str


class Report(msgspec.Struct, frozen=True):
    """What a robot says about a job that it holds; `event` is start, progress, complete, fail,
    release or cancelled."""

    event: JobEvent
    job_id: str
    robot_id: str
    token: int
    result: Any = None
    error: str | None = None
    retryable: bool = True
    progress: float | None = None
    current_node: str | None = None
    message: str | None = None


class Announce(msgspec.Struct, frozen=True):
    """An event of live-jobs that somebody else's job made: journaled, and no job of ours changes."""

    announcement_id: str
    job_id: str
    status: JobStatus


class AnnounceDepth(Once, frozen=True):
    """An event of queue-metrics that somebody else's queue made; the depth of ours does not change."""

    depth: int


class Held(msgspec.Struct, frozen=True):
    """Asks for the ids of the jobs that a robot holds."""

    robot_id: str


class EndClaim(msgspec.Struct, frozen=True):
    """The robot was drained, set aside or deleted: its claim ends with no job if it was admitted before
    `admission`, whether it is parked or still on its way."""

    robot_id: str
    admission: int


class Beats(msgspec.Struct, frozen=True):
    """The jobs that a robot says it is working on. `lease_ms` is how long the registry gives it now; of each
    job it does not shorten the lease that was told in the grant."""

    robot_id: str
    jobs: list[JobToken]
    lease_ms: int = 0


class Claim(msgspec.Struct, frozen=True):
    """A robot asks for work. What the registry knows of it rides along (the door put it there)."""

    door: str
    robot_id: str
    request_id: str
    limit: int
    wait_ms: int
    capabilities: list[str]
    environment: str
    max_concurrent_jobs: int
    call: int = 0
    lease_ms: int = 0
    admission: int = 0


class Withdraw(msgspec.Struct, frozen=True):
    """Ends a parked claim. `call` is that claim's: a later one with the same request id stays."""

    door: str
    robot_id: str
    call: int


class GiveBack(msgspec.Struct, frozen=True):
    """What was granted to claims of this door up to `call`, and never told the robot, goes back to the queue;
    not if the robot asked again since, under the same request id, and was told."""

    door: str
    robot_id: str
    call: int
    job_id: str
    token: int


Command = (
    Submit
    | Retry
    | Get
    | Held
    | Cancel
    | Report
    | Announce
    | AnnounceDepth
    | EndClaim
    | Beats
    | Claim
    | Withdraw
    | GiveBack
)


class Granted(msgspec.Struct, frozen=True):
    """A job handed to a robot, under a lease that heartbeats extend. `token` fences: it is higher
    with every grant of the job, and only the newest is believed."""

    job: Job
    token: int
    lease_ms: int


class Answer(msgspec.Struct, frozen=True):
    """The end of a claim: the jobs granted, none if nothing fitted in time."""

    robot_id: str
    request_id: str
    grants: list[Granted]


class Parked(msgspec.Struct, frozen=True):
    """The claim waits; its Answer comes by the door's `grants` poll."""

    request_id: str


class Outbox(msgspec.Struct, frozen=True):
    """A page of a door's answers; poll again with `epoch` and `cursor`. `cancels` are (robot, job) pairs.
    Another epoch than before means that the store lost sight of the door, and with it the door's claims."""

    epoch: int
    cursor: int
    answers: list[Answer]
    cancels: list[tuple[str, str]]


class Cancelled(msgspec.Struct, frozen=True):
    job_id: str
    cancelled: bool
    previous_status: str
    message: str


class Refusal(msgspec.Struct, frozen=True):
    """One command of a batch failed; the others did not. `kind` names the error class."""

    kind: str
    detail: str
    code: str
    retry_after_s: float | None = None


# -- from doors to the registry


class Beat(msgspec.Struct, frozen=True):
    robot_id: str
    status: str = "idle"
    cpu_percent: float = 0.0
    memory_mb: float = 0.0
    job_ids: list[str] = []
    session: str = ""


class BeatReply(msgspec.Struct, frozen=True):
    """`refused` is "" or a code: not_found, superseded. `lease_ms` is for the jobs that the beat names."""

    next_heartbeat_ms: int = 0
    drain: bool = False
    refused: str = ""
    lease_ms: int = 0


class Opened(msgspec.Struct, frozen=True):
    """`registered`: whether the robot is, from before."""

    heartbeat_ms: int
    registered: bool = False


class Admitted(msgspec.Struct, frozen=True):
    """What the job store must know of a robot to serve its claim. `admission` is higher than that of any
    claim that was ended (EndClaim) before this one was admitted."""

    capabilities: list[str]
    environment: str
    max_concurrent_jobs: int
    lease_ms: int
    admission: int


class RobotCounts(msgspec.Struct, frozen=True):
    total: int = 0
    active: int = 0
    idle: int = 0
    busy: int = 0
    offline: int = 0


class JobCounts(msgspec.Struct, frozen=True):
    pending: int = 0
    running: int = 0
    completed_today: int = 0
    failed_today: int = 0
    depth: int = 0
    avg_wait_time_ms: int = 0
    up_s: int = 0
    stuck: int = 0


# -- the robot socket, robot to server


class FromRobot(msgspec.Struct, frozen=True, tag_field="type", kw_only=True):
    id: str | int | None = None


class Register(FromRobot, frozen=True, kw_only=True, tag="register"):
    name: Annotated[str, Meta(max_length=255)] = ""
    hostname: Annotated[str, Meta(max_length=255)] = ""
    environment: Label = "development"
    capabilities: Capabilities = []
    tags: Capabilities = []
    max_concurrent_jobs: Annotated[int, Meta(ge=1, le=100)] = 1


class Heartbeat(FromRobot, frozen=True, kw_only=True, tag="heartbeat"):
    status: ReportedStatus = "idle"
    cpu_percent: Cpu = 0.0
    memory_mb: Memory = 0.0
    jobs: Annotated[list[JobToken], Meta(max_length=100)] = []


class ClaimJobs(FromRobot, frozen=True, kw_only=True, tag="claim"):
    limit: Annotated[int, Meta(ge=1, le=10)] = 1
    wait_ms: Annotated[int, Meta(ge=0, le=30_000)] = 0
    request_id: RequestId


class Start(FromRobot, frozen=True, kw_only=True, tag="start"):
    job_id: Id
    token: Token


class Progress(FromRobot, frozen=True, kw_only=True, tag="progress"):
    job_id: Id
    token: Token
    progress: Annotated[float, Meta(ge=0, le=100)]
    current_node: Text | None = None
    message: Text | None = None


class Complete(FromRobot, frozen=True, kw_only=True, tag="complete"):
    job_id: Id
    token: Token
    result: Any = None


class Fail(FromRobot, frozen=True, kw_only=True, tag="fail"):
    job_id: Id
    token: Token
    error: Annotated[str, Meta(max_length=10_000)] = ""
    retryable: bool = True


class Release(FromRobot, frozen=True, kw_only=True, tag="release"):
    job_id: Id
    token: Token


class Obeyed(FromRobot, frozen=True, kw_only=True, tag="cancelled"):
    job_id: Id
    token: Token


RobotMessage = Register | Heartbeat | ClaimJobs | Start | Progress | Complete | Fail | Release | Obeyed
decode_robot_message = msgspec.json.Decoder(RobotMessage).decode

# -- the robot socket, server to robot


class ToRobot(msgspec.Struct, frozen=True, tag_field="type", kw_only=True):
    pass


class Welcome(ToRobot, frozen=True, kw_only=True, tag="welcome"):
    """First of all, and again whenever the interval is another."""

    heartbeat_ms: int


class GrantedJob(Job, frozen=True, kw_only=True):
    token: int
    lease_ms: int


class Ack(ToRobot, frozen=True, kw_only=True, tag="ack", omit_defaults=True):
    id: str | int
    jobs: list[GrantedJob] | None = None


class Error(ToRobot, frozen=True, kw_only=True, tag="error"):
    id: str | int | None = None
    code: str
    detail: str


class CancelJob(ToRobot, frozen=True, kw_only=True, tag="cancel"):
    job_id: str


class Drain(ToRobot, frozen=True, kw_only=True, tag="drain"):
    pass


class Resume(ToRobot, frozen=True, kw_only=True, tag="resume"):
    """The drain is over: claim again."""


ServerMessage = Welcome | Ack | Error | CancelJob | Drain | Resume
decode_server_message = msgspec.json.Decoder(ServerMessage).decode


def granted_job(grant: Granted) -> GrantedJob:
    fields = {name: getattr(grant.job, name) for name in Job.__struct_fields__}
    return GrantedJob(**fields, token=grant.token, lease_ms=grant.lease_ms)


# -- from doors to the registry, in batches


class OpenSession(msgspec.Struct, frozen=True):
    robot_id: str
    session: str


class CloseSession(msgspec.Struct, frozen=True):
    robot_id: str
    session: str


class RegisterRobot(msgspec.Struct, frozen=True):
    spec: RobotSpec
    session: str = ""


class AdmitClaim(msgspec.Struct, frozen=True):
    robot_id: str


class UpdateRobot(Once, frozen=True):
    """Replaces what a known robot says of itself."""

    spec: RobotSpec


class SetRobotStatus(Once, frozen=True):
    """None leaves as it is. `note` and `until` (RFC 3339) belong to what is entered."""

    robot_id: str
    maintenance: bool | None = None
    draining: bool | None = None
    note: str = ""
    until: WallTime | None = None


class StatusSet(msgspec.Struct, frozen=True):
    """Claims admitted before `admission` must not be served if the robot gets no more jobs: EndClaim."""

    robot: Robot
    admission: int


class BeginDeletion(Once, frozen=True):
    """From now on no claim of the robot is admitted, until it is deleted, the deletion is given up, or
    `deletion_ms` have passed. The reply is an admission: claims of before it must be ended."""

    robot_id: str


class GiveUpDeletion(Once, frozen=True):
    robot_id: str


class DeleteRobot(Once, frozen=True):
    """Ends the deletion that the reply to BeginDeletion began."""

    robot_id: str
    admission: int


class GetRobot(msgspec.Struct, frozen=True):
    robot_id: str


class IssueKey(msgspec.Struct, frozen=True):
    """A robot API key whose id and secret the door made; only the secret's hash travels."""

    key_id: str
    robot_id: str
    name: str
    digest: str
    ttl_s: float | None = None


class RotateKey(msgspec.Struct, frozen=True):
    """A new key in the place of `key_id`, which stays good for `grace_s`; `ttl_s` None: as long as the old
    one was issued for."""

    key_id: str
    new_id: str
    digest: str
    ttl_s: float | None = None
    grace_s: float = 0.0


class RevokeKey(msgspec.Struct, frozen=True):
    key_id: str


class AnnounceRobot(Once, frozen=True):
    """An event of robot-status that somebody else's robot made; no robot of ours changes."""

    robot_id: str
    status: str
    cpu_percent: float
    memory_mb: float


RegistryCommand = (
    OpenSession
    | CloseSession
    | RegisterRobot
    | UpdateRobot
    | AdmitClaim
    | SetRobotStatus
    | BeginDeletion
    | GiveUpDeletion
    | DeleteRobot
    | GetRobot
    | IssueKey
    | RotateKey
    | RevokeKey
    | AnnounceRobot
)


class HeartbeatAnswer(msgspec.Struct, frozen=True):
    """Registry and job store together. `cancel` lists the jobs that the robot must stop."""

    next_heartbeat_ms: int
    drain: bool
    cancel: list[str]
    refused: str = ""
