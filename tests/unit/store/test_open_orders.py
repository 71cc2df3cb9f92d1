"""scripts/open_orders.py, which knows the tables without holdpay: a purge asks it whether money is out."""

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from holdpay.core.events import Event
from holdpay.store.store import SqliteStore
from tests.dumps import restore
from tests.unit.audit.books import FULFILLED, HELD
from tests.unit.audit.test_database import live
from tests.unit.build import order

ROOT = Path(__file__).parents[3]
Story = tuple[tuple[int, Event], ...]
FIRST = ROOT / "tests" / "fixtures" / "database-0002.sql"


def asked(*paths: Path) -> tuple[int, str, str]:
    command = [sys.executable, "-I", str(ROOT / "scripts" / "open_orders.py"), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(("story", "count"), [(HELD, "1\n"), (FULFILLED, "0\n")], ids=["held", "over"])
def test_an_order_counts_until_it_is_over_also_where_it_is_only_in_the_log(
    tmp_path: Path, story: Story, count: str
) -> None:
    with closing(SqliteStore(tmp_path / "holdpay.db")) as store:
        live(store, order(), *story)
        assert asked(tmp_path / "holdpay.db") == (0, count, "")


def test_a_database_of_the_first_release_is_understood(tmp_path: Path) -> None:
    code, count, _ = asked(restore(FIRST, tmp_path / "holdpay.db"))
    assert code == 0
    assert int(count) > 0


def test_without_a_database_nothing_is_open(tmp_path: Path) -> None:
    assert asked(tmp_path / "holdpay.db") == (0, "0\n", "")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_read_is_not_taken_for_empty(tmp_path: Path) -> None:
    (tmp_path / "holdpay.db").write_text("not a database" * 100)
    code, count, said = asked(tmp_path / "holdpay.db")
    assert (code, count) == (1, "")
    assert "cannot be read: file is not a database." in said


def test_a_lost_database_is_not_taken_for_none(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "holdpay.db")) as store:
        live(store, order(), *HELD)
    (tmp_path / "holdpay.db").unlink()
    code, count, said = asked(tmp_path / "holdpay.db")
    assert (code, count) == (1, "")
    assert "is lost, and orders were in it: holdpay.db.newest beside it says so" in said


@pytest.mark.parametrize("names", ["", "[daemon]\n", '[daemon]\nstate_dir = "{}"\n', '[daemon]\nstate_dir = "own"\n'])
def test_orders_count_once_also_in_a_folder_of_ones_own(tmp_path: Path, names: str) -> None:
    where = tmp_path / ("own" if "state_dir" in names else "usual")
    where.mkdir()
    with closing(SqliteStore(where / "holdpay.db")) as store:
        live(store, order(), *HELD)
    config = tmp_path / "config.toml"
    config.write_text(names.format(where))
    assert asked(tmp_path / "usual" / "holdpay.db", config) == (0, "1\n", "")
    config.unlink()
    assert asked(where / "holdpay.db", config) == (0, "1\n", "")


@pytest.mark.parametrize("text", ["no TOML", "daemon = 1", "[daemon]\nstate_dir = 1"])
def test_a_configuration_that_nobody_can_read_may_name_another_database(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.toml").write_text(text)
    code, count, said = asked(tmp_path / "holdpay.db", tmp_path / "config.toml")
    assert (code, count) == (1, "")
    assert "it may name another database" in said
