"""Prints how many orders of a holdpay database are not over, so with money out or to come: what a purge asks first.

    python3 open_orders.py DATABASE [CONFIG]
    python3 open_orders.py --elsewhere DATABASE CONFIG    prints where the one is that only the configuration names

Those of the database in the ``daemon.state_dir`` that the configuration names count, too. Standard library only, and
without holdpay, which may be gone by then. 0 where there never was a database. What is lost, or cannot be read, ends it
with 1 and a sentence.
"""

import sqlite3
import sys
import tomllib
from pathlib import Path


class Unknown(Exception):
    """Nobody can tell; the message says why."""


def main() -> int:
    try:
        if sys.argv[1] == "--elsewhere":
            usual, config = map(Path, sys.argv[2:])
            elsewhere = databases(usual, config) - {usual.resolve()}
            print("".join(str(path) for path in elsewhere if path.exists()))
        else:
            print(sum(map(open_orders, databases(*map(Path, sys.argv[1:])))))
    except Unknown as unknown:
        print(unknown, file=sys.stderr)
        return 1
    return 0


def databases(usual: Path, config: Path | None = None) -> set[Path]:
    found = {usual.resolve()}
    if config is None or not config.exists():
        return found
    try:
        daemon = tomllib.loads(config.read_text(encoding="utf-8-sig")).get("daemon", {})
        folder = daemon.get("state_dir", usual.parent)
        return found | {(config.parent / Path(folder).expanduser() / usual.name).resolve()}
    except (OSError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise Unknown(f"{config} cannot be read, and it may name another database: {error}.") from None


def open_orders(path: Path) -> int:
    if not path.exists():
        newest = path.with_name(f"{path.name}.newest")  # the daemon's note of what it wrote last
        if newest.exists():
            raise Unknown(f"{path} is lost, and orders were in it: {newest.name} beside it says so.")
        return 0
    try:
        # To be written, too: what a crash left in the write-ahead log counts.
        connection = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True)
        (count,) = connection.execute("SELECT count(*) FROM orders WHERE closed_at_ms IS NULL").fetchone()
        connection.close()
    except sqlite3.Error as error:
        raise Unknown(f"{path} cannot be read: {error}.") from None
    assert isinstance(count, int)
    return count


if __name__ == "__main__":
    sys.exit(main())
