"""Make or refresh a virtual environment from the locked, hashed dependencies in requirements/.

    python3 scripts/make_venv.py DIR LEVEL [--wheel]

Run through scripts/lib.sh, which finds a Python that is new enough. Standard library only: this is what runs on a bare
machine. Nothing unhashed is ever fetched: wheels only, the one package that has none is built with the locked
setuptools, and the project itself with the locked hatchling, outside the environment.

A second run with nothing changed is quick. Two runs at once wait for each other (flock on the parent folder).
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import fcntl
import hashlib
import html
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
STAMP = ".holdpay-stamp"
UNFINISHED = "unfinished\n"
DEFAULT_INDEX = "https://pypi.org/simple"
INDEX_TIMEOUT_S = 30
MAX_BODY_BYTES = 16 * 1024 * 1024
SCRUBBED = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_REQUIRE_VIRTUALENV")


class SetupError(Exception):
    """What went wrong, and what to do next, for the person at the terminal."""


@dataclass(frozen=True, slots=True)
class Level:
    """What an environment holds. `sdists` names the packages that are published without a wheel."""

    lock: str
    project: bool
    sdists: tuple[str, ...] = ()


LEVELS = {
    "runtime": Level("runtime.txt", project=True),
    "dev": Level("dev.txt", project=True),
    "plots": Level("plots.txt", project=False),
    "docs": Level("docs.txt", project=False),
    "lndgrpc": Level("lndgrpc.txt", project=False, sdists=("protobuf3-to-dict",)),
    "build": Level("build.txt", project=False),
}
# What an environment of this level can stand in for: dev.txt contains every line of runtime.txt.
COVERED_BY = {level: (level,) for level in LEVELS} | {"runtime": ("runtime", "dev")}


def main() -> int:
    parser = argparse.ArgumentParser(description="Make or refresh a virtual environment from requirements/*.txt.")
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("level", choices=LEVELS)
    parser.add_argument("--wheel", action="store_true", help="install the project as a wheel, not editable")
    arguments = parser.parse_args()
    try:
        ensure(arguments.directory.absolute(), arguments.level, editable=not arguments.wheel)
    except SetupError as error:
        print(f"holdpay: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("holdpay: interrupted; run the command again to finish the set-up.", file=sys.stderr)
        return 130
    return 0


def ensure(directory: Path, level: str, *, editable: bool) -> None:
    """Bring `directory` to `level`. Raises SetupError."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(directory.parent):
        if is_current(directory, level, editable=editable):
            return
        lock = LEVELS[level].lock
        with_python = f"Python {platform.python_version()} ({sys.executable})"
        say(
            f"Setting up {shown(directory)} with {with_python} from requirements/{lock}; the first time takes a minute."
        )
        discard_broken(directory)
        directory.mkdir(exist_ok=True)
        stamp = directory / STAMP
        stamp.write_text(UNFINISHED)
        with tempfile.TemporaryDirectory(prefix="holdpay-setup-") as scratch:
            installer = Installer(directory, Path(scratch), shutil.which("uv"))
            installer.create()
            installer.install(LEVELS[level], editable=editable)
        stamp.write_text(json.dumps({"level": level, "key": key(directory, level, editable=editable)}) + "\n")


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold a lock on the folder itself, so that no lock file is left behind."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another run is setting up here; waiting for it.")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_current(directory: Path, level: str, *, editable: bool) -> bool:
    try:
        stamp = json.loads((directory / STAMP).read_text())
    except (OSError, ValueError):
        return False
    made = stamp["level"]
    return made in COVERED_BY[level] and stamp["key"] == key(directory, made, editable=editable)


def key(directory: Path, level: str, *, editable: bool) -> str:
    """A hash of everything the environment was made from, its own place (scripts name it) and its interpreter."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packaging = [pyproject["build-system"], pyproject["project"], pyproject["tool"]["hatch"]]
    parts = [
        str(directory),
        str(ROOT),
        interpreter(directory),
        (REQUIREMENTS / LEVELS[level].lock).read_text(),
        json.dumps(packaging, sort_keys=True) if LEVELS[level].project else "",
        "editable" if editable else "wheel",
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def interpreter(directory: Path) -> str:
    """Path and version of the interpreter behind the environment; empty where it does not start any more."""
    code = "import sys; print(sys.version); print(sys.base_prefix)"
    try:
        return subprocess.run(
            [directory / "bin" / "python", "-Ic", code], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""


def discard_broken(directory: Path) -> None:
    """Remove an environment that was left half made, or whose interpreter is gone; any other is brought up to date.

    Raises SetupError for a folder that is something else.
    """
    if not directory.exists():
        return
    stamp = directory / STAMP
    if not (stamp.exists() or (directory / "pyvenv.cfg").exists() or next(directory.iterdir(), None) is None):
        raise SetupError(f"{directory} exists and is not a virtual environment; move it away and run this again.")
    if not interpreter(directory) or (stamp.exists() and stamp.read_text() == UNFINISHED):
        shutil.rmtree(directory)


class Installer:
    """Installs into one environment, by uv where it is on PATH, else by pip."""

    def __init__(self, directory: Path, scratch: Path, uv: str | None) -> None:
        self._python = directory / "bin" / "python"
        self._directory = directory
        self._scratch = scratch
        self._uv = uv

    def create(self) -> None:
        """Make the environment unless it is there, and see to a pip in it where there is no uv. Raises SetupError."""
        if not self._python.exists():
            if importlib.util.find_spec("venv") is None:
                raise SetupError(
                    "this Python has no venv module. Install it (Debian: apt install python3-venv) and run this again."
                )
            bare = self._uv is not None or importlib.util.find_spec("ensurepip") is None
            without_pip: list[str | Path] = ["--without-pip"] if bare else []
            run([sys.executable, "-m", "venv", *without_pip, self._directory])
        if self._uv is None and not self._has_pip():
            wheel = fetch_pip(self._scratch)
            run([self._python, f"{wheel}/pip", "install", *PIP_OPTIONS, "--no-index", "--no-deps", wheel])

    def _has_pip(self) -> bool:
        probe: list[str | Path] = [self._python, "-Ic", "import pip"]
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0

    def install(self, level: Level, *, editable: bool) -> None:
        """Install the lock of the level, then the project. Raises SetupError."""
        backend = self._scratch / "backend"
        if level.project or level.sdists:
            self._install("--target", backend, *locked("build.txt"))
        options = locked(level.lock)
        for name in level.sdists:
            options += ["--no-binary", name, "--no-build-isolation"]
        if level.sdists and self._uv is None:
            options.append("--ignore-installed")  # else pip counts what it sees in `backend` as installed
        self._install(*options, backend=backend if level.sdists else None)
        if level.project:
            source = ["--editable", ROOT] if editable else [ROOT]
            again = "--force-reinstall" if self._uv is None else "--reinstall"
            self._install("--no-deps", "--no-build-isolation", again, *source, backend=backend)

    def _install(self, *options: str | Path, backend: Path | None = None) -> None:
        if self._uv is not None:
            command = [self._uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", self._python, *options]
        else:
            command = [self._python, "-m", "pip", "install", *PIP_OPTIONS, *options]
        run(command, backend)


PIP_OPTIONS = ("--quiet", "--disable-pip-version-check", "--no-input", "--no-warn-script-location")


def locked(lock: str) -> list[str | Path]:
    return ["--require-hashes", "--only-binary", ":all:", "--requirement", REQUIREMENTS / lock]


def run(command: list[str | Path], backend: Path | None = None) -> None:
    """Run an installer. `backend` holds the build backends that an unisolated build may import. Raises SetupError."""
    environment = {name: value for name, value in os.environ.items() if name not in SCRUBBED}
    environment["PIP_ROOT_USER_ACTION"] = "ignore"
    environment.setdefault("PIP_RETRIES", "2")  # pip's five keep a person without network waiting for a minute
    if "PIP_INDEX_URL" in environment:
        environment.setdefault("UV_DEFAULT_INDEX", environment["PIP_INDEX_URL"])
    if backend is not None:
        environment["PYTHONPATH"] = str(backend)
    ended = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
    if ended.returncode != 0:
        fetch(index() + "pip/")  # raises the clearer sentence when the index is what failed
        what = " ".join(str(word) for word in command)
        raise SetupError(f"the set-up stopped at `{what}`; its own words are above. Mend that and run this again.")


def index() -> str:
    return os.environ.get("PIP_INDEX_URL", DEFAULT_INDEX).rstrip("/") + "/"


def fetch(url: str) -> bytes:
    """The body behind an http(s) URL. Raises SetupError when it cannot be had."""
    parts = urllib.parse.urlsplit(url)
    login, _, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(parts._replace(netloc=host).geturl())
    if login:
        token = base64.b64encode(urllib.parse.unquote(login).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    try:
        with urllib.request.urlopen(request, timeout=INDEX_TIMEOUT_S) as reply:
            body: bytes = reply.read(MAX_BODY_BYTES)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise SetupError(
            f"the package index at {host} cannot be reached ({reason}). "
            "Check the network (PIP_INDEX_URL names another index) and run this again."
        ) from error
    return body


def fetch_pip(scratch: Path) -> Path:
    """Download the pip wheel that requirements/build.txt names, and check it against the hashes there.

    For Debian's bare python3, which has venv and no ensurepip. The wheel runs as it is: `python pip.whl/pip install`.
    Raises SetupError.
    """
    version, hashes = locked_pip()
    name = f"pip-{version}-py3-none-any.whl"
    page_url = index() + "pip/"
    page = fetch(page_url).decode(errors="replace")
    link = re.search(rf"""href\s*=\s*["']([^"'#]*{re.escape(name)})[#"']""", page)
    if link is None:
        raise SetupError(f"the package index has no {name}; let PIP_INDEX_URL name one that has it and run this again.")
    body = fetch(urllib.parse.urljoin(page_url, html.unescape(link[1])))
    if hashlib.sha256(body).hexdigest() not in hashes:
        raise SetupError(
            f"{name} from the package index is not the file that requirements/build.txt names; nothing of it was run. "
            "Let PIP_INDEX_URL name an index you trust and run this again."
        )
    wheel = scratch / name
    wheel.write_bytes(body)
    return wheel


def locked_pip() -> tuple[str, frozenset[str]]:
    """Version and sha256 sums of pip in requirements/build.txt."""
    lock = (REQUIREMENTS / "build.txt").read_text()
    entry = re.search(r"^pip==(\S+) \\\n((?:\s+--hash=sha256:\S+.*\n)+)", lock, re.MULTILINE)
    if entry is None:
        raise SetupError("requirements/build.txt pins no pip; run scripts/lock.")
    return entry[1], frozenset(re.findall(r"[0-9a-f]{64}", entry[2]))


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
