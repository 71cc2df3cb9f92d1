"""contrib/container: what it gives away, and that what is tried for real (scripts/try-container) is what it says."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.try_container import CONTAINER, DAEMON_UID, ROOT, run_flags

CONTAINERFILE = (CONTAINER / "Containerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((CONTAINER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_runs_without_root_rights_or_a_place_to_write_but_its_volumes(name: str) -> None:
    service = SERVICES[name]
    assert not service["user"].startswith("0")
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert "ports" not in service


def test_no_secret_is_in_an_image_layer_an_environment_or_an_argument() -> None:
    assert all("environment" not in service for service in SERVICES.values())
    assert SERVICES["holdpayd"]["secrets"] == list(COMPOSE["secrets"]) == ["macaroon"]
    assert "secrets" not in SERVICES["holdpay"]
    assert not re.search(r"^(COPY|ADD)[^\n]*(macaroon|tls\.|api-key|\.\s)", CONTAINERFILE, re.MULTILINE)


def test_the_daemon_is_given_more_time_to_stop_than_it_takes() -> None:
    config = tomllib.loads(re.sub(r"^#(?=\w+ = )", "", (ROOT / "config.example.toml").read_text(), flags=re.MULTILINE))
    grace_s = int(SERVICES["holdpayd"]["stop_grace_period"].removesuffix("s"))
    assert grace_s >= 2 * config["daemon"]["shutdown_wait_s"]


def test_a_client_shares_the_socket_with_the_daemon_and_nothing_else() -> None:
    assert SERVICES["holdpay"]["volumes"] == ["socket:/run/holdpay:ro"]
    assert SERVICES["holdpay"]["network_mode"] == "none"
    assert SERVICES["holdpay"]["user"].split(":")[1] == str(DAEMON_UID)
    assert SERVICES["holdpay"]["user"].split(":")[0] != str(DAEMON_UID)


def test_the_image_is_built_with_all_that_the_wheel_is_made_of() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    wanted = {Path(source).parts[0] for source in [*wheel["packages"], *wheel.get("shared-data", ())]}
    copied = {
        word for line in re.findall(r"^COPY (?!--from)(.*) \S+$", CONTAINERFILE, re.MULTILINE) for word in line.split()
    }
    assert wanted <= copied
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.parametrize(("exit_code", "is_healthy"), [(0, True), (8, True), (1, False), (6, False)])
def test_a_daemon_that_answers_is_healthy_also_while_it_takes_no_order(
    tmp_path: Path, exit_code: int, is_healthy: bool
) -> None:
    (command,) = re.findall(r"^HEALTHCHECK .* CMD (.*)$", CONTAINERFILE, re.MULTILINE)
    (tmp_path / "holdpay").write_text(f"#!/bin/sh\nexit {exit_code}\n")
    (tmp_path / "holdpay").chmod(0o755)
    done = subprocess.run(["/bin/sh", "-c", command], env={"PATH": str(tmp_path)}, check=False)
    assert (done.returncode == 0) is is_healthy


@pytest.mark.parametrize("name", SERVICES)
def test_the_trial_runs_a_service_as_it_is_written(name: str, tmp_path: Path) -> None:
    flags = run_flags(SERVICES[name], tmp_path)
    assert {"--read-only=true", "--cap-drop=ALL", f"--user={SERVICES[name]['user']}"} <= set(flags)
    with pytest.raises(KeyError):
        run_flags({**SERVICES[name], "privileged": True}, tmp_path)
