"""What the doctor thinks of files, certificate, disk, database, socket and unit: each fault, told with its remedy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from holdpay.doctor.findings import Finding, Unseen, Verdict
from holdpay.doctor.judge_machine import (
    DAY_MS,
    MIB,
    MIN_OPEN_FILES,
    judge_certificate,
    judge_client_socket,
    judge_database,
    judge_disk,
    judge_files,
    judge_hooks,
    judge_socket,
    judge_unit,
)
from holdpay.doctor.seen import (
    CertificateSeen,
    DatabaseSeen,
    DiskSeen,
    FileSeen,
    FilesSeen,
    Listening,
    Problem,
    SocketSeen,
    UnitSeen,
)

OK, WARNING, FAILED = Verdict.OK, Verdict.WARNING, Verdict.FAILED
NOW_MS = 1_800_000_000_000
HANGS = Unseen("It hangs.", "Unhang it.")

STATE = FileSeen(path=Path("/state"), mode=0o700, owner="holdpay", is_ours=True)
STORED = FileSeen(path=Path("/state/holdpay.db"), mode=0o600, owner="holdpay", is_ours=True)
FILES = FilesSeen(state_dir=STATE, database=(STORED,), me="holdpay")


def verdicts(findings: Iterable[Finding]) -> list[Verdict]:
    return [finding.verdict for finding in findings]


def the_one(findings: list[Finding]) -> Finding:
    (finding,) = findings
    return finding


def told(finding: Finding, verdict: Verdict, *words: str) -> None:
    assert finding.verdict is verdict, finding
    for word in words:
        assert word in f"{finding.text} {finding.todo}"
    assert (finding.todo != "") is (verdict in {WARNING, FAILED})


@pytest.mark.parametrize(
    "finding",
    [
        the_one(judge_files(HANGS)),
        judge_certificate(HANGS, NOW_MS),
        judge_disk(HANGS, 64 * MIB),
        judge_database(HANGS),
        judge_socket(HANGS),
        the_one(judge_unit(HANGS)),
    ],
    ids=lambda finding: finding.check,
)
def test_a_look_that_saw_nothing_has_failed(finding: Finding) -> None:
    told(finding, FAILED, "It hangs.", "Unhang it.")


# --- files ------------------------------------------------------------------------------------------------------------


def test_files_of_one_user_alone_are_fine_and_so_is_a_folder_that_is_not_there_yet() -> None:
    told(the_one(judge_files(FILES)), OK)
    told(the_one(judge_files(FilesSeen(state_dir=None, database=(), me="holdpay"))), OK, "first start makes it")


def test_a_state_directory_that_others_may_enter_has_failed() -> None:
    for mode in (0o710, 0o701, 0o755):
        open_to_all = replace(FILES, state_dir=replace(STATE, mode=mode))
        told(the_one(judge_files(open_to_all)), FAILED, f"{mode:04o}", "`chmod 700 /state`")


def test_a_state_directory_that_its_owner_may_not_write_to_has_failed() -> None:
    closed = replace(FILES, state_dir=replace(STATE, mode=0o500))
    told(the_one(judge_files(closed)), FAILED, "may not write", "`chmod 700 /state`")


def test_a_state_directory_on_a_read_only_mount_has_failed_whatever_is_free_there() -> None:
    seen = DiskSeen(folder=Path("/state"), free_bytes=100_000 * MIB, is_read_only=True)
    told(judge_disk(seen, 64 * MIB), FAILED, "/state is mounted read-only", "dmesg")


def test_another_users_state_directory_is_looked_at_by_the_wrong_user() -> None:
    foreign = replace(FILES, state_dir=replace(STATE, is_ours=False), me="root")
    told(the_one(judge_files(foreign)), WARNING, "runs as root", "`sudo -u holdpay holdpayd doctor`")


def test_a_database_that_others_may_read_or_that_is_another_users_is_told_each() -> None:
    wide = replace(FILES, database=(replace(STORED, mode=0o640),))
    told(the_one(judge_files(wide)), WARNING, "`chmod 600 /state/holdpay.db`")
    of_root = replace(FILES, database=(replace(STORED, owner="root"),))
    told(the_one(judge_files(of_root)), FAILED, "belongs to root", "`chown holdpay /state/holdpay.db`")


# --- certificate ------------------------------------------------------------------------------------------------------


def served(days: int) -> CertificateSeen:
    return CertificateSeen(is_served=True, expires_at_ms=NOW_MS + days * DAY_MS)


@pytest.mark.parametrize(("days", "verdict"), [(31, OK), (30, OK), (29, WARNING), (0, WARNING), (-1, FAILED)])
def test_a_certificate_is_warned_about_in_its_last_30_days(days: int, verdict: Verdict) -> None:
    told(judge_certificate(served(days), NOW_MS), verdict)


def test_its_days_and_its_date_are_told() -> None:
    told(judge_certificate(served(12), NOW_MS), WARNING, "expires in 12 days, on 2027-01-27", "restart lnd")
    of_file = replace(served(12), is_served=False)
    told(judge_certificate(of_file, NOW_MS), WARNING, "The certificate in lnd.tls_cert expires in 12 days")


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (Problem.EXPIRED, "has expired"),
        (Problem.NOT_YET_VALID, "not valid yet"),
        (Problem.OTHER_NAME, "Set lnd.tls_server_name"),
        (Problem.NOT_TRUSTED, "Copy lnd's tls.cert to lnd.tls_cert again"),
    ],
)
def test_each_problem_of_a_handshake_has_its_remedy(problem: Problem, words: str) -> None:
    seen = CertificateSeen(is_served=True, expires_at_ms=None, problem=problem, words="OpenSSL's words")
    told(judge_certificate(seen, NOW_MS), FAILED, words, "(OpenSSL's words).")


def test_without_any_date_nothing_is_claimed() -> None:
    told(judge_certificate(CertificateSeen(is_served=False, expires_at_ms=None), NOW_MS), OK, "Nobody says")


# --- disk and database ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("free_mib", "verdict"), [(63, FAILED), (64, WARNING), (511, WARNING), (512, OK)])
def test_a_disk_fails_with_less_than_a_new_order_needs_and_is_warned_about_before(
    free_mib: int, verdict: Verdict
) -> None:
    seen = DiskSeen(folder=Path("/state"), free_bytes=free_mib * MIB)
    told(judge_disk(seen, 64 * MIB), verdict, f"{free_mib} MiB", "/state")


DATABASE = DatabaseSeen(path=Path("/state/holdpay.db"), is_there=True, open_count=3, last_cursor=70, written_cursor=70)


@pytest.mark.parametrize(
    ("seen", "verdict", "words"),
    [
        (DATABASE, OK, "has 3 open orders."),
        (replace(DATABASE, is_there=False, written_cursor=None), OK, "`holdpayd recover`"),
        (replace(DATABASE, is_there=False, written_cursor=0), OK, "the first start makes it"),
        (replace(DATABASE, is_there=False), FAILED, "is gone: 70 rows"),
        (replace(DATABASE, last_cursor=69), FAILED, "ends at row 69, and row 70 was written"),
        (replace(DATABASE, last_cursor=71), OK, "has 3 open orders."),
        (replace(DATABASE, written_cursor=None), FAILED, "`holdpayd restore FILE`"),
        (replace(DATABASE, written_cursor=None, last_cursor=0), OK, "has 3 open orders."),
        (replace(DATABASE, is_older=True), OK, "brings it up to date"),
        (replace(DATABASE, is_newer=True), FAILED, "Install that version"),
        (replace(DATABASE, damage="malformed"), FAILED, "damaged (malformed)"),
        (replace(DATABASE, quarantined_count=1), WARNING, "In quarantine: 1 of 3 open orders."),
    ],
)
def test_a_database_is_judged(seen: DatabaseSeen, verdict: Verdict, words: str) -> None:
    told(judge_database(seen), verdict, words)


# --- socket -----------------------------------------------------------------------------------------------------------


SOCKET = SocketSeen(path=Path("/run/s"), listening=Listening.ANSWERS, mode=0o660, group="holdpay", me="ann")


@pytest.mark.parametrize(
    ("seen", "verdict", "words"),
    [
        (SOCKET, OK, "ann and the group holdpay may order"),
        (replace(SOCKET, mode=0o662), FAILED, "`chmod 660 /run/s`"),
        (replace(SOCKET, listening=Listening.DENIED), FAILED, "`sudo usermod -aG holdpay ann`"),
        (replace(SOCKET, listening=Listening.DENIED, group="root"), FAILED, "Run this as root"),
        (replace(SOCKET, listening=Listening.SILENT), FAILED, "restart it"),
        (replace(SOCKET, listening=Listening.NO_SOCKET), FAILED, "Move it away"),
        (replace(SOCKET, listening=Listening.NOBODY), WARNING, "systemctl start holdpayd"),
        (replace(SOCKET, listening=Listening.MISSING), WARNING, "there is no /run/s"),
    ],
)
def test_a_socket_is_judged(seen: SocketSeen, verdict: Verdict, words: str) -> None:
    told(judge_socket(seen), verdict, words)


def test_every_state_of_a_socket_has_its_judgement() -> None:
    for listening in Listening:
        assert judge_socket(replace(SOCKET, listening=listening)).check == "socket"


@pytest.mark.parametrize(
    ("seen", "verdict", "words"),
    [
        (replace(SOCKET, group="shop"), OK, "client web may order at /run/s"),
        (replace(SOCKET, group="shop", listening=Listening.DENIED), OK, "whoever is in the group shop"),
        (SOCKET, FAILED, "is for the group holdpay (mode 0660), and should be for shop alone"),
        (replace(SOCKET, group="shop", mode=0o666), FAILED, "mode 0666"),
        (replace(SOCKET, mode=0, listening=Listening.DENIED), Verdict.SKIPPED, "ann may not look"),
        (replace(SOCKET, group="shop", listening=Listening.MISSING), FAILED, "Restart holdpayd"),
        (HANGS, FAILED, "It hangs."),
    ],
)
def test_a_clients_socket_is_for_its_group_alone(seen: SocketSeen | Unseen, verdict: Verdict, words: str) -> None:
    told(judge_client_socket("web", "shop", seen), verdict, words)


# --- unit -------------------------------------------------------------------------------------------------------------


RUNNING = {
    "LoadState": "loaded",
    "ActiveState": "active",
    "SubState": "running",
    "UnitFileState": "enabled",
    "Result": "success",
    "NRestarts": "0",
    "LimitNOFILE": "8192",
}


def unit(**changes: str) -> UnitSeen:
    return UnitSeen(properties={**RUNNING, **changes})


@pytest.mark.parametrize(
    ("seen", "verdict", "words"),
    [
        (unit(), OK, "enabled and active (running); it allows 8192 open files"),
        (unit(NRestarts="3"), OK, "3 times"),
        (unit(LimitNOFILE="infinity"), OK, "infinity"),
        (unit(LimitNOFILE=str(MIN_OPEN_FILES)), OK, str(MIN_OPEN_FILES)),
        (unit(LimitNOFILE=str(MIN_OPEN_FILES - 1)), WARNING, "LimitNOFILE=8192"),
        (unit(UnitFileState="disabled"), WARNING, "`sudo systemctl enable holdpayd`"),
        (unit(ActiveState="inactive", SubState="dead"), WARNING, "`sudo systemctl start holdpayd`"),
        (unit(ActiveState="activating", SubState="auto-restart"), WARNING, "again and again"),
        (unit(ActiveState="failed", Result="exit-code"), FAILED, "(exit-code)"),
        (unit(LoadState="masked"), FAILED, "masked"),
        (unit(LoadState="not-found"), OK, "another way"),
        (UnitSeen(properties={}, absent="systemd does not run here"), OK, "systemd does not run here"),
        (UnitSeen(properties={}), FAILED, "it says nothing"),
    ],
)
def test_a_unit_is_judged(seen: UnitSeen, verdict: Verdict, words: str) -> None:
    told(the_one(judge_unit(seen)), verdict, words)


def test_all_that_is_wrong_with_a_unit_is_told_at_once() -> None:
    found = judge_unit(unit(ActiveState="inactive", UnitFileState="disabled", LimitNOFILE="1024"))
    assert verdicts(found) == [WARNING] * 3


def test_the_units_own_limit_is_enough_for_the_daemon() -> None:
    from holdpay.rpc.streams import MAX_STREAMS, SPARE_FILES

    assert MIN_OPEN_FILES == MAX_STREAMS + SPARE_FILES
    unit_file = (Path(__file__).parents[3] / "systemd" / "holdpayd.service").read_text()
    assert "LimitNOFILE=8192" in unit_file


# --- hooks ---


def test_a_hook_that_this_machine_lacks_something_for_is_a_warning_with_what_to_do() -> None:
    assert judge_hooks({}) == []
    finding = the_one(judge_hooks({"shop": "secret_file names /x, and there is no such file: put it there"}))
    assert finding.check == "hook shop"
    told(finding, WARNING, "secret_file names /x, and there is no such file: put it there.", "systemctl reload")
    told(the_one(judge_hooks(HANGS)), FAILED, "It hangs.")
