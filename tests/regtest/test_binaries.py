"""How lnd and btcd are found or built, with stand-ins for the programs: no Go needed."""

from pathlib import Path

import pytest

from tests.regtest import binaries

GO = """#!/bin/sh
if [ "$1" = version ]; then echo "go version go{version} linux/amd64"; exit; fi
echo build >> "{calls}"
while [ "$1" != -o ]; do shift; done
for name in btcd lncli lnd; do echo program > "$2$name"; done
if [ -e "{broken}" ]; then echo "module is gone" >&2; exit 1; fi
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH, beside an empty cache."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("HOLDPAY_REGTEST_CACHE", str(tmp_path / "cache"))
    return tmp_path


def install(machine: Path, name: str, text: str) -> None:
    program = machine / "bin" / name
    program.write_text(text)
    program.chmod(0o755)


def install_go(machine: Path, version: str = "1.25.1") -> None:
    install(machine, "go", GO.format(version=version, calls=machine / "calls", broken=machine / "broken"))


def install_lnd(machine: Path, version: str) -> None:
    install(machine, "lnd", f"#!/bin/sh\necho lnd version {version}-beta commit=v{version}-beta\n")
    install(machine, "btcd", "#!/bin/sh\n")


def builds(machine: Path) -> int:
    calls = machine / "calls"
    return len(calls.read_text().splitlines()) if calls.exists() else 0


def test_lnd_on_path_of_the_wanted_series_is_taken(machine: Path) -> None:
    install_lnd(machine, "0.21.3")

    assert binaries.ensure("0.21.0").lnd == machine / "bin" / "lnd"


def test_lnd_on_path_of_another_release_is_passed_over_for_a_build(machine: Path) -> None:
    install_lnd(machine, "0.20.0")
    install_go(machine)

    assert binaries.ensure("0.21.0").lnd == machine / "cache" / "0.21.0-invoicesrpc-kvdb_sqlite-lowscrypt" / "lnd"


def test_what_was_built_once_is_not_built_again(machine: Path) -> None:
    install_go(machine)

    assert binaries.ensure("0.18.5") == binaries.ensure("0.18.5")
    assert builds(machine) == 1


def test_a_build_from_other_pinned_modules_is_replaced(machine: Path) -> None:
    install_go(machine)
    binaries.ensure("0.18.5")
    (machine / "cache" / "0.18.5-invoicesrpc-kvdb_sqlite-lowscrypt" / binaries.STAMP).write_text("an older go.sum")

    binaries.ensure("0.18.5")

    assert builds(machine) == 2


def test_a_failed_build_says_what_go_said_and_leaves_no_programs(machine: Path) -> None:
    install_go(machine)
    (machine / "broken").touch()

    with pytest.raises(binaries.Unavailable, match="module is gone"):
        binaries.ensure("0.21.0")

    assert [path.name for path in (machine / "cache").iterdir()] == ["0.21.0.lock"]


def test_a_machine_without_go_is_told_to_install_it(machine: Path) -> None:
    with pytest.raises(binaries.Unavailable, match=r"no Go to build it\. Install Go 1\.24 or newer"):
        binaries.ensure("0.21.0")


def test_a_go_without_tool_lines_is_called_too_old(machine: Path) -> None:
    install_go(machine, "1.23.9")

    with pytest.raises(binaries.Unavailable, match=r"too old .* Install Go 1\.24"):
        binaries.ensure("0.21.0")


def test_an_unknown_release_is_refused_with_the_known_ones(machine: Path) -> None:
    with pytest.raises(binaries.Unavailable, match=r"0\.21\.0, 0\.18\.5"):
        binaries.ensure("0.19.0")
