"""What hatchling does besides for a wheel: man pages and completions, made of the commands and of config.example.toml.

They are made at each build and lie in no checkout, so they cannot be out of date. An editable install has none.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SHELLS = {
    "bash": "share/bash-completion/completions/{program}",
    "zsh": "share/zsh/site-functions/_{program}",
    "fish": "share/fish/vendor_completions.d/{program}.fish",
}
PROGRAMS = {"holdpay": "holdpay.cli.root", "holdpayd": "holdpay.cli.daemon"}


class BuildHook(BuildHookInterface[Any]):  # type: ignore[misc] # hatchling is not in the environment of the checks
    """Named in pyproject.toml."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Adds the files to those of the wheel."""
        if version == "editable":
            return
        self._made = tempfile.TemporaryDirectory(prefix="holdpay-build-")
        root, folder = Path(self.root), Path(self._made.name)
        before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        sys.path[:0] = [str(root / "daemon"), str(root)]
        try:
            made = man_pages(root, self.metadata.version) | completions()
        finally:
            del sys.path[:2]
            sys.dont_write_bytecode = before
        for target, text in made.items():
            file = folder / target.replace("/", "_")
            file.write_text(text, encoding="utf-8")
            build_data["shared_data"][str(file)] = target

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """The wheel has them."""
        if version != "editable":
            self._made.cleanup()


def completions() -> dict[str, str]:
    """Target → script, of both programs for each shell. No shell is needed for it."""
    from click.shell_completion import get_completion_class

    made = {}
    for program, module in PROGRAMS.items():
        command = importlib.import_module(module).cli
        for shell, target in SHELLS.items():
            kind = get_completion_class(shell)
            assert kind is not None
            shell_completion = kind(command, {}, program, f"_{program.upper()}_COMPLETE")
            made[target.format(program=program)] = kind.source_template % shell_completion.source_vars()
    return made


def man_pages(root: Path, version: str) -> dict[str, str]:
    """Target → roff. The date is that of the release (SOURCE_DATE_EPOCH), so that a page is the same in each build."""
    from holdpay.cli import daemon
    from holdpay.cli.root import cli
    from scripts.manpages import Page, command_page, config_page

    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    date = time.strftime("%Y-%m-%d", time.gmtime(int(epoch))) if epoch else ""
    client = Page(
        "holdpay",
        1,
        "buy activation codes, numbers and messages with hold invoices",
        version,
        date,
        ("holdpayd.8", "holdpay.toml.5"),
    )
    server = Page(
        "holdpayd",
        8,
        "pay hold invoices through an LND node, and follow them to their end",
        version,
        date,
        ("holdpay.1", "holdpay.toml.5", "systemctl.1"),
    )
    config = Page(
        "holdpay.toml", 5, "configuration of holdpayd, by its usual name config.toml", version, date, ("holdpayd.8",)
    )
    example = (root / "config.example.toml").read_text(encoding="utf-8")
    texts = {
        client: command_page(client, cli, CLIENT_CLOSING),
        server: command_page(server, daemon.cli, SERVER_CLOSING),
        config: config_page(config, example),
    }
    return {f"share/man/man{page.section}/{page.file}": text for page, text in texts.items()}


CLIENT_CLOSING = {
    "ENVIRONMENT": [("HOLDPAY_SOCKET", "The daemon's socket, as --socket.")],
    "FILES": [("/run/holdpay/holdpay.sock", "The daemon's socket. Who is in the group holdpay may use it.")],
}
SERVER_CLOSING = {
    "FILES": [
        ("/etc/holdpay/config.toml", "The configuration; holdpay.toml(5) has every key."),
        ("/etc/holdpay/holdpay.macaroon", "What lnd is asked with, as the unit passes it on; root's alone."),
        ("/etc/holdpay/api-key", "The key of a prepaid account at the provider, if there is one; root's alone."),
        ("/var/lib/holdpay/", "The database, and copies of it."),
        ("/run/holdpay/holdpay.sock", "The socket for clients."),
    ],
    "SIGNALS": [
        ("SIGTERM, SIGINT", "Stop. A payment in flight is not touched; the next start goes on with it."),
        (
            "SIGHUP",
            "Read the configuration again. The log says what of it needs a restart.",
        ),
    ],
}
