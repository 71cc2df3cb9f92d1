"""The bill of materials: all that the lock has, and nothing else; the same from the same commit."""

import re
import tomllib
from typing import Any

import pytest

from scripts import sbom

PROJECT = tomllib.loads((sbom.ROOT / "pyproject.toml").read_text())["project"]
EPOCH_S = 1_790_000_000


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return sbom.bill(PROJECT, sbom.LOCK.read_text(), EPOCH_S)


def test_every_pin_of_the_lock_is_a_component_with_all_its_hashes(document: dict[str, Any]) -> None:
    lock = sbom.LOCK.read_text()
    pinned = re.findall(r"^(\S+)==(\S+)", lock, re.MULTILINE)
    assert [(each["name"], each["version"]) for each in document["components"]] == pinned
    told = [each["hashes"] for component in document["components"] for each in component["externalReferences"]]
    assert all(told)
    assert sorted(sha["content"] for hashes in told for sha in hashes) == sorted(
        re.findall(r"sha256:(\w{64}) ?", lock)[1:]
    )


def test_what_the_project_needs_is_what_it_says_that_it_needs(document: dict[str, Any]) -> None:
    root, *others = document["dependencies"]
    assert root["ref"] == f"pkg:pypi/holdpay@{PROJECT['version']}"
    wanted = {sbom.name_of(each) for each in PROJECT["dependencies"]}
    for extra in PROJECT["optional-dependencies"].values():
        wanted |= {sbom.name_of(each) for each in extra}
    assert {ref.removeprefix("pkg:pypi/").partition("@")[0] for ref in root["dependsOn"]} == wanted
    known = {component["bom-ref"] for component in document["components"]}
    assert {each["ref"] for each in others} == known
    assert {ref for each in others for ref in each["dependsOn"]} <= known


def test_what_only_an_extra_needs_is_optional(document: dict[str, Any]) -> None:
    scopes = {component["name"]: component["scope"] for component in document["components"]}
    assert scopes["coincurve"] == scopes["cryptography"] == "optional"
    assert scopes["grpcio"] == scopes["idna"] == "required"  # idna: for httpx


def test_the_serial_number_is_that_of_the_content(document: dict[str, Any]) -> None:
    lock = sbom.LOCK.read_text()
    assert sbom.bill(PROJECT, lock, EPOCH_S) == document
    assert sbom.bill(PROJECT, lock.replace("==", "==9", 1), EPOCH_S)["serialNumber"] != document["serialNumber"]
    assert document["metadata"]["timestamp"] == "2026-09-21T14:13:20Z"
