"""scripts/install, run for real below a folder of its own (`--root`): install, upgrade, refusals, uninstall.

What needs root and systemd (user, ownership, the running unit) is beyond these tests; see the README, what was tried.
"""

import fcntl
import os
import re
import stat
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from holdpay.store.store import SqliteStore
from scripts import make_venv
from tests.unit.audit.books import FULFILLED, HELD
from tests.unit.audit.test_database import live
from tests.unit.build import order

ROOT = Path(__file__).parents[2]
INSTALL = ROOT / "scripts" / "install"
# For pip and for uv: an index that refuses, and neither cache nor patience.
OFFLINE = {
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    "PIP_NO_CACHE_DIR": "1",
    "PIP_RETRIES": "0",
    "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple",
    "UV_HTTP_RETRIES": "0",
    "UV_NO_CACHE": "1",
}


def install(*options: str | Path, said: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [INSTALL, *options], env=os.environ | environment, input=said, capture_output=True, text=True, check=False
    )


def versions(below: Path) -> list[str]:
    return sorted(path.name for path in (below / "opt/holdpay/versions").iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(scope="module")
def below(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished installation; tests that change it take a copy of what they change back."""
    try:
        make_venv.fetch(make_venv.index() + "pip/")
    except make_venv.SetupError as error:
        pytest.skip(f"needs the package index: {error}")
    folder = tmp_path_factory.mktemp("machine")
    done = install("--root", folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_both_commands_start_from_where_the_links_lead(below: Path) -> None:
    for name in ("holdpay", "holdpayd"):
        assert (below / "usr/local/bin" / name).readlink() == Path("/opt/holdpay/bin") / name
        done = subprocess.run(
            [below / "opt/holdpay/bin" / name, "--help"], capture_output=True, text=True, check=False, cwd="/"
        )
        assert done.returncode == 0, done.stderr
        assert "Usage: " in done.stdout or "usage: " in done.stdout


def test_the_program_stands_alone_without_the_checkout_and_without_the_build_tools(below: Path) -> None:
    code = "import holdpay, importlib.util as u; print(holdpay.__file__, u.find_spec('hatchling'))"
    python = below / "opt/holdpay/current/bin/python"
    said = subprocess.run([python, "-Ic", code], capture_output=True, text=True, check=True, cwd="/").stdout.split()
    assert Path(said[0]).is_relative_to(below)
    assert said[1] == "None"


def test_the_configuration_is_the_documented_example_and_not_for_everybody(below: Path) -> None:
    configuration = below / "etc/holdpay/config.toml"
    assert configuration.read_text() == (ROOT / "config.example.toml").read_text()
    assert mode(configuration) == 0o640
    assert mode(configuration.parent) == 0o750
    assert mode(below / "var/lib/holdpay") == 0o700


@pytest.mark.parametrize("name", ["holdpayd.service", "holdpayd-backup.service", "holdpayd-backup.timer"])
def test_the_units_run_the_program_of_the_prefix(below: Path, name: str) -> None:
    assert (below / "etc/systemd/system" / name).read_text() == (ROOT / "systemd" / name).read_text()


def test_completion_and_man_pages_of_both_programs_are_there(below: Path) -> None:
    share = below / "usr/local/share"
    for program in ("holdpay", "holdpayd"):
        completions = {
            "bash": share / "bash-completion/completions" / program,
            "zsh": share / "zsh/site-functions" / f"_{program}",
            "fish": share / "fish/vendor_completions.d" / f"{program}.fish",
        }
        for shell, completion in completions.items():
            assert f"_{program.upper()}_COMPLETE={shell}_complete" in completion.read_text()
    for page in ("man1/holdpay.1", "man5/holdpay.toml.5", "man8/holdpayd.8"):
        assert (share / "man" / page).read_text().startswith('.TH "HOLDPAY')


def test_user_and_rights_are_known_to_systemd(below: Path) -> None:
    for name in ("sysusers", "tmpfiles"):
        there = below / f"usr/local/lib/{name}.d/holdpay.conf"
        assert there.read_text() == (ROOT / "systemd" / f"holdpay.{name}.conf").read_text()


def test_an_upgrade_keeps_the_configuration_and_the_environment_that_may_still_run(below: Path) -> None:
    configuration = below / "etc/holdpay/config.toml"
    mine = configuration.read_text() + "# mine\n"
    configuration.write_text(mine)
    before = (below / "opt/holdpay/current").readlink().name
    done = install("--root", below, PIP_NO_COMPILE="1")
    assert done.returncode == 0, done.stderr
    after = (below / "opt/holdpay/current").readlink().name
    assert configuration.read_text() == mine
    assert versions(below) == [before, after]
    assert (below / "etc/holdpay/config.example.toml").read_text() == (ROOT / "config.example.toml").read_text()
    configuration.write_text(mine.removesuffix("# mine\n"))


def test_an_upgrade_that_fails_leaves_the_installed_version_at_work(below: Path) -> None:
    before = ((below / "opt/holdpay/current").readlink(), versions(below))
    done = install("--root", below, **OFFLINE)
    assert done.returncode != 0
    assert "cannot be reached" in done.stderr
    assert done.stderr.endswith("scripts/install: stopped; the version installed before is as it was.\n")
    assert ((below / "opt/holdpay/current").readlink(), versions(below)) == before


def test_a_first_install_that_fails_leaves_no_program_behind(tmp_path: Path) -> None:
    done = install("--root", tmp_path, **OFFLINE)
    assert done.returncode != 0
    assert done.stderr.endswith("scripts/install: stopped; no program was installed.\n")
    assert not (tmp_path / "opt/holdpay").exists()
    assert not (tmp_path / "etc").exists()


def test_another_prefix_beside_an_installation_is_refused(below: Path) -> None:
    done = install("--root", below, "--prefix", "/srv/holdpay")
    assert done.returncode != 0
    assert "already there (/opt/holdpay/bin/holdpay), not from /srv/holdpay." in done.stderr
    assert not (below / "srv").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--prefix"], "--prefix needs a folder"),
        (["--prefix", "/"], "absolute folder of its own"),
        (["--prefix", "/holdpay"], "absolute folder of its own"),
        (["--prefix", "opt/holdpay"], "absolute folder of its own"),
        (["--prefix", "/opt/hold pay"], "characters that a unit file would misread"),
        (["--prefix", "/opt/../usr"], "characters that a unit file would misread"),
        (["--root", "here"], "--root must be an absolute folder"),
        (["--remove"], "--remove is not an option"),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused(options: list[str], said: str) -> None:
    done = install(*options)
    assert done.returncode == 1
    assert said in done.stderr


def test_a_folder_with_something_else_in_it_is_not_taken_as_prefix(tmp_path: Path) -> None:
    (tmp_path / "opt/holdpay").mkdir(parents=True)
    (tmp_path / "opt/holdpay/letter.txt").write_text("keep me")
    done = install("--root", tmp_path)
    assert done.returncode == 1
    assert "holds something else" in done.stderr
    assert (tmp_path / "opt/holdpay/letter.txt").read_text() == "keep me"


@pytest.mark.parametrize("action", [(), ("--purge",)])
def test_beside_the_debian_package_it_is_refused(tmp_path: Path, action: tuple[str, ...]) -> None:
    unit = tmp_path / "usr/lib/systemd/system/holdpayd.service"
    data = tmp_path / "var/lib/holdpay/letter.txt"
    for file in (unit, data):
        file.parent.mkdir(parents=True)
        file.touch()
    done = install("--root", tmp_path, *action, said="delete\n")
    assert done.returncode == 1
    assert "Debian package is installed here" in done.stderr
    assert files(tmp_path) == {str(path.relative_to(tmp_path)) for path in (unit, data)}


def test_without_root_the_machine_itself_is_refused(tmp_path: Path) -> None:
    somebody = tmp_path / "id"
    somebody.write_text("#!/bin/sh\necho 1000\n")
    somebody.chmod(0o755)
    done = install(PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 1
    assert "this needs root: sudo scripts/install" in done.stderr


def test_uninstalling_where_nothing_is_says_so(tmp_path: Path) -> None:
    done = install("--root", tmp_path, "--uninstall")
    assert done.returncode == 1
    assert "there is no holdpay at" in done.stderr


@pytest.mark.parametrize("place", ["var/lib/holdpay", "srv"])
def test_a_purge_with_an_order_open_is_refused_and_removes_nothing(below: Path, place: str) -> None:
    configuration, database = below / "etc/holdpay/config.toml", below / place / "holdpay.db"
    before = configuration.read_text()
    database.parent.mkdir(exist_ok=True)
    if place == "srv":
        configuration.write_text(f'[daemon]\nstate_dir = "{database.parent}"\n')
    with closing(SqliteStore(database)) as store:
        live(store, order(), *HELD)
    done = install("--root", below, "--purge", said="delete\n")
    assert done.returncode == 1
    assert "1 orders are not over: money is out" in done.stderr
    assert (below / "opt/holdpay/current/bin/holdpayd").exists()
    assert database.exists()
    configuration.write_text(before)
    for file in database.parent.glob("holdpay.db*"):
        file.unlink()


def test_a_purge_that_an_order_comes_before_keeps_the_program_too(below: Path) -> None:
    """After the first look, while the word is awaited."""
    before, database = files(below), below / "var/lib/holdpay/holdpay.db"
    purging = subprocess.Popen(
        [INSTALL, "--root", below, "--purge"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert purging.stdout is not None
    while not purging.stdout.read(1).startswith(b":"):
        assert purging.poll() is None
    with closing(SqliteStore(database)) as store:
        live(store, order(), *HELD)
    _, said = purging.communicate(b"delete\n", timeout=60)
    assert purging.returncode == 1
    assert b"1 orders are not over: money is out" in said
    assert files(below) >= before
    for file in database.parent.glob("holdpay.db*"):
        file.unlink()


@pytest.mark.parametrize("action", ["--purge", "--uninstall"])
def test_while_another_run_is_at_work_nothing_is_asked_stopped_or_removed(below: Path, action: str) -> None:
    before, folder = files(below), os.open(below / "opt/holdpay", os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    done = install("--root", below, action, said="delete\n")
    os.close(folder)
    assert done.returncode == 1
    assert "another run is at work" in done.stderr
    assert (done.stdout, files(below)) == ("", before)


def test_a_purge_of_a_lost_database_says_which_files_to_move_away(below: Path) -> None:
    newest = below / "var/lib/holdpay/holdpay.db.newest"
    newest.write_text("7\n")
    done = install("--root", below, "--purge", said="delete\n")
    assert done.returncode == 1
    assert "holdpay.db is lost, and orders were in it: holdpay.db.newest beside it says so." in done.stderr
    assert "move holdpay.db and holdpay.db.newest away" in " ".join(done.stderr.replace("scripts/install:", "").split())
    newest.unlink()
    assert (below / "opt/holdpay/current/bin/holdpayd").exists()


def test_a_purge_without_the_word_removes_nothing_at_all(below: Path) -> None:
    before = files(below)
    done = install("--root", below, "--purge", said="no\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\nNothing was removed.\n")
    assert files(below) == before


def test_uninstalling_removes_the_program_and_keeps_configuration_and_state(below: Path) -> None:
    with closing(SqliteStore(below / "var/lib/holdpay/holdpay.db")) as store:
        live(store, order(), *FULFILLED)
    done = install("--root", below, "--uninstall")
    assert done.returncode == 0, done.stderr
    data = {"var/lib/holdpay/holdpay.db", "var/lib/holdpay/holdpay.db.newest"}
    assert files(below) == {"etc/holdpay/config.toml", "etc/holdpay/config.example.toml"} | data
    assert "holdpay.db.newest" in done.stdout
    for kept in ("etc/holdpay", "var/lib/holdpay"):
        assert re.search(rf"^  {below / kept} ", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("word", ["", "yes\n", "delete it\n"])
def test_a_purge_without_the_word_keeps_the_data(below: Path, word: str) -> None:
    done = install("--root", below, "--purge", said=word)
    assert done.returncode == 0, done.stderr
    assert "Nothing was removed." in done.stdout
    assert (below / "var/lib/holdpay/holdpay.db").exists()


def test_a_purge_with_the_word_leaves_nothing(below: Path) -> None:
    done = install("--root", below, "--purge", said="delete\n")
    assert done.returncode == 0, done.stderr
    assert "Nothing of holdpay is left" in done.stdout
    assert files(below) == set()


def test_a_purge_names_a_database_that_it_leaves_elsewhere(below: Path) -> None:
    configuration, database = below / "etc/holdpay/config.toml", below / "srv/holdpay.db"
    for file in (configuration, database):
        file.parent.mkdir(parents=True, exist_ok=True)
    configuration.write_text(f'[daemon]\nstate_dir = "{database.parent}"\n')
    with closing(SqliteStore(database)) as store:
        live(store, order(), *FULFILLED)
    done = install("--root", below, "--purge", said="delete\n")
    assert done.returncode == 0, done.stderr
    assert f"Kept, since only the configuration named it: {database}, and what is beside it." in done.stdout
    assert "Nothing else of holdpay is left" in done.stdout
    assert files(below) == {"srv/holdpay.db", "srv/holdpay.db.newest"}


def files(below: Path) -> set[str]:
    return {str(path.relative_to(below)) for path in below.rglob("*") if not path.is_dir()}
