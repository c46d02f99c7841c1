"""What may befall the files of a store: it refuses to start and says why, or all acknowledged is there."""

from __future__ import annotations

import shlex
import shutil
import sqlite3
import struct
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace
from stores.kept import LIMITS, Kept, files_of, put_back, sqlite_tables

from actors.database import StoreRefused
from fleet.errors import FleetError
from fleet.job import JobEvent

FILE, WAL, MARK = "jobs.sqlite3", "jobs.sqlite3-wal", "jobs.mark"
FRAME = 4_096 + 24
Files = dict[str, bytes]


class Image:
    """A folder as a crash left it, with the newest four commits in the log only; `all` is what was
    acknowledged, `less` what was without the last commit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        kept = Kept(lambda: sqlite_tables(folder))
        kept.finish(30, result="x" * 50)
        kept.submit(30, payload={"what": "y" * 50})
        kept.reopen()  # copies the log into the file
        [grant] = kept.claim()
        kept.report(grant, JobEvent.START)
        self.less, self.files_less = kept.everything(), files_of(folder)
        kept.submit(1)
        self.all, self.files = kept.everything(), files_of(folder)
        self.commits = int.from_bytes(self.files[MARK][:8], "little")
        kept.close()

    def opened(self, files: Files) -> Any:
        """What a start finds in these files. Raises StoreRefused."""
        put_back(self.folder, files)
        kept = Kept(lambda: sqlite_tables(self.folder))
        try:
            return kept.everything()
        finally:
            kept.close()

    def refusal(self, files: Files) -> str:
        """One line, which names the file."""
        with pytest.raises(StoreRefused) as refused:
            self.opened(files)
        text = str(refused.value)
        assert str(self.folder / FILE) in text
        assert "\n" not in text
        return text


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return Image(tmp_path_factory.mktemp("image") / "store")


def cut(data: bytes, length: int) -> bytes:
    return data[:length]


def flipped(data: bytes, place: int, bit: int = 0) -> bytes:
    changed = bytes([data[place] ^ 1 << bit])
    return data[:place] + changed + data[place + 1 :]


def test_after_a_crash_all_that_was_acknowledged_is_there(image: Image) -> None:
    assert image.opened(image.files) == image.all
    assert image.opened(image.files_less) == image.less


# -- the file


@pytest.mark.parametrize("length", [1, 100, 4_095, 4_096, 12_288, 20_000])
def test_a_truncated_file_is_refused(image: Image, length: int) -> None:
    text = image.refusal(image.files | {FILE: cut(image.files[FILE], length)})
    assert "restore it from a" in text


@pytest.mark.parametrize("change", ["emptied", "gone"])
def test_a_file_that_is_empty_or_gone_is_refused_while_its_mark_tells_of_commits(
    image: Image, change: str
) -> None:
    files = image.files | {FILE: b""}
    if change == "gone":
        del files[FILE]
    assert "is empty or gone, and was not" in image.refusal(files)
    assert (image.folder / FILE).exists() == (change == "emptied")


def test_a_file_of_something_else_is_refused_and_untouched(image: Image, tmp_path: Path) -> None:
    for data in (b"not a database at all\n" * 300, image.files[FILE][::-1]):
        assert "not a database" in image.refusal({FILE: data})
        assert (image.folder / FILE).read_bytes() == data


def test_a_database_of_something_else_is_refused_and_untouched(image: Image, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "other")
    connection.execute("CREATE TABLE fleetcast_jobs (mine TEXT)")
    connection.commit()
    connection.close()
    data = (tmp_path / "other").read_bytes()
    assert "a database of something else" in image.refusal({FILE: data})
    assert (image.folder / FILE).read_bytes() == data


def test_a_record_that_was_changed_behind_our_back_is_refused(image: Image) -> None:
    for old, new in ((b'"priority":10', b'"priority":11'), (b"y" * 50, b"y" * 49 + b"z")):
        changed = image.files[FILE].replace(old, new)
        assert changed != image.files[FILE]
        assert "is damaged: job number" in image.refusal(image.files | {FILE: changed})


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE fleetcast_jobs SET robot_id = 'thief' WHERE finished_ns IS NULL",
        "UPDATE fleetcast_jobs SET finished_ns = 1 WHERE finished_ns IS NULL AND seq = 40",
        "UPDATE fleetcast_jobs SET finished_ns = NULL WHERE seq = 1",
        "DELETE FROM fleetcast_jobs WHERE seq = 40",
        "UPDATE fleetcast_payloads SET payload = '{}'",
        "UPDATE fleetcast_payloads SET payload = x'7b7d'",
        "UPDATE fleetcast_writers SET version = 0",
        "UPDATE fleetcast_writers SET counters = '{}'",
        "UPDATE fleetcast_writers SET epoch = epoch + 1",
        "UPDATE fleetcast_openings SET number = 'many'",
    ],
)
def test_a_row_that_does_not_fit_the_others_is_refused(image: Image, sql: str) -> None:
    put_back(image.folder, image.files)
    connection = sqlite3.connect(image.folder / FILE)
    connection.execute(sql)
    connection.commit()
    connection.close()
    assert "is damaged: " in image.refusal(files_of(image.folder))


def test_an_event_that_was_changed_is_not_told(image: Image) -> None:
    put_back(image.folder, image.files)
    connection = sqlite3.connect(image.folder / FILE)
    connection.execute(
        "UPDATE fleetcast_events SET event = CAST(replace(event, 'completed', 'cancelled') AS BLOB)"
    )
    connection.commit()
    connection.close()
    with pytest.raises(StoreRefused, match="event number"):  # among those that the feed begins with
        Kept(lambda: sqlite_tables(image.folder))
    short = replace(LIMITS, feed_events=10, max_batch=10)
    kept = Kept(lambda: sqlite_tables(image.folder, short), short)
    with pytest.raises(FleetError, match="event number"):
        kept.tables.history("j1")
    kept.close()


@pytest.mark.parametrize("seed", range(4))
def test_a_bit_that_flips_anywhere_is_refused_or_changes_nothing(image: Image, seed: int) -> None:
    """What is to be done is checked at the start; what is finished when it is read."""
    dice = Random(seed)
    size = len(image.files[FILE])
    for _ in range(25):
        place, bit = dice.randrange(size), dice.randrange(8)
        try:
            found = image.opened(image.files | {FILE: flipped(image.files[FILE], place, bit)})
        except FleetError:
            continue
        live = [record for record in found[2] if record.job.finished_at is None]
        assert live == [record for record in image.all[2] if record.job.finished_at is None], (place, bit)
        assert set(map(repr, found[2])) <= set(map(repr, image.all[2])), (place, bit)


# -- the log


def test_a_log_that_is_gone_or_empty_is_refused(image: Image) -> None:
    without = {name: data for name, data in image.files.items() if name != WAL}
    for files in (without, image.files | {WAL: b""}):
        text = image.refusal(files)
        assert f"lost 4 of {image.commits} commits that were acknowledged" in text
        assert "delete its .mark file" in text


@pytest.mark.parametrize("missing", [1, 100, 4_096, FRAME, 2 * FRAME])
def test_a_log_whose_acknowledged_end_is_torn_is_refused(image: Image, missing: int) -> None:
    text = image.refusal(image.files | {WAL: cut(image.files[WAL], -missing)})
    assert f"lost 1 of {image.commits} commits" in text


@pytest.mark.parametrize("bytes_left", [0, 1, 24, 4_000, FRAME + 7])
def test_what_was_being_written_and_never_acknowledged_is_dropped(image: Image, bytes_left: int) -> None:
    """The last commit, cut in its second frame at the latest, with the mark from before it."""
    begun = len(image.files_less[WAL]) + bytes_left
    torn = image.files | {WAL: cut(image.files[WAL], begun), MARK: image.files_less[MARK]}
    assert image.opened(torn) == image.less


def test_a_commit_that_was_written_and_not_acknowledged_counts(image: Image) -> None:
    assert image.opened(image.files | {MARK: image.files_less[MARK]}) == image.all


def test_rubbish_behind_the_log_is_no_part_of_it(image: Image) -> None:
    assert image.opened(image.files | {WAL: image.files[WAL] + bytes(range(256)) * 20}) == image.all


def test_a_log_with_a_flipped_bit_is_refused_and_kept_for_who_can_mend_it(image: Image) -> None:
    for place in range(40, len(image.files[WAL]), 2 * FRAME):
        broken = image.files | {WAL: flipped(image.files[WAL], place)}
        assert "commits that were acknowledged" in image.refusal(broken)
        mended = files_of(image.folder)
        mended[WAL] = flipped(mended[WAL], place)
        assert image.opened(mended) == image.all


def test_a_log_of_another_time_is_not_taken_for_this_one(image: Image) -> None:
    salt = struct.unpack(">I", image.files[WAL][16:20])[0] ^ 0xFFFF
    other = image.files[WAL][:16] + struct.pack(">I", salt) + image.files[WAL][20:]
    image.refusal(image.files | {WAL: other})


def test_what_a_crash_left_in_the_log_is_written_anew_at_the_start(image: Image) -> None:
    """The system may have dropped pages whose sync failed, and show them all the same."""
    put_back(image.folder, image.files)
    kept = Kept(lambda: sqlite_tables(image.folder))
    kept.submit()
    assert len(files_of(image.folder)[WAL]) < len(image.files[WAL])
    without = {name: data for name, data in files_of(image.folder).items() if name not in (WAL, MARK)}
    kept.close()
    assert image.opened(without)[0] == image.all[0]


def test_a_store_that_was_closed_is_one_file(image: Image) -> None:
    image.opened(image.files)
    assert not files_of(image.folder).get(WAL)
    alone = {FILE: (image.folder / FILE).read_bytes()}
    assert image.opened(alone) == image.all


# -- the mark


@pytest.mark.parametrize("mark", [None, b"", b"rubbish", b"rubbish of its length"[:12]])
def test_without_a_mark_what_is_there_counts_and_the_mark_is_made_anew(
    image: Image, mark: bytes | None
) -> None:
    files = {name: data for name, data in image.files.items() if name != MARK}
    assert image.opened(files if mark is None else files | {MARK: mark}) == image.all
    marked = (image.folder / MARK).read_bytes()
    assert "empty or gone" in image.refusal({MARK: marked})


# -- the folder


def refused(folder: Path) -> str:
    with pytest.raises(StoreRefused) as refusal:
        sqlite_tables(folder).open(0)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    assert "the folder must exist" in refused(tmp_path / "nowhere")


@pytest.mark.parametrize("name", [FILE, MARK, "jobs.lock"])
def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    assert str(tmp_path / FILE) in refused(tmp_path)


def test_the_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    kept = Kept(lambda: sqlite_tables(tmp_path))
    kept.submit()
    assert {path.name: path.stat().st_mode & 0o077 for path in tmp_path.iterdir()} == dict.fromkeys(
        (path.name for path in tmp_path.iterdir()), 0
    )
    kept.close()


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "50% of é?mode=memory#x;'"
    folder.mkdir()
    kept = Kept(lambda: sqlite_tables(folder))
    kept.submit()
    kept.reopen()
    assert len(kept.rest.records) == 1
    kept.close()


# -- copies


def backup_of(source: Path, target: Path) -> None:
    """By the command of the page on operations."""
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    [command] = [line for line in page.splitlines() if line.startswith("    python3 -c")]
    python, dash_c, code, *_ = shlex.split(command)
    assert (python, dash_c) == ("python3", "-c")
    subprocess.run([sys.executable, "-c", code, source, target], check=True)


def test_a_backup_while_running_has_all_that_was_acknowledged(tmp_path: Path) -> None:
    folder, other = tmp_path / "store", tmp_path / "restored"
    folder.mkdir()
    other.mkdir()
    kept = Kept(lambda: sqlite_tables(folder))
    kept.finish(3)
    before = kept.everything()
    backup_of(folder / FILE, other / FILE)
    kept.submit(2)
    kept.close()
    restored = Kept(lambda: sqlite_tables(other))
    assert restored.everything() == before
    assert list(restored.opening.former) == [*kept.opening.former, kept.opening.incarnation]
    restored.close()


def test_a_folder_that_was_copied_while_it_stood_still_is_a_backup(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    kept = Kept(lambda: sqlite_tables(folder))
    kept.finish(3)
    before = kept.everything()
    shutil.copytree(folder, tmp_path / "copy")
    kept.close()
    copy = Kept(lambda: sqlite_tables(tmp_path / "copy"))
    assert copy.everything() == before
    copy.close()
