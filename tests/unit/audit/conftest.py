from __future__ import annotations

import os
from collections.abc import Callable

import pytest

NOBODY = 65534
AsNobody = Callable[[Callable[[], bool]], bool]


@pytest.fixture
def as_nobody() -> AsNobody:
    """Runs a predicate as a user without rights: root is stopped by no file mode."""

    def run(predicate: Callable[[], bool]) -> bool:
        if os.geteuid() != 0:
            return predicate()
        pid = os.fork()
        if pid == 0:
            code = 2
            try:
                os.setgid(NOBODY)
                os.setuid(NOBODY)
                code = 0 if predicate() else 1
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    return run
