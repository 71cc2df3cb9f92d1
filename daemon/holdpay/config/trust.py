"""Who could change a file: the configuration decides who is paid, so nobody but root and the daemon's user may."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


def distrust(path: Path, info: os.stat_result) -> list[str]:
    """Why others could change the file at ``path`` or put another one there, a sentence each with what to do.

    ``info``: of the file as it was read. Looks at every folder above it, also above what a link points to.
    """
    found = []
    if info.st_mode & _OTHERS_MAY_WRITE:
        found.append(f"Others may write to {path}, which decides who is paid: run `chmod go-w {path}`.")
    if not _is_ours(info):
        found.append(_foreign(path, info))
    for folder in dict.fromkeys([*path.absolute().parents, *path.resolve().parents]):
        try:
            about = folder.stat()
        except OSError:
            continue  # above a folder that may be entered and not looked at
        if about.st_mode & _OTHERS_MAY_WRITE and not about.st_mode & stat.S_ISVTX:
            found.append(f"Others may put another configuration into {folder}: run `chmod go-w {folder}`.")
        if not _is_ours(about):
            found.append(_foreign(folder, about))
    return found


def _is_ours(info: os.stat_result) -> bool:
    return info.st_uid in {0, os.geteuid()}


def _foreign(path: Path, info: os.stat_result) -> str:
    return (
        f"{path} belongs to user id {info.st_uid}, who could change whom holdpayd pays: run `chown root {path}`,"
        f" or start holdpayd as that user (it runs as {os.geteuid()})."
    )
