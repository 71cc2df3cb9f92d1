"""holdpayd with a probe: how long its event loop does not look up from its work.

python -m tests.bench.probe FILE --config PATH: everything after FILE goes to holdpayd. At SIGUSR2 the longest turn of
the loop since the signal before is written to FILE, in ms. A turn is what lies between two looks at the selector, so
the probe itself never wakes the loop up.
"""

from __future__ import annotations

import asyncio
import selectors
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from holdpay.cli.daemon import main


class _Watched(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.longest_s = 0.0
        self._began_s = time.perf_counter()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.longest_s = max(self.longest_s, time.perf_counter() - self._began_s)
        found = super().select(timeout)
        self._began_s = time.perf_counter()
        return found


def run(path: Path) -> None:
    """Starts holdpayd with the arguments that are left."""
    watched = _Watched()

    def tell(number: int, frame: FrameType | None) -> None:
        longest_s, watched.longest_s = watched.longest_s, 0.0
        written = path.with_suffix(".new")
        written.write_text(f"{longest_s * 1000:.3f}")
        written.replace(path)

    class Policy(asyncio.DefaultEventLoopPolicy):
        def new_event_loop(self) -> asyncio.AbstractEventLoop:
            return asyncio.SelectorEventLoop(watched)

    signal.signal(signal.SIGUSR2, tell)
    asyncio.set_event_loop_policy(Policy())
    main()


if __name__ == "__main__":
    _path = Path(sys.argv.pop(1))
    run(_path)
