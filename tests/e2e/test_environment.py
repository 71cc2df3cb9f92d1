"""The environment that scripts/demo, scripts/test and scripts/install make, and the locks it is made from."""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from scripts import make_venv

ROOT = Path(__file__).parents[2]
LOCKS = ("runtime.txt", "dev.txt", "plots.txt", "build.txt", "lndgrpc.txt")


def pins(lock: str) -> dict[str, str]:
    text = (ROOT / "requirements" / lock).read_text()
    return dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))


# --- locks ---


@pytest.mark.parametrize("lock", LOCKS)
def test_every_line_of_a_lock_has_a_hash_and_names_no_place(lock: str) -> None:
    text = (ROOT / "requirements" / lock).read_text()
    entries = re.split(r"^(?=\w)", re.sub(r"^ *#.*\n", "", text, flags=re.MULTILINE), flags=re.MULTILINE)
    assert entries
    for entry in filter(None, entries):
        assert "--hash=sha256:" in entry, entry
    assert not re.search(r"://|index-url|find-links| file:|^/| /", text, re.MULTILINE)


def test_the_development_lock_holds_the_runtime_lock() -> None:
    assert pins("runtime.txt").items() <= pins("dev.txt").items()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What scripts/lock reads, in a folder of its own."""
    for name in ("scripts", "requirements"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lock_check(checkout: Path) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [sys.executable, checkout / "scripts" / "lock", "--check"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_locks_belong_to_this_pyproject(checkout: Path) -> None:
    assert lock_check(checkout).returncode == 0


def test_a_dependency_added_without_a_new_lock_is_noticed_without_network(checkout: Path) -> None:
    pyproject = checkout / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace('"click>=8.1",', '"click>=8.1", "attrs>=25",'))
    done = lock_check(checkout)
    assert done.returncode == 1
    assert "requirements/runtime.txt does not belong to this pyproject.toml; run scripts/lock." in done.stderr


def test_a_change_of_the_linters_settings_needs_no_new_lock(checkout: Path) -> None:
    pyproject = checkout / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace("line-length = 120", "line-length = 100"))
    assert lock_check(checkout).returncode == 0


# --- when an environment is made again ---


class Builder:
    """Makes an environment without installing anything into it, and counts."""

    built: ClassVar[list[str]] = []
    fails: ClassVar[bool] = False

    def __init__(self, directory: Path, scratch: Path, uv: str | None) -> None:
        self._directory = directory

    def create(self) -> None:
        if not (self._directory / "bin" / "python").exists():
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", self._directory], check=True)

    def install(self, level: make_venv.Level, *, editable: bool) -> None:
        if Builder.fails:
            raise make_venv.SetupError("the index is away.")
        Builder.built.append(level.lock)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The locks that were installed, in order."""
    monkeypatch.setattr(make_venv, "Installer", Builder)
    monkeypatch.setattr(Builder, "built", [])
    return Builder.built


def test_a_second_run_with_nothing_changed_installs_nothing(built: list[str], tmp_path: Path) -> None:
    for _ in range(2):
        make_venv.ensure(tmp_path / "v", "runtime", editable=True)
    assert built == ["runtime.txt"]


def test_a_development_environment_serves_the_demo_too(built: list[str], tmp_path: Path) -> None:
    for level in ("runtime", "dev", "runtime"):
        make_venv.ensure(tmp_path / "v", level, editable=True)
    assert built == ["runtime.txt", "dev.txt"]


def test_a_changed_lock_is_installed(built: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_venv.ensure(tmp_path / "v", "runtime", editable=True)
    changed = tmp_path / "requirements"
    shutil.copytree(ROOT / "requirements", changed)
    with (changed / "runtime.txt").open("a") as lock:
        lock.write("# changed\n")
    monkeypatch.setattr(make_venv, "REQUIREMENTS", changed)
    make_venv.ensure(tmp_path / "v", "runtime", editable=True)
    assert built == ["runtime.txt", "runtime.txt"]


def test_a_set_up_that_was_cut_short_starts_afresh(
    built: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Builder, "fails", True)
    with pytest.raises(make_venv.SetupError):
        make_venv.ensure(tmp_path / "v", "runtime", editable=True)
    (tmp_path / "v" / "half-written").touch()
    monkeypatch.setattr(Builder, "fails", False)
    make_venv.ensure(tmp_path / "v", "runtime", editable=True)
    assert built == ["runtime.txt"]
    assert not (tmp_path / "v" / "half-written").exists()


def test_an_environment_whose_python_is_gone_is_made_again(built: list[str], tmp_path: Path) -> None:
    make_venv.ensure(tmp_path / "v", "runtime", editable=True)
    python = tmp_path / "v" / "bin" / "python"
    python.unlink()
    python.symlink_to(tmp_path / "uninstalled")
    make_venv.ensure(tmp_path / "v", "runtime", editable=True)
    assert built == ["runtime.txt", "runtime.txt"]
    assert make_venv.interpreter(tmp_path / "v")


def test_a_folder_that_is_something_else_is_left_alone(built: list[str], tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "letter.txt").write_text("keep me")
    with pytest.raises(make_venv.SetupError, match="not a virtual environment"):
        make_venv.ensure(tmp_path / "v", "runtime", editable=True)
    assert (tmp_path / "v" / "letter.txt").read_text() == "keep me"


def test_two_runs_at_once_make_it_once(built: list[str], tmp_path: Path) -> None:
    runs = [
        threading.Thread(target=make_venv.ensure, args=(tmp_path / "v", "runtime"), kwargs={"editable": True})
        for _ in range(2)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert built == ["runtime.txt"]


# --- a Python without ensurepip ---


class Index(BaseHTTPRequestHandler):
    """A package index with one wheel, which may not be the one that was locked."""

    version: ClassVar[str] = ""
    wheel: ClassVar[bytes] = b""
    authorized: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        Index.authorized.append(self.headers["Authorization"])
        name = f"pip-{self.version}-py3-none-any.whl"
        page = f'<a href="pip-1.0-py3-none-any.whl">1</a> <a href="../../files/{name}#sha256=0">2</a>'
        body = self.wheel if self.path == f"/files/{name}" else page.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name is the base class's)
        pass


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Index]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Index)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("PIP_INDEX_URL", f"http://me:p%40ss@127.0.0.1:{server.server_port}/simple")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(Index, "version", make_venv.locked_pip()[0])
    monkeypatch.setattr(Index, "authorized", [])
    yield Index
    server.shutdown()
    server.server_close()


def test_a_pip_that_is_not_the_locked_one_is_refused(index: type[Index], tmp_path: Path) -> None:
    index.wheel = b"something else"
    with pytest.raises(make_venv.SetupError, match=r"not the file that requirements/build\.txt names"):
        make_venv.fetch_pip(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_locked_pip_is_fetched_from_the_index_that_pip_index_url_names(
    index: type[Index], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.wheel = b"the locked pip"
    expected = frozenset([hashlib.sha256(index.wheel).hexdigest()])
    monkeypatch.setattr(make_venv, "locked_pip", lambda: (index.version, expected))
    assert make_venv.fetch_pip(tmp_path).read_bytes() == b"the locked pip"
    assert index.authorized == ["Basic bWU6cEBzcw=="] * 2  # me:p@ss


def test_an_index_without_the_locked_pip_is_named_as_the_reason(index: type[Index], tmp_path: Path) -> None:
    index.version = "0.0"
    with pytest.raises(make_venv.SetupError, match="the package index has no pip-"):
        make_venv.fetch_pip(tmp_path)


def test_no_network_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://me:secret@127.0.0.1:9/simple")
    with pytest.raises(make_venv.SetupError) as caught:
        make_venv.run([sys.executable, "-c", "raise SystemExit(1)"])
    assert "the package index at 127.0.0.1:9 cannot be reached" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.fixture
def reachable_index() -> None:
    try:
        make_venv.fetch(make_venv.index() + "pip/")
    except make_venv.SetupError as error:
        pytest.skip(f"needs the package index: {error}")


@pytest.mark.usefixtures("reachable_index")
def test_a_python_without_ensurepip_gets_the_locked_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ensurepip" else find_spec(name))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    make_venv.Installer(tmp_path / "v", scratch, uv=None).create()
    said = subprocess.run(
        [tmp_path / "v/bin/python", "-m", "pip", "--version"], capture_output=True, text=True, check=True
    )
    assert said.stdout.startswith(f"pip {make_venv.locked_pip()[0]} from {tmp_path / 'v'}")


# --- finding a Python ---


def shell(code: str, *, path: Path) -> subprocess.CompletedProcess[str]:
    tools = {name: shutil.which(name) for name in ("bash", "dirname")}
    for name, program in tools.items():
        assert program is not None
        (path / name).symlink_to(program)
    script = f". {ROOT}/scripts/lib.sh; {code}"
    return subprocess.run(
        [path / "bash", "-c", script], env={"PATH": str(path)}, capture_output=True, text=True, check=False
    )


def script(path: Path, text: str) -> None:
    path.write_text(f"#!{path.parent}/bash\n{text}\n")
    path.chmod(0o755)


def test_a_python_that_is_too_old_is_named(tmp_path: Path) -> None:
    script(tmp_path / "python3", '[ "$1" = -V ] && echo Python 3.9.2 || exit 1')
    done = shell("find_python", path=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "holdpay: no Python 3.11 or later was found (python3 is Python 3.9.2).",
        "Install one (Debian 12 and later: apt install python3) and run this again.",
    ]


def test_a_newer_python_beside_an_old_one_is_taken(tmp_path: Path) -> None:
    script(tmp_path / "python3", "exit 1")
    (tmp_path / "python3.12").symlink_to(Path(os.path.realpath(sys.executable)))
    assert shell("find_python", path=tmp_path).stdout.strip() == str(tmp_path / "python3.12")


def _python(path: Path, minor: int) -> None:
    """A python3.MINOR that knows its own version."""
    real = os.path.realpath(sys.executable)
    script(
        path,
        f"""[ "$1" = -V ] && {{ echo Python 3.{minor}.0; exit; }}
exec {real} -c "import sys; sys.version_info = (3, {minor}, 0); exec(sys.argv[1])" "$2" """,
    )


def test_a_python_with_every_wheel_is_taken_before_a_newer_one(tmp_path: Path) -> None:
    _python(tmp_path / "python3", 14)
    _python(tmp_path / "python3.13", 13)
    done = shell("find_python", path=tmp_path)
    assert (done.stdout.strip(), done.stderr) == (str(tmp_path / "python3.13"), "")


def test_a_python_that_cannot_run_the_sandbox_is_taken_last_and_that_is_said(tmp_path: Path) -> None:
    _python(tmp_path / "python3.14", 14)
    done = shell("find_python", path=tmp_path)
    assert done.stdout.strip() == str(tmp_path / "python3.14")
    assert done.stderr.startswith("holdpay: only Python 3.14.0 was found. The daemon runs on it; the sandbox")


def test_what_only_the_sandbox_needs_and_python_3_14_lacks_is_locked_for_earlier_ones_only() -> None:
    for lock in ("runtime.txt", "dev.txt"):
        text = (ROOT / "requirements" / lock).read_text()
        assert re.search(r"^coincurve==\S+ ; python_full_version < '3\.14' \\$", text, re.MULTILINE)


def test_a_lock_that_lacks_a_wheel_for_some_python_is_not_left_unsaid(checkout: Path, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    uv = programs / "uv"
    # It compiles everything, and finds no wheel in runtime.txt for Python 3.14.
    uv.write_text(
        """#!/bin/sh
case "$*" in
  *compile*) exit 0 ;;
  *"--python-version 3.14"*runtime.txt) echo no wheel >&2; exit 1 ;;
esac
"""
    )
    uv.chmod(0o755)
    environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
    command: list[str | Path] = [sys.executable, checkout / "scripts" / "lock"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if "does not install" in line]
    assert len(said) == 1
    assert said[0].startswith("requirements/runtime.txt does not install on Python 3.14")


def test_without_a_python_the_one_of_uv_is_taken(tmp_path: Path) -> None:
    script(tmp_path / "uv", "echo /from/uv/python3.13")
    assert shell("find_python", path=tmp_path).stdout.strip() == "/from/uv/python3.13"


def test_without_any_python_the_next_step_is_said(tmp_path: Path) -> None:
    done = shell("find_python", path=tmp_path)
    assert done.returncode == 1
    assert "python3 is absent" in done.stderr
