"""Who could change a file: the configuration decides who is paid, and what a hook runs can do what holdpayd can, so
nobody but root and the daemon's user may."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final


@dataclass(frozen=True, slots=True)
class Trusted:
    """A file in the words of a sentence: "which ``is_for``", "put ``another`` there", "could ``change``"."""

    is_for: str
    another: str
    change: str


CONFIGURATION: Final = Trusted("decides who is paid", "another configuration", "change whom holdpayd pays")
PROGRAM: Final = Trusted("holdpayd runs", "another program", "change what holdpayd runs")

_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


def distrust(path: Path, info: os.stat_result, of: Trusted) -> list[str]:
    """Why others could change the file at ``path`` or put another one there, a sentence each with what to do.

    ``info``: of the file as it was read. Looks at every folder above it, also above what a link points to.
    """
    found = []
    if info.st_mode & _OTHERS_MAY_WRITE:
        found.append(f"Others may write to {path}, which {of.is_for}: run `chmod go-w {path}`.")
    if not _is_ours(info):
        found.append(_foreign(path, info, of))
    for folder in dict.fromkeys([*path.absolute().parents, *path.resolve().parents]):
        try:
            about = folder.stat()
        except OSError:
            continue  # above a folder that may be entered and not looked at
        if about.st_mode & _OTHERS_MAY_WRITE and not about.st_mode & stat.S_ISVTX:
            found.append(f"Others may put {of.another} into {folder}: run `chmod go-w {folder}`.")
        if not _is_ours(about):
            found.append(_foreign(folder, about, of))
    return found


def _is_ours(info: os.stat_result) -> bool:
    return info.st_uid in {0, os.geteuid()}


def _foreign(path: Path, info: os.stat_result, of: Trusted) -> str:
    return (
        f"{path} belongs to user id {info.st_uid}, who could {of.change}: run `chown root {path}`,"
        f" or start holdpayd as that user (it runs as {os.geteuid()})."
    )
