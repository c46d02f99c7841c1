"""Which jobs a command is about, before it is carried out."""

from __future__ import annotations

from collections.abc import Iterable

from fleet.dead_letters import Redrive
from fleet.kept_replies import KeptReplies
from fleet.known_ids import KnownIds
from fleet.messages import Cancel, Command, Get, Keyed, Report, Retry, Submit


def named_jobs(commands: Iterable[Command | Redrive], submitted: KnownIds, replies: KeptReplies) -> set[str]:
    """Those that they name, and those that repeated ones made when they came first."""
    named: set[str] = set()
    for command in commands:
        if isinstance(command, Get | Retry | Cancel | Report):
            named.add(command.job_id)
        if isinstance(command, Submit):
            named.update(_made_by(command, command.job_ids, submitted, replies))
        elif isinstance(command, Retry):
            named.update(_made_by(command, [command.new_job_id], submitted, replies))
    return named


def _made_by(command: Keyed, job_ids: list[str], submitted: KnownIds, replies: KeptReplies) -> list[str]:
    return job_ids if job_ids and job_ids[0] in submitted else replies.job_ids(command)
