"""Prints how many orders of a holdpay database are not over, so with money out or to come: what a purge asks first.

    python3 open_orders.py DATABASE

Standard library only, and without holdpay, which may be gone by then. 0 where there never was a database. One that is
lost, or cannot be read, ends it with 1 and a sentence.
"""

import sqlite3
import sys
from pathlib import Path


def main() -> int:
    path = Path(sys.argv[1]).absolute()
    if not path.exists():
        if path.with_name(f"{path.name}.newest").exists():  # the daemon's note of what it wrote last
            print(f"{path} is lost, and orders were in it.", file=sys.stderr)
            return 1
        print(0)
        return 0
    try:
        # To be written, too: what a crash left in the write-ahead log counts.
        connection = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True)
        (count,) = connection.execute("SELECT count(*) FROM orders WHERE closed_at_ms IS NULL").fetchone()
        connection.close()
    except sqlite3.Error as error:
        print(f"{path} cannot be read: {error}.", file=sys.stderr)
        return 1
    print(count)
    return 0


if __name__ == "__main__":
    sys.exit(main())
