"""The parts of the Debian package that can be tried without one; scripts/test-deb tries the whole of it."""

import shutil
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from holdpay.config import load
from holdpay.core.events import Event
from holdpay.store.store import SqliteStore
from tests.unit.audit.books import FULFILLED, HELD
from tests.unit.audit.test_database import live
from tests.unit.build import order
from tests.unit.certificates import dated_certificate

ROOT = Path(__file__).parents[2]
DEBIAN = ROOT / "packaging" / "debian"
SCRIPTS = ("preinst", "postinst", "prerm", "postrm")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """With configuration and data in etc and state, and a postrm that means these."""
    for name in ("etc", "state"):
        (tmp_path / name).mkdir()
    (tmp_path / "etc/holdpay.macaroon").write_text("macaroon")
    script = (DEBIAN / "postrm").read_text()
    for there, here in {
        "\n@open_orders@\n": f"\n{(ROOT / 'scripts/open_orders.py').read_text()}\n",
        "/var/lib/holdpay": str(tmp_path / "state"),
        "/etc/holdpay": str(tmp_path / "etc"),
        "/usr/bin/deb-systemd-helper": "/nowhere",
    }.items():
        assert there in script
        script = script.replace(there, here)
    (tmp_path / "postrm").write_text(script)
    return tmp_path


def purged(machine: Path) -> tuple[set[str], str]:
    """What is left, and what was said."""
    done = subprocess.run(["sh", machine / "postrm", "purge"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {path.name for path in machine.iterdir()} - {"postrm"}, done.stderr


def filled(machine: Path, *story: tuple[int, Event]) -> None:
    with closing(SqliteStore(machine / "state/holdpay.db")) as store:
        live(store, order(), *story)


def test_a_purge_deletes_what_is_over(machine: Path) -> None:
    filled(machine, *FULFILLED)
    assert purged(machine) == (set(), "")


def test_a_purge_deletes_what_never_began(machine: Path) -> None:
    assert purged(machine) == (set(), "")


def test_a_purge_keeps_database_and_macaroon_while_an_order_is_open(machine: Path) -> None:
    filled(machine, *HELD)
    left, said = purged(machine)
    assert left == {"etc", "state"}
    assert f"NOT deleted: {machine / 'state'}" in said
    assert "not over: 1;" in said
    assert (machine / "etc/holdpay.macaroon").exists()


def test_a_purge_keeps_the_macaroon_while_an_order_is_open_in_a_folder_of_ones_own(machine: Path) -> None:
    (machine / "own").mkdir()
    with closing(SqliteStore(machine / "own/holdpay.db")) as store:
        live(store, order(), *HELD)
    (machine / "state/config.toml.kept").write_text(f'[daemon]\nstate_dir = "{machine / "own"}"\n')
    left, said = purged(machine)
    assert left == {"etc", "state", "own"}
    assert "not over: 1;" in said


@pytest.mark.parametrize("lacks", ["database", "python"])
def test_a_purge_keeps_all_where_nobody_can_tell(machine: Path, monkeypatch: pytest.MonkeyPatch, lacks: str) -> None:
    (machine / "state/holdpay.db").write_text("no database" * 100)
    if lacks == "python":
        (machine / "state/holdpay.db").unlink()
        (machine / "bin").mkdir()
        for name in ("sh", "cat", "rm"):
            (machine / "bin" / name).symlink_to(shutil.which(name) or name)
        monkeypatch.setenv("PATH", str(machine / "bin"))
    left, said = purged(machine)
    assert {"etc", "state"} <= left
    assert "not over: unknown;" in said


def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, *arguments: str, state: str) -> list[str]:
    """The services that a script stopped or started, on a machine where systemd says that holdpayd is in ``state``.
    deb-systemd-invoke starts nothing, as for a unit that is disabled."""
    for folder in ("booted", "program", "bin"):
        (tmp_path / folder).mkdir(exist_ok=True)
    said, script = tmp_path / "said", (DEBIAN / name).read_text()
    fake = f"""#!/bin/sh
case "${{0##*/}} $1" in
  "systemctl show") echo {state} ;;
  "systemctl --quiet") [ {state} = active ] ;;
  *" start" | *" stop") echo "${{0##*/}} $*" >>{said} ;;
esac
"""
    for command in ("systemctl", "deb-systemd-invoke", "deb-systemd-helper", "systemd-sysusers", "systemd-tmpfiles"):
        (tmp_path / "bin" / command).write_text(fake)
        (tmp_path / "bin" / command).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    for there, here in {
        "/run/systemd/system": "booted",
        "/run/holdpayd.stopped-by-upgrade": "stopped",
        "/usr/lib/holdpay": "program",
        "/etc/holdpay": "etc",
    }.items():
        script = script.replace(there, str(tmp_path / here))
    (tmp_path / name).write_text(script)
    said.write_text("")
    subprocess.run(["sh", tmp_path / name, *arguments], capture_output=True, check=True)
    return said.read_text().splitlines()


@pytest.mark.parametrize("state", ["active", "activating", "reloading", "deactivating"])
def test_an_upgrade_stops_and_starts_a_daemon_that_runs_or_is_about_to_and_a_disabled_one_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    stops = ran(tmp_path, monkeypatch, "prerm", "upgrade", "0.2", state=state)
    assert stops == ["deb-systemd-invoke stop holdpayd.service"]
    assert ran(tmp_path, monkeypatch, "postinst", "configure", "0.1", state="inactive") == [
        "systemctl start holdpayd.service"
    ]


@pytest.mark.parametrize("state", ["inactive", "failed"])
def test_an_upgrade_starts_no_daemon_that_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    assert ran(tmp_path, monkeypatch, "prerm", "upgrade", "0.2", state=state) == []
    assert ran(tmp_path, monkeypatch, "postinst", "configure", "0.1", state="inactive") == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_maintainer_script_is_one_that_every_shell_reads(name: str) -> None:
    assert (DEBIAN / name).read_text().startswith("#!/bin/sh\n")
    subprocess.run(["sh", "-n", DEBIAN / name], check=True)


def test_the_configuration_of_the_package_is_taken_once_its_files_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (DEBIAN / "config.toml").read_text()
    assert text.count("/etc/holdpay/tls.cert") == 1
    (tmp_path / "tls.cert").write_bytes(dated_certificate(-1, 100)[1])
    (tmp_path / "macaroon").write_bytes(bytes.fromhex("0201036c6e64"))
    (tmp_path / "macaroon").chmod(0o600)
    (tmp_path / "config.toml").write_text(text.replace("/etc/holdpay/tls.cert", str(tmp_path / "tls.cert")))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert load(tmp_path / "config.toml").warnings() == []
