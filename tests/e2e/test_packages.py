"""Wheel and sdist: whole, alone, the same whenever and by whomever they are built; their man pages and completions."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.cli import daemon as holdpayd
from holdpay.cli.root import cli
from scripts import make_venv
from scripts.manpages import Page, command_page
from tests.unit.cli.fake_daemon import FakeDaemon

ROOT = Path(__file__).parents[2]
BUILDER = ROOT / ".cache" / "build"
EPOCH_S = 1_790_000_000  # 2026-09-21
PROGRAMS = {"holdpay": cli, "holdpayd": holdpayd.cli}
PAGES = {"holdpay": "man1/holdpay.1", "holdpayd": "man8/holdpayd.8"}


@dataclass(frozen=True)
class Built:
    wheel: Path
    sdist: Path

    @classmethod
    def of(cls, source: Path, target: Path, *, epoch_s: int = EPOCH_S) -> "Built":
        """Made by the locked build tools."""
        environment = os.environ | {"SOURCE_DATE_EPOCH": str(epoch_s)}
        command = [
            str(BUILDER / "bin/python"),
            "-m",
            "hatchling",
            "build",
            "-t",
            "sdist",
            "-t",
            "wheel",
            "-d",
            str(target),
        ]
        done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        (wheel,), (sdist,) = target.glob("*.whl"), target.glob("*.tar.gz")
        return cls(wheel, sdist)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    try:
        make_venv.ensure(BUILDER, "build", editable=False)
    except make_venv.SetupError as error:
        pytest.skip(f"needs the package index: {error}")
    return Built.of(ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel. What it depends on is lent by the tests' own, holdpay itself is not."""
    folder = tmp_path_factory.mktemp("machine") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    pip = [str(BUILDER / "bin/python"), "-m", "pip", "--quiet", "--python", str(folder / "bin/python")]
    subprocess.run([*pip, "install", "--no-index", "--no-deps", built.wheel], check=True)
    (site,) = folder.glob("lib/python3.*/site-packages")
    (lent,) = Path(sys.prefix).glob("lib/python3.*/site-packages")
    (site / "lent.pth").write_text(f"{lent}\n")  # a .pth in there, as of an editable install, is not read
    return folder


def run(program: Path, *arguments: str | Path) -> str:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout


def shell(program: str, *arguments: str, **environment: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"needs {program} (Debian's package of that name)")
    done = subprocess.run(
        [found, *arguments], env=os.environ | environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_runs_without_the_checkout(installed: Path) -> None:
    code = "import holdpay; print(holdpay.__file__)"
    assert Path(run(installed / "bin/python", "-Ic", code).strip()).is_relative_to(installed)
    for program in PROGRAMS:
        assert run(installed / "bin" / program, "--version").startswith(f"{program}, version ")


def test_a_message_names_a_page_of_the_docs_where_the_wheel_has_it(installed: Path) -> None:
    page = run(
        installed / "bin/python", "-Ic", "from holdpay import manual; print(manual.page('operations.md'))"
    ).strip()
    assert page == str(installed / "share/doc/holdpay/docs/operations.md")
    assert Path(page).is_file()


def test_the_configuration_that_it_prints_is_one_that_it_takes(installed: Path, tmp_path: Path) -> None:
    example = run(installed / "bin/holdpayd", "--print-config-example")
    assert example == (ROOT / "config.example.toml").read_text()
    (tmp_path / "macaroon").write_bytes(bytes.fromhex("0201036c6e64"))
    (tmp_path / "macaroon").chmod(0o600)
    mine = example.replace('tls_cert = "', '#tls_cert = "').replace('"credential:macaroon"', '"macaroon"', 1)
    configuration = tmp_path / "config.toml"
    configuration.write_text(mine)
    assert "is fine." in run(installed / "bin/holdpayd", "--config", configuration, "--check-config")


def test_what_an_operator_needs_is_in_the_wheel(installed: Path) -> None:
    share = installed / "share"
    for file in (ROOT / "systemd").rglob("*"):
        if file.is_file():
            assert (share / "holdpay/systemd" / file.relative_to(ROOT / "systemd")).read_text() == file.read_text()
    for name in (
        "config.example.toml",
        "LICENSE",
        "README.md",
        "docs/operations.md",
        "protos/holdpay/v1/holdpay.proto",
    ):
        assert (share / "doc/holdpay" / name).read_text() == (ROOT / name).read_text()
    assert list(installed.glob("lib/*/site-packages/holdpay-*.dist-info/licenses/LICENSE"))


def test_the_same_files_come_out_of_the_sdist_at_another_time_and_with_another_umask(
    built: Built, tmp_path: Path
) -> None:
    with tarfile.open(built.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    for path in [source, *source.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o700)
            os.utime(path, (1_000_000_000, 1_000_000_000))
    before = os.umask(0o077)
    try:
        again = Built.of(source, tmp_path / "again")
    finally:
        os.umask(before)
    assert again.sdist.read_bytes() == built.sdist.read_bytes()
    assert again.wheel.read_bytes() == built.wheel.read_bytes()


# --- man pages ---


@pytest.mark.parametrize("page", [*PAGES.values(), "man5/holdpay.toml.5"])
def test_mandoc_finds_no_fault_in_a_page(installed: Path, page: str) -> None:
    assert shell("mandoc", "-T", "lint", "-W", "warning", str(installed / "share/man" / page)) == ""


def test_what_means_something_to_roff_is_shown_as_it_is(tmp_path: Path) -> None:
    text = '.so /etc/passwd\n\'tis `quoted` ^C ~/x\n\\fBno\\fR --dry-run "a b"'
    page = Page("name", 1, "purpose", "1.0", "2026-09-21", ("other.5",))
    file = tmp_path / page.file
    file.write_text(command_page(page, click.Command("name", help=text), {}))
    shown = shell("mandoc", "-T", "utf8", "-O", "width=200", str(file))
    assert f"\n       {text.replace(chr(10), ' ')}\n" in shown


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_page_has_every_command_and_every_option(installed: Path, program: str) -> None:
    page = (installed / "share/man" / PAGES[program]).read_text().replace("\\-", "-")
    for words, command in commands(PROGRAMS[program], ()):
        (_, _, part) = page.partition(f'.SS "{" ".join(words)}"\n') if words else ("", "", page)
        part = part.partition("\n.SS ")[0]
        assert part, f"{program} {' '.join(words)} is not in it"
        for param in command.params:
            if isinstance(param, click.Option) and not param.hidden:
                assert all(name in part for name in param.opts), (words, param.opts)


def commands(command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, with its words."""
    if not isinstance(command, click.Group) or command.invoke_without_command or not words:
        yield words, command
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            if not below.hidden:
                yield from commands(below, (*words, name))


def test_the_page_of_the_configuration_has_every_key_of_the_example(installed: Path) -> None:
    page = (installed / "share/man/man5/holdpay.toml.5").read_text()
    keys = re.findall(r"^#?(\w+) = ", (ROOT / "config.example.toml").read_text(), re.MULTILINE)
    assert len(keys) > 60
    assert re.findall(r"^\\fB(\w+) = ", page, re.MULTILINE) == keys


def test_the_date_of_a_page_is_that_of_the_release(installed: Path) -> None:
    for page in PAGES.values():
        assert '"2026-09-21"' in (installed / "share/man" / page).read_text().splitlines()[0]


# --- completion, in the shells themselves ---


@pytest.fixture
def services_known() -> Iterator[FakeDaemon]:
    with tempfile.TemporaryDirectory(prefix="holdpay-") as folder:  # tmp_path is often too long for a socket
        daemon = FakeDaemon(f"{folder}/holdpay.sock")
        daemon.answers["ListServices"] = pb.ListServicesResponse(
            services=[pb.Service(code="tg", name="Telegram"), pb.Service(code="oi", name="OpenAI")]
        )
        daemon.start()
        yield daemon
        daemon.stop()


def in_bash(share: Path, line: str) -> str:
    """What bash proposes for the last word."""
    program = line.split()[0]
    code = f"""
        source {share}/bash-completion/completions/{program}
        function=$(complete -p {program} | sed 's/.* -F //; s/ .*//')
        COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        $function {program} "${{COMP_WORDS[-1]}}"
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    return shell("bash", "--norc", "-c", code)


def in_fish(share: Path, line: str) -> str:
    """The same of fish, which finds the file by its name; a description follows after a tab."""
    where = f"set -g fish_complete_path {share}/fish/vendor_completions.d"
    said = shell("fish", "--no-config", "-c", f"{where}; complete -C '{line}'")
    return "".join(f"{proposed.split()[0]}\n" for proposed in said.splitlines())


def in_zsh(share: Path, line: str) -> str:
    """The last word as it stands after the tab key was pressed in an interactive zsh."""
    code = f"""
        zmodload zsh/zpty
        export folder=$(mktemp -d)
        zpty inner zsh -f -i
        zpty -w inner 'fpath=({share}/zsh/site-functions $fpath); autoload -Uz compinit; compinit -u -D'
        zpty -w inner 'zstyle ":completion:*" insert-tab false'
        zpty -w inner 'leave() {{ print -r -- $BUFFER >$folder/said; exit }}; zle -N leave; bindkey "^Xq" leave'
        zpty -w inner ': >$folder/ready'
        until [[ -e $folder/ready ]]; do zpty -r -t inner heard; sleep 0.02; done
        zpty -w -n inner $'{line}\\t\\x18q'
        until [[ -s $folder/said ]]; do zpty -r -t inner heard; sleep 0.02; done
        <$folder/said
        rm -r $folder
    """
    return f"{shell('zsh', '-f', '-c', code).split()[-1]}\n"


@pytest.mark.parametrize("asked", [in_bash, in_zsh, in_fish])
def test_a_shell_completes_commands_options_and_services_of_both_programs(
    installed: Path, services_known: FakeDaemon, monkeypatch: pytest.MonkeyPatch, asked: Callable[[Path, str], str]
) -> None:
    monkeypatch.setenv("PATH", f"{installed / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("HOLDPAY_SOCKET", services_known.path)
    share = installed / "share"
    assert asked(share, "holdpay acc") == "account\n"
    assert asked(share, "holdpay code usa tele") == "telegram\n"
    assert asked(share, "holdpayd bake") == "bake-macaroon\n"
    assert asked(share, "holdpayd check --off") == "--offline\n"
