"""Runs a program that dies with its parent: `python tied.py PARENT_PID PROGRAM ARGUMENT...`.

Set in the child itself, after a plain spawn, because a `preexec_fn` would make the parent fork with all its threads
(grpc's among them). Elsewhere than on Linux there is no such signal, and only the parent's own clean-up is left.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Ties this process to its parent, then becomes the program."""
    parent_pid, program, *arguments = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != int(parent_pid):
            raise SystemExit("The parent is gone.")
    os.execv(program, [program, *arguments])


if __name__ == "__main__":
    main()
