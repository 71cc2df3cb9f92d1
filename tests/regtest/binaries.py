"""Finds lnd and btcd, or builds them with Go from the pinned modules in `go/`.

In order: `lnd` and `btcd` on PATH when that lnd is of the wanted release; the cache (`HOLDPAY_REGTEST_CACHE`, default
`.cache/regtest` of the checkout), one folder for each release; a build into that cache (two to six minutes).

What is built can keep its database in SQLite (lnd's build tag `kvdb_sqlite`), as lnd's own releases can, and takes
the wallet's password lightly (`lowscrypt`): else each start of a node would take seconds of a core for it, and a new
wallet's twice as many. Nothing of what a node does is another for it.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
DEFAULT_CACHE: Final = HERE.parents[1] / ".cache" / "regtest"

DEFAULT_VERSION: Final = "0.21.0"
# Release to build -> start of the versions that PATH may offer instead.
ACCEPTED_ON_PATH: Final = {"0.21.0": "0.21.", "0.18.5": "0.18.5"}

PACKAGES: Final = (
    "github.com/btcsuite/btcd",
    "github.com/lightningnetwork/lnd/cmd/lncli",
    "github.com/lightningnetwork/lnd/cmd/lnd",
)
# The first Go whose go.mod has `tool` lines. A module that asks for more says so itself, and the build hands that on.
OLDEST_GO: Final = (1, 24)
STAMP: Final = "built-from"
TAGS: Final = ("invoicesrpc", "kvdb_sqlite", "lowscrypt")
"""Of the build; also in the name of the folder."""


class Unavailable(Exception):
    """lnd or btcd can neither be found nor built; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Binaries:
    """Programs of one release. `lncli` may be absent from a PATH install: only people need it."""

    lnd: Path
    btcd: Path
    lncli: Path | None


def ensure(version: str = DEFAULT_VERSION) -> Binaries:
    """Binaries of lnd `version` (a key of `ACCEPTED_ON_PATH`); builds them when needed, which takes minutes.

    Raises Unavailable.
    """
    if version not in ACCEPTED_ON_PATH:
        raise Unavailable(
            f"lnd {version} is not among the releases tested. Choose one of {', '.join(ACCEPTED_ON_PATH)}."
        )
    if (installed := _on_path(version)) is not None:
        return installed
    cache = Path(os.environ.get("HOLDPAY_REGTEST_CACHE") or DEFAULT_CACHE).absolute()
    module = HERE / "go" / f"lnd-{version}"
    fingerprint = _fingerprint(module)
    folder = cache / "-".join([version, *TAGS])
    with _locked(cache, version):
        if not _is_built_from(folder, fingerprint):
            _build(version, module, folder, fingerprint)
    return Binaries(folder / "lnd", folder / "btcd", folder / "lncli")


def _on_path(version: str) -> Binaries | None:
    lnd, btcd, lncli = (shutil.which(name) for name in ("lnd", "btcd", "lncli"))
    if lnd is None or btcd is None:
        return None
    said = _output([lnd, "--version"])
    found = re.search(r"\bversion (\d+\.\d+\.\d+)", said)
    if found is None or not found[1].startswith(ACCEPTED_ON_PATH[version]):
        return None
    return Binaries(Path(lnd), Path(btcd), Path(lncli) if lncli else None)


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _fingerprint(module: Path) -> str:
    pinned = b"".join((module / name).read_bytes() for name in ("go.mod", "go.sum"))
    return hashlib.sha256(pinned).hexdigest()


def _is_built_from(folder: Path, fingerprint: str) -> bool:
    stamp = folder / STAMP
    return stamp.is_file() and stamp.read_text() == fingerprint


@contextlib.contextmanager
def _locked(cache: Path, version: str) -> Iterator[None]:
    """Two runs that miss the same release must not build it twice."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{version}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(version: str, module: Path, folder: Path, fingerprint: str) -> None:
    go = _usable_go(version)
    print(
        f"Building lnd {version} and btcd in {folder} (two to six minutes the first time).", file=sys.stderr, flush=True
    )
    with tempfile.TemporaryDirectory(prefix=f".{version}-", dir=folder.parent) as scratch:
        fresh = Path(scratch) / version
        fresh.mkdir()
        command = [go, "build", "-p", "2", "-trimpath", "-buildvcs=false", "-mod=readonly"]
        command += ["-tags", ",".join(TAGS)]
        # -o with a trailing slash: every package's program goes into that folder.
        done = subprocess.run(
            [*command, "-o", f"{fresh}/", *PACKAGES], cwd=module, stderr=subprocess.PIPE, text=True, check=False
        )
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines()[-5:]
            raise Unavailable(f"Go could not build lnd {version}. It said:\n  " + "\n  ".join(lines))
        (fresh / STAMP).write_text(fingerprint)
        # Only a whole folder ever carries the release's name, so an interrupted build is never taken for one.
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)


def _usable_go(version: str) -> str:
    wanted = ".".join(map(str, OLDEST_GO))
    hint = f"Install Go {wanted} or newer, or put lnd {version} and btcd on PATH."
    go = shutil.which("go")
    if go is None:
        raise Unavailable(f"There is no lnd {version} here and no Go to build it. {hint}")
    said = _output([go, "version"])
    found = re.search(r"\bgo(\d+)\.(\d+)", said)
    if found is None or (int(found[1]), int(found[2])) < OLDEST_GO:
        raise Unavailable(f"There is no lnd {version} here and this Go is too old to build it ({said.strip()}). {hint}")
    return go
