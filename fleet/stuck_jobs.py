"""Jobs that are green but stuck: their robot is alive, and they do not get on."""

from __future__ import annotations

from fleet.job import Job
from fleet.job_entry import JobEntry
from fleet.job_record import JobFilter


class StuckJobs:
    """Those that live and are marked so."""

    def __init__(self) -> None:
        self._entries: dict[str, JobEntry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def note(self, entry: JobEntry) -> None:
        """After any change of the job."""
        if entry.job.stuck:
            self._entries[entry.job.job_id] = entry
        else:
            self._entries.pop(entry.job.job_id, None)

    def page(self, wanted: JobFilter, before: int, limit: int, max_bytes: int) -> tuple[list[Job], int]:
        """Newest first, from below submission number `before` (0: from the newest), as pages of all jobs."""
        entries = sorted(self._entries.values(), key=lambda entry: -entry.seq)
        found = [e for e in entries if (not before or e.seq < before) and wanted.admits(e.job)]
        page: list[JobEntry] = []
        size = 0
        for entry in found[:limit]:
            page.append(entry)
            size += entry.size_bytes
            if size >= max_bytes:
                break
        return [entry.job for entry in page], page[-1].seq if len(page) < len(found) else 0
