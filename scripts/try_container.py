"""Build contrib/container for real, and buy a code in it.

scripts/try-container runs it.

Needs root, and of Debian's packages buildah, podman, runc, mmdebstrap and docker-compose. No image registry: the base
image is made of Debian's packages. No Docker: docker-compose only says whether it takes compose.yaml; daemon and client
run by podman, each with what compose.yaml says of it, beside the simulated lnd and provider. It leaves nothing behind.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
CONTAINER = ROOT / "contrib" / "container"
SUITE = "bookworm"
TOOLS = ("buildah", "podman", "runc", "mmdebstrap", "docker-compose")
ENVIRONMENT = {**os.environ, "STORAGE_DRIVER": "overlay", "BUILDAH_ISOLATION": "chroot"}
DAEMON_UID = 10001
LIMITS = {"nofile": "4096:4096", "nproc": "4096:4096"}
"""In place of podman's defaults, which not every root may set."""
WAIT_S = 60
CONFINED = '[ "$(id -u)" = 10001 ] && ! touch /made 2>/dev/null && grep -q "^CapEff:.0*$" /proc/1/status'


NO_GROUND = 75
"""Exit code (EX_TEMPFAIL): this machine has no builder, or may not run a container of Debian's own files."""


class Wrong(Exception):
    """What is not as it should be."""


class NoGround(Exception):
    """Nothing of ours was tried."""


def main() -> int:
    lacking = [tool for tool in TOOLS if shutil.which(tool) is None]
    if lacking:
        print(f"try-container: needs {', '.join(lacking)} (Debian: apt install {' '.join(lacking)}).", file=sys.stderr)
        return NO_GROUND
    with tempfile.TemporaryDirectory(prefix="hp-") as scratch:  # podman takes no long runroot
        trial = Trial(Path(scratch))
        try:
            trial.lay_ground()
            trial.build()
            trial.run()
        except NoGround as error:
            print(f"try-container: NOT TRIED, since this machine cannot run a container: {error}", file=sys.stderr)
            return NO_GROUND
        except (Wrong, subprocess.CalledProcessError) as error:
            print(f"try-container: {error}\n{getattr(error, 'stderr', '')}", file=sys.stderr)
            return 1
        finally:
            trial.clean()
    return 0


class Trial:
    """Images, containers and sandbox, all below one folder."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._store = ["--root", str(work / "store"), "--runroot", str(work / "run")]
        self._services: dict[str, Any] = yaml.safe_load((CONTAINER / "compose.yaml").read_text())["services"]
        self._sandbox: subprocess.Popen[bytes] | None = None

    def lay_ground(self) -> None:
        """The base image, and that it runs. Raises NoGround."""
        step("a base image of Debian's packages")
        try:
            self._make_base()
            self._podman("run", "--rm", *limits({}), "localhost/base", "true")
        except subprocess.CalledProcessError as error:
            raise NoGround(f"{error}\n{error.stderr}") from error

    def _make_base(self) -> None:
        packages = self._work / "base.tar"
        include = "--include=ca-certificates,python3,python3-venv"
        output("mmdebstrap", "--quiet", "--variant=minbase", include, SUITE, str(packages))
        base = self._buildah("from", "scratch")
        self._buildah("add", "--quiet", base, str(packages), "/")
        packages.unlink()
        if "PIP_CERT" in os.environ:
            self._buildah("copy", "--quiet", base, os.environ["PIP_CERT"], "/etc/ssl/of-this-machine.pem")
            self._buildah("config", "--env", "PIP_CERT=/etc/ssl/of-this-machine.pem", base)
        self._buildah("commit", "--quiet", "--rm", base, "localhost/base")

    def build(self) -> None:
        """Our image on it; and whether compose takes its file."""
        output("docker-compose", "-f", str(CONTAINER / "compose.yaml"), "--profile", "client", "config", "--quiet")
        step("the image")
        arguments = {"BASE": "localhost/base"}
        if "PIP_INDEX_URL" in os.environ:
            arguments["PIP_INDEX_URL"] = os.environ["PIP_INDEX_URL"]
        options = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        containerfile = str(CONTAINER / "Containerfile")
        self._buildah(
            "build", "--quiet", "--format=docker", *options, "-f", containerfile, "-t", "localhost/holdpay", str(ROOT)
        )

    def run(self) -> None:
        """The daemon, a client that buys a code, a backup, and the end."""
        step("daemon and client, as compose.yaml has them")
        self._place_files(self._start_sandbox())
        daemon = self._service("holdpayd", "--detach", "--network=host")  # the sandbox is on this machine's loopback
        within(WAIT_S, lambda: "ready at" in self._try("exec", daemon, "holdpay", "status"), "holdpayd is not ready")
        self._podman("healthcheck", "run", daemon)
        self._podman("exec", daemon, "sh", "-c", CONFINED)
        code = self._service("holdpay", "--rm", arguments=("code", "usa", "openai"))
        if not re.fullmatch(r"\d+", code):
            raise Wrong(f"the client's container printed {code!r}, and no code")
        self._podman("exec", daemon, "holdpayd", "backup", "/var/lib/holdpay/copy.db")
        started_s = time.monotonic()
        self._podman("stop", daemon)
        took_s = time.monotonic() - started_s
        exit_code = self._podman("inspect", "--format={{.State.ExitCode}}", daemon)
        if exit_code != "0":
            raise Wrong(f"holdpayd ended with {exit_code} after {took_s:.0f} s, as if it had been killed")
        step(f"built; bought the code {code}; stopped in {took_s:.1f} s")

    def clean(self) -> None:
        if self._sandbox is not None:
            self._sandbox.terminate()
            self._sandbox.wait()
        for command in (("podman", "rm", "--force", "--all"), ("buildah", "rm", "--all")):
            tool, *words = command
            subprocess.run([tool, *self._store, *words], env=ENVIRONMENT, capture_output=True, check=False)
        subprocess.run(["umount", self._work / "store" / "overlay"], capture_output=True, check=False)

    def _start_sandbox(self) -> Path:
        """Its folder, once it serves."""
        folder, log = self._work / "sandbox", self._work / "sandbox.log"
        holdpayd = Path(sys.executable).parent / "holdpayd"
        with log.open("wb") as out:
            command: list[str | Path] = [holdpayd, "sandbox", "run", "--dir", folder, "--pace", "20"]
            self._sandbox = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        within(WAIT_S, lambda: "^C ends it" in log.read_text(), "the sandbox does not start")
        return folder

    def _place_files(self, sandbox: Path) -> None:
        """What docs/container.md says to put beside compose.yaml, with its rights."""
        folder = self._work / "holdpay"
        (folder / "lnd").mkdir(parents=True)
        shutil.copy(sandbox / "lnd" / "tls.cert", folder / "lnd" / "tls.cert")
        macaroon = folder / "macaroon"
        shutil.copy(sandbox / "lnd" / "admin.macaroon", macaroon)
        macaroon.chmod(0o400)
        os.chown(macaroon, DAEMON_UID, -1)
        config = (sandbox / "config.toml").read_text()
        config = re.sub(r"^(state_dir|socket) = .*\n", "", config, flags=re.MULTILINE)
        config = re.sub(r"^tls_cert = .*", 'tls_cert = "/etc/holdpay/lnd/tls.cert"', config, flags=re.MULTILINE)
        config = re.sub(r"^macaroon = .*", 'macaroon = "credential:macaroon"', config, flags=re.MULTILINE)
        (folder / "config.toml").write_text(config)
        (folder / "config.toml").chmod(0o644)

    def _service(self, name: str, *options: str, arguments: tuple[str, ...] = ()) -> str:
        """`podman run` of a service of compose.yaml: what it prints."""
        service = self._services[name]
        entrypoint = [f"--entrypoint={word}" for word in service.get("entrypoint", ())]
        flags = [*run_flags(service, self._work), *options]
        return self._podman("run", *flags, *entrypoint, service["image"], *arguments)

    def _podman(self, *words: str) -> str:
        return output("podman", *self._store, "--cgroup-manager=cgroupfs", "--runtime=runc", *words)

    def _try(self, *words: str) -> str:
        try:
            return self._podman(*words)
        except subprocess.CalledProcessError:
            return ""

    def _buildah(self, *words: str) -> str:
        return output("buildah", *self._store, *words)


FLAGS: dict[str, Callable[[Any], Iterable[str]]] = {
    "user": lambda value: [f"--user={value}"],
    "read_only": lambda value: [f"--read-only={str(value).lower()}"],
    "cap_drop": lambda value: [f"--cap-drop={each}" for each in value],
    "security_opt": lambda value: [f"--security-opt={each}" for each in value],
    "tmpfs": lambda value: [f"--tmpfs={each}" for each in value],
    "mem_limit": lambda value: [f"--memory={value}"],
    "pids_limit": lambda value: [f"--pids-limit={value}"],
    "network_mode": lambda value: [f"--network={value}"],
    "stop_grace_period": lambda value: [f"--stop-timeout={value.removesuffix('s')}"],
    "ulimits": lambda value: [f"--ulimit={name}={limit}" for name, limit in value.items()],
    # What runs, and when, is the caller's; files and secrets are below.
    **dict.fromkeys(("build", "image", "profiles", "entrypoint", "command", "restart", "healthcheck"), lambda _: ()),
    **dict.fromkeys(("volumes", "secrets"), lambda _: ()),
}
"""Each key of a service in compose.yaml, for `podman run`."""


def run_flags(service: dict[str, Any], folder: Path) -> list[str]:
    """What compose.yaml says of a service; `folder` has what lies beside it. KeyError: it has a key unknown here."""
    flags = [flag for key, value in service.items() for flag in FLAGS[key](value)]
    flags += limits(service)
    flags += [f"--volume={volume(each, folder)}" for each in service.get("volumes", ())]
    return flags + [f"--volume={folder}/holdpay/{each}:/run/secrets/{each}:ro" for each in service.get("secrets", ())]


def limits(service: dict[str, Any]) -> list[str]:
    """Those that the service does not set itself."""
    return [f"--ulimit={name}={limit}" for name, limit in LIMITS.items() if name not in service.get("ulimits", {})]


def volume(written: str, folder: Path) -> str:
    """A file or folder beside compose.yaml, or a volume by its name."""
    return f"{folder}{written.removeprefix('.')}" if written.startswith(".") else written


def output(*command: str) -> str:
    """Raises CalledProcessError."""
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def within(limit_s: float, is_so: Callable[[], bool], otherwise: str) -> None:
    """Raises Wrong if something is not so in time."""
    until_s = time.monotonic() + limit_s
    while not is_so():
        if time.monotonic() > until_s:
            raise Wrong(f"{otherwise} after {limit_s:.0f} s")
        time.sleep(0.3)


def step(words: str) -> None:
    print(f"== {words}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
