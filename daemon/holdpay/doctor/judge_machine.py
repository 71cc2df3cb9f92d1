"""What is to be thought of this machine: files, certificate, disk, database, socket, unit. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from holdpay import manual
from holdpay.doctor.findings import Finding, Unseen, failed, ok, skipped, unseen, warning
from holdpay.doctor.seen import (
    CertificateSeen,
    DatabaseSeen,
    DiskSeen,
    FilesSeen,
    Listening,
    Problem,
    SocketSeen,
    UnitSeen,
)

DAY_MS: Final = 24 * 3600 * 1000
RENEW_BEFORE_DAYS: Final = 30
ROOM_FACTOR: Final = 8
"""Times the room without which no new order is taken."""
MIN_OPEN_FILES: Final = 4_256
"""What the daemon has use for: a client each that follows an order, and its own."""
MIB: Final = 2**20
RESTORE: Final = (
    f"`holdpayd restore FILE` holds a copy against lnd and brings it into use ({manual.page('backup.md')})."
)


def judge_files(seen: FilesSeen | Unseen) -> list[Finding]:
    """That configuration, macaroon and key are nobody else's is a part of the configuration's own check."""
    check = "files"
    if isinstance(seen, Unseen):
        return [unseen(check, seen)]
    state_dir = seen.state_dir
    if state_dir is None:
        return [ok(check, "The state directory is not there yet; the first start makes it.")]
    found = []
    if not state_dir.is_ours:
        found.append(
            warning(
                check,
                f"{state_dir.path} belongs to {state_dir.owner}, and this runs as {seen.me}: holdpayd run by"
                f" {seen.me} would refuse it.",
                f"Run this as the daemon's user: `sudo -u {state_dir.owner} holdpayd doctor`. If {seen.me} is that"
                f" user: `chown -R {seen.me} {state_dir.path}`.",
            )
        )
    if state_dir.mode & 0o077:
        found.append(
            failed(
                check,
                f"Others may enter {state_dir.path} (mode {state_dir.mode:04o}), where codes and preimages are, so"
                " holdpayd will not start.",
                f"Run `chmod 700 {state_dir.path}`.",
            )
        )
    if state_dir.mode & 0o700 != 0o700:
        text = f"{state_dir.owner} may not write to {state_dir.path} (mode {state_dir.mode:04o})."
        found.append(failed(check, text, f"Run `chmod 700 {state_dir.path}`."))
    for file in seen.database:
        if file.mode & 0o077:
            text = f"Others may read {file.path} (mode {file.mode:04o})."
            found.append(warning(check, text, f"Run `chmod 600 {file.path}`."))
        if file.owner != state_dir.owner:
            text = f"{file.path} belongs to {file.owner}, and its folder to {state_dir.owner}."
            found.append(failed(check, text, f"Run `chown {state_dir.owner} {file.path}`."))
    return found or [ok(check, "Configuration, macaroon, state directory and database are their user's alone.")]


def judge_hooks(unusable: Mapping[str, str] | Unseen) -> list[Finding]:
    """``unusable``: why, by name. The others are looked at by `holdpay hooks test`, which sends something."""
    if isinstance(unusable, Unseen):
        return [unseen("hooks", unusable)]
    todo = "Do that, then run `sudo systemctl reload holdpayd`: the hook goes on where it was."
    return [warning(f"hook {name}", f"It is not usable: {why}.", todo) for name, why in unusable.items()]


_CERTIFICATE_PROBLEMS: Final = {
    Problem.EXPIRED: (
        "The certificate that lnd serves has expired.",
        (
            "Delete tls.cert and tls.key in lnd's directory and restart lnd, which makes new ones; copy tls.cert to"
            " lnd.tls_cert if that is a copy. If it has not expired, set this machine's clock (`timedatectl`)."
        ),
    ),
    Problem.NOT_YET_VALID: (
        "The certificate that lnd serves is not valid yet.",
        "Set the clocks of this machine and of lnd's (`timedatectl`).",
    ),
    Problem.OTHER_NAME: (
        "lnd's certificate is not for the host of lnd.address.",
        (
            "Set lnd.tls_server_name to a name that is in it; or set tlsextradomain or tlsextraip in lnd.conf and let"
            " lnd make another one."
        ),
    ),
    Problem.NOT_TRUSTED: (
        "lnd.tls_cert does not vouch for the certificate that lnd serves.",
        "Copy lnd's tls.cert to lnd.tls_cert again; see that lnd.address is this node's.",
    ),
}


def judge_certificate(seen: CertificateSeen | Unseen, now_ms: int) -> Finding:
    check = "certificate"
    if isinstance(seen, Unseen):
        return unseen(check, seen)
    if seen.problem is not None:
        text, todo = _CERTIFICATE_PROBLEMS[seen.problem]
        return failed(check, f"{text[:-1]} ({seen.words}).", todo)
    if seen.expires_at_ms is None:
        return ok(check, "Nobody says when lnd's certificate expires, since lnd could not be asked.")
    days = (seen.expires_at_ms - now_ms) // DAY_MS
    date = datetime.fromtimestamp(seen.expires_at_ms / 1000, UTC).date()
    whose = "lnd's certificate" if seen.is_served else "The certificate in lnd.tls_cert"
    if days < 0:
        return failed(check, f"{whose} expired on {date}.", _CERTIFICATE_PROBLEMS[Problem.EXPIRED][1])
    if days < RENEW_BEFORE_DAYS:
        return warning(
            check,
            f"{whose} expires in {days} days, on {date}; then nothing can be paid.",
            "Have it renewed before: delete tls.cert and tls.key in lnd's directory, restart lnd, and copy tls.cert to"
            " lnd.tls_cert if that is a copy.",
        )
    return ok(check, f"{whose} is good for {days:,} days, until {date}.")


def judge_disk(seen: DiskSeen | Unseen, min_free_bytes: int) -> Finding:
    """``min_free_bytes``: with less the store takes no new order."""
    check = "disk"
    if isinstance(seen, Unseen):
        return unseen(check, seen)
    if seen.is_read_only:
        text = f"{seen.folder} is mounted read-only: nothing can be recorded, so holdpayd will not start."
        return failed(check, text, "Mount it read-write; a disk that went read-only by itself is failing (`dmesg`).")
    text = f"{seen.free_bytes // MIB:,} MiB are free in {seen.folder}"
    if seen.free_bytes < min_free_bytes:
        text = f"Only {text}; with less than {min_free_bytes // MIB} MiB no new order is taken."
        return failed(check, text, "Make room on that disk.")
    if seen.free_bytes < ROOM_FACTOR * min_free_bytes:
        text = f"{text}; with less than {min_free_bytes // MIB} MiB no new order is taken."
        return warning(check, text, "Make room on that disk in time.")
    return ok(check, f"{text}.")


def judge_database(seen: DatabaseSeen | Unseen) -> Finding:
    check = "database"
    if isinstance(seen, Unseen):
        return unseen(check, seen)
    if not seen.is_there:
        return _judge_missing(check, seen)
    if seen.damage:
        return failed(
            check,
            f"{seen.path} is damaged ({seen.damage}).",
            f"Keep the file, and follow {manual.page('operations.md', 'Damaged database')}.",
        )
    if seen.is_newer:
        return failed(check, "A newer holdpay wrote the database.", "Install that version of holdpay again.")
    if seen.is_older:
        return ok(check, "An older holdpay wrote the database; the next start brings it up to date and keeps a copy.")
    if seen.last_cursor < (seen.written_cursor or 0):
        return failed(
            check,
            f"The database is an old copy, and holdpayd refuses it: its journal ends at row {seen.last_cursor:,}, and"
            f" row {seen.written_cursor:,} was written here.",
            RESTORE,
        )
    if seen.last_cursor and seen.written_cursor is None:
        text = "The database was brought here from somewhere else, and holdpayd refuses it: it may be an old copy."
        return failed(check, text, RESTORE)
    if seen.quarantined_count:
        return warning(
            check,
            f"In quarantine: {seen.quarantined_count:,} of {_open_orders(seen.open_count)}.",
            f"See `holdpayd check`, and {manual.page('operations.md', 'Quarantine')}.",
        )
    return ok(check, f"It can be read, and has {_open_orders(seen.open_count)}. (`holdpayd check` reads all of it.)")


def _judge_missing(check: str, seen: DatabaseSeen) -> Finding:
    if seen.written_cursor:
        return failed(
            check,
            f"The database {seen.path} is gone: {seen.written_cursor:,} rows of its journal were written here.",
            f"Rebuild it with `holdpayd recover`, or bring back a copy. {RESTORE}",
        )
    return ok(check, "There is none yet; the first start makes it. If holdpayd ran before: `holdpayd recover`.")


def _open_orders(count: int) -> str:
    return f"{count:,} open order{'' if count == 1 else 's'}"


def judge_socket(seen: SocketSeen | Unseen) -> Finding:
    """Of the daemon's own."""
    check = "socket"
    if isinstance(seen, Unseen):
        return unseen(check, seen)
    start = "Start it: `sudo systemctl start holdpayd`, or `holdpayd` by hand."
    match seen.listening:
        case Listening.ANSWERS:
            return _judge_answering(check, seen)
        case Listening.DENIED:
            return failed(
                check,
                f"{seen.me} may not use {seen.path}, which is for the group {seen.group}.",
                "Run this as root, or start holdpayd by its unit, whose socket is for a group of its own."
                if seen.group == "root"
                else f"Run `sudo usermod -aG {seen.group} {seen.me}`, and log in again.",
            )
        case Listening.SILENT:
            text = f"Who listens at {seen.path} does not take the connection."
            return failed(check, text, "See holdpayd's log (`journalctl -u holdpayd`), then restart it.")
        case Listening.NO_SOCKET:
            text = f"{seen.path} exists and is no socket, so holdpayd will not start."
            return failed(check, text, "Move it away, or let daemon.socket name another path.")
        case Listening.NOBODY:
            return warning(check, f"holdpayd does not run: nobody listens at {seen.path}.", start)
        case Listening.MISSING:
            return warning(check, f"holdpayd does not run: there is no {seen.path}.", start)


def _judge_answering(check: str, seen: SocketSeen) -> Finding:
    if seen.mode & 0o002:
        return failed(
            check,
            f"Every user of this machine may order at {seen.path} (mode {seen.mode:04o}).",
            f"Run `chmod 660 {seen.path}`, and find out who changed it.",
        )
    return ok(check, f"holdpayd answers at {seen.path}; {seen.me} and the group {seen.group} may order.")


def judge_client_socket(client: str, group: str, seen: SocketSeen | Unseen) -> Finding:
    """Of a [[client]], whose ``group`` may open it and nobody else; beside a daemon that answers at its own."""
    check = "socket"
    if isinstance(seen, Unseen):
        return unseen(check, seen)
    if seen.listening not in {Listening.ANSWERS, Listening.DENIED}:
        return failed(
            check,
            f"holdpayd runs and does not answer the client {client} at {seen.path}.",
            "Restart holdpayd: a [[client]] that is new, or whose socket was moved, needs that.",
        )
    if not seen.mode:
        return skipped(check, f"{seen.me} may not look at the socket of the client {client}, {seen.path}.")
    if seen.group != group or seen.mode & 0o002:
        return failed(
            check,
            f"The socket of the client {client} is for the group {seen.group} (mode {seen.mode:04o}), and should be for"
            f" {group} alone.",
            "Restart holdpayd, which makes it anew; see its log if that fails.",
        )
    return ok(check, f"The client {client} may order at {seen.path}: whoever is in the group {group}.")


def judge_unit(seen: UnitSeen | Unseen) -> list[Finding]:
    check = "unit"
    if isinstance(seen, Unseen):
        return [unseen(check, seen)]
    said = seen.properties
    if seen.absent:
        return [ok(check, f"Not looked at: {seen.absent}.")]
    if said.get("LoadState") == "not-found":
        return [ok(check, "systemd has no unit holdpayd.service; holdpayd is started in another way.")]
    if said.get("LoadState") != "loaded":
        text = f"systemd cannot use holdpayd.service ({said.get('LoadState', 'it says nothing')})."
        return [failed(check, text, "See `systemctl status holdpayd`; `sudo scripts/install` writes the unit anew.")]
    state = f"{said.get('ActiveState', '?')} ({said.get('SubState', '?')})"
    found = _judge_running(check, said.get("ActiveState", ""), state, said.get("Result", ""))
    if said.get("UnitFileState") not in {"enabled", "enabled-runtime", "linked", "static", "alias"}:
        text = "holdpayd.service is not enabled: after the next boot nobody watches the open orders."
        found.append(warning(check, text, "Run `sudo systemctl enable holdpayd`."))
    limit = said.get("LimitNOFILE", "")
    if limit.isdecimal() and int(limit) < MIN_OPEN_FILES:
        text = f"The unit allows {int(limit):,} open files, so fewer clients than usual may follow orders."
        found.append(warning(check, text, "Set LimitNOFILE=8192 in it (`sudo systemctl edit holdpayd`)."))
    restarts = said.get("NRestarts", "0")
    again = f", started again {restarts} times since it was last started by hand" if restarts not in {"", "0"} else ""
    return found or [ok(check, f"holdpayd.service is enabled and {state}{again}; it allows {limit or '?'} open files.")]


def _judge_running(check: str, active: str, state: str, result: str) -> list[Finding]:
    look = "See `journalctl -u holdpayd -n 50`, mend what it names, then `sudo systemctl restart holdpayd`."
    if active == "failed":
        return [failed(check, f"holdpayd.service has failed ({result}).", look)]
    if active == "activating":
        return [warning(check, f"holdpayd.service is {state}: it starts, or ends again and again.", look)]
    if active != "active":
        return [warning(check, f"holdpayd.service is {state}.", "Run `sudo systemctl start holdpayd`.")]
    return []
