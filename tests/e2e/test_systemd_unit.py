"""The unit file, as far as it can be tried without booting systemd."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from google.protobuf.descriptor import ServiceDescriptor

from holdpay._pb.lnd import lightning_pb2, router_pb2

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "systemd" / "holdpayd.service"
BACKUP = ROOT / "systemd" / "holdpayd-backup.service"
TIMER = ROOT / "systemd" / "holdpayd-backup.timer"
LIGHTNING = lightning_pb2.DESCRIPTOR.services_by_name["Lightning"]
ROUTER = router_pb2.DESCRIPTOR.services_by_name["Router"]
# systemd-analyze security: 0 is sealed, 10 is open. What is left: the network, the host's root, reading below /home.
MAX_EXPOSURE_TENTHS = 12
FIRST_WITH_OFFLINE_SECURITY = 250


@pytest.fixture
def systemd_analyze() -> str:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("needs systemd-analyze (Debian's systemd package)")
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    if int(said.split()[1].split(".")[0]) < FIRST_WITH_OFFLINE_SECURITY:
        pytest.skip(f"needs systemd-analyze {FIRST_WITH_OFFLINE_SECURITY} or later")
    return program


@pytest.fixture
def installed_unit(tmp_path: Path) -> Path:
    return installed(UNIT, tmp_path)


def installed(unit: Path, folder: Path) -> Path:
    """The unit with a program that exists on this machine."""
    here = folder / unit.name
    here.write_text(unit.read_text().replace("/opt/holdpay/bin/holdpayd", "/bin/true"))
    return here


def settings(section: str, unit: Path = UNIT) -> dict[str, list[str]]:
    """Each key with its values in order; systemd lets a key stand several times."""
    values: dict[str, list[str]] = {}
    current = ""
    for line in unit.read_text().splitlines():
        if line.startswith("["):
            current = line.strip("[]")
        elif current == section and line and not line.startswith("#"):
            key, value = line.split("=", 1)
            values.setdefault(key, []).append(value)
    return values


def test_systemd_finds_nothing_to_say_about_the_unit(systemd_analyze: str, installed_unit: Path) -> None:
    done = subprocess.run(
        [systemd_analyze, "verify", "--man=no", installed_unit], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_finds_nothing_to_say_about_the_backups(systemd_analyze: str, tmp_path: Path) -> None:
    files = [installed(unit, tmp_path) for unit in (BACKUP, TIMER)]
    done = subprocess.run([systemd_analyze, "verify", "--man=no", *files], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_would_object_to_a_misspelt_line(systemd_analyze: str, installed_unit: Path) -> None:
    installed_unit.write_text(installed_unit.read_text().replace("PrivateTmp=yes", "PrivateTmp=perhaps"))
    done = subprocess.run([systemd_analyze, "verify", installed_unit], capture_output=True, text=True, check=False)
    assert "perhaps" in done.stderr


@pytest.mark.parametrize("unit", [UNIT, BACKUP], ids=lambda unit: unit.name)
def test_little_of_the_machine_is_exposed_to_them(systemd_analyze: str, tmp_path: Path, unit: Path) -> None:
    command = [systemd_analyze, "security", "--no-pager", "--offline=true", f"--threshold={MAX_EXPOSURE_TENTHS}"]
    done = subprocess.run([*command, installed(unit, tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("Unit", "StartLimitIntervalSec", "0"),
        ("Service", "Type", "notify"),
        ("Service", "NotifyAccess", "main"),
        ("Service", "WatchdogSec", "60"),
        ("Service", "Restart", "always"),
        ("Service", "RestartPreventExitStatus", "78"),
        ("Service", "User", "holdpay"),
        ("Service", "Group", "holdpay"),
        ("Service", "UMask", "0077"),
        ("Service", "StateDirectory", "holdpay"),
        ("Service", "StateDirectoryMode", "0700"),
        ("Service", "RuntimeDirectory", "holdpay"),
        ("Service", "RuntimeDirectoryMode", "0751"),
        ("Service", "ExecStart", "/opt/holdpay/bin/holdpayd --config /etc/holdpay/config.toml"),
    ],
)
def test_the_unit_keeps_what_the_documentation_promises(section: str, key: str, value: str) -> None:
    assert settings(section)[key] == [value]


def test_the_unit_hands_over_the_secrets_from_the_files_that_the_documentation_names() -> None:
    wanted = ["macaroon:/etc/holdpay/holdpay.macaroon", "api-key:/etc/holdpay/api-key"]
    assert settings("Service")["LoadCredential"] == wanted


def test_a_missing_macaroon_reaches_the_daemon_as_an_empty_one_so_that_it_can_say_so() -> None:
    loaded = {value.split(":")[0] for value in settings("Service")["LoadCredential"]}
    fallback = dict(value.split(":", 1) for value in settings("Service")["SetCredential"])
    assert set(fallback) == loaded
    assert all(value == r"\n" for value in fallback.values())


def test_stopping_leaves_the_daemon_longer_than_its_own_wait() -> None:
    example = (ROOT / "config.example.toml").read_text()
    found = re.search(r"^#?\s*shutdown_wait_s\s*=\s*(\d+)", example, re.MULTILINE)
    assert found is not None
    assert int(settings("Service")["TimeoutStopSec"][0]) >= 2 * int(found[1])


def rights() -> list[str]:
    lines = (ROOT / "systemd" / "macaroon-uris").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


BY_HAND = "uri:/lnrpc.Lightning/BakeMacaroon"
"""Of `holdpayd bake-macaroon`, which has the operator's own macaroon for it."""


def test_every_right_of_the_macaroon_is_one_of_lnds_uris() -> None:
    assert all(re.fullmatch(r"uri:/(lnrpc\.Lightning|routerrpc\.Router)/[A-Z]\w+", right) for right in rights())
    assert len(set(rights())) == len(rights())


@pytest.mark.parametrize("service", [LIGHTNING, ROUTER], ids=["lnrpc.Lightning", "routerrpc.Router"])
def test_the_macaroon_allows_every_call_of_the_slice_that_the_daemon_uses(service: ServiceDescriptor) -> None:
    used = {f"uri:/{service.full_name}/{method.name}" for method in service.methods}
    assert used - {BY_HAND} <= set(rights())
    assert BY_HAND not in rights(), "whoever has the macaroon could bake any other"


# --- backups ----------------------------------------------------------------------------------------------------------


def test_a_backup_is_made_as_the_documentation_says_and_by_the_daemons_user() -> None:
    service = settings("Service", BACKUP)
    assert service["ExecStart"] == [
        (
            "/opt/holdpay/bin/holdpayd --config /etc/holdpay/config.toml"
            " backup --keep 14 --without-secrets /var/lib/holdpay/backups"
        )
    ]
    assert (service["User"], service["UMask"]) == (["holdpay"], ["0077"])
    assert service["StateDirectory"] == ["holdpay holdpay/backups"]
    assert service["LoadCredential"] == settings("Service")["LoadCredential"]


def test_a_backup_is_locked_in_as_the_daemon_is_and_speaks_to_nobody() -> None:
    ours, theirs = settings("Service", BACKUP), settings("Service")
    sealed = [
        key for key in theirs if re.match(r"Protect|Private|Restrict|NoNew|Capab|Ambient|System|Lock|Memory", key)
    ]
    assert len(sealed) > 20
    assert {key for key in sealed if ours.get(key) != theirs[key]} == {"RestrictAddressFamilies"}
    assert (ours["PrivateNetwork"], ours["RestrictAddressFamilies"]) == (["yes"], ["AF_UNIX"])


def test_the_timer_makes_up_for_what_the_machine_slept_through() -> None:
    timer = settings("Timer", TIMER)
    assert (timer["OnCalendar"], timer["Persistent"]) == (["daily"], ["true"])
    assert "systemctl enable" not in (ROOT / "scripts/install").read_text().replace(
        "systemctl enable --now holdpayd;", ""
    )
