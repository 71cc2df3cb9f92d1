"""The real SQLite store on a folder that survives kill −9: what is on disk at that instant, and not one byte more."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from holdpay.core.events import Event
from holdpay.core.machine import half
from holdpay.core.model import Order
from holdpay.core.step import Step
from holdpay.errors import StoreError
from holdpay.ports import Change, Limits
from holdpay.store.store import SqliteStore
from tests.databases import NAME, empty_database
from tests.simulation.auditor import Violation
from tests.simulation.story import short

if TYPE_CHECKING:
    from tests.simulation.process import Process

FAST_FOLDER = Path("/dev/shm")
"""A file system in memory, where there is one: fsync costs nothing there."""


class Disk:
    """``path`` is the database of the process that runs, or that runs next."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._number = 0
        self.path = self._folder() / NAME
        self.path.write_bytes(empty_database())
        self._image: Path | None = None

    def _folder(self) -> Path:
        self._number += 1
        folder = self._root / str(self._number)
        folder.mkdir()
        return folder

    def take_image(self) -> None:
        """Copies the database and its write-ahead log as they are: this is what a kill −9 now would leave."""
        folder = self._folder()
        for file in self.path.parent.iterdir():
            # Readers' shared memory is made anew by whoever opens the database first.
            if not file.name.endswith("-shm"):
                shutil.copyfile(file, folder / file.name)
        self._image = folder / NAME

    def crash(self) -> None:
        """The next process finds the latest image. To be called when the dead one's connection is closed."""
        assert self._image is not None
        shutil.rmtree(self.path.parent)
        self.path, self._image = self._image, None


@contextmanager
def temporary_disk() -> Iterator[Disk]:
    """In memory if possible; gone afterwards."""
    folder = FAST_FOLDER if FAST_FOLDER.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="holdpay-simulation-", dir=folder) as root:
        yield Disk(Path(root))


def _noted(changes: Iterable[Change], written: list[Change]) -> Iterator[Change]:
    for change in changes:
        written.append(change)
        yield change


class SimStore(SqliteStore):
    """The real store of one process. The process may die at each boundary of a commit, and a commit may fail."""

    def __init__(self, process: Process, path: Path) -> None:
        super().__init__(path)
        self._process = process
        self._world = process.world

    def create(self, order: Order, limits: Limits, now_ms: int) -> Order:
        with self._writing():
            recorded = super().create(order, limits, now_ms)
            if recorded.id == order.id and self._process.is_alive:
                self._world.tell(f"on disk: {order.id} requested")
                self._world.on_disk[order.id] = recorded
                self._world.changed.set()
                with self._world.judged():
                    self._world.auditor.holds(self._world.on_disk.values())
                    self._world.budget_book.look(self._world.on_disk.values())
        return recorded

    def create_next(self, before: Change, order: Order, limits: Limits, now_ms: int) -> None:
        with self._writing():
            super().create_next(before, order, limits, now_ms)
            if self._process.is_alive:
                with self._world.judged():
                    self._world.auditor.next_made(order, self._world.on_disk.values())
                self._world.tell(f"on disk: {order.id} requested")
                self._world.on_disk[order.id] = order
                self._committed(before.event, before.step)

    def commit_all(self, changes: Iterable[Change], now_ms: int) -> list[int]:
        changes = iter(changes)
        first = next(changes, None)
        if first is None:
            return []
        written: list[Change] = []
        with self._writing():
            cursors = super().commit_all(_noted(chain((first,), changes), written), now_ms)
            if self._process.is_alive:
                for change in written:
                    self._committed(change.event, change.step)
        return cursors

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Each boundary: before anything, before COMMIT, after COMMIT and before anything else."""
        process, world = self._process, self._world
        process.enter()
        with world.judged():
            if process.has_failed_commit:
                raise Violation("the daemon wrote to its database after a commit had failed")
        if world.hits("store_error"):
            self._fail("and nothing was written")
        boundary = world.rng.choice(("before", "inside", "after")) if world.hits("crash") else None
        if boundary == "before":
            process.die("before a commit")
        if boundary == "inside":
            self._conn.set_trace_callback(self._at_statement)
            process.is_alive = False
        try:
            yield
        finally:
            if boundary == "inside":
                process.die("right before COMMIT", has_image=True)
        if boundary == "after":
            process.die("right after COMMIT")
        if world.hits("store_error_late"):
            self._fail("and it is durable all the same")

    def _at_statement(self, sql: str) -> None:
        if sql in {"COMMIT", "ROLLBACK"}:
            self._process.disk.take_image()

    def _fail(self, how: str) -> None:
        self._world.tell(f"a commit fails, {how}")
        self._process.has_failed_commit = True
        raise StoreError("The database could not be written: disk I/O error.")

    def _committed(self, event: Event, step: Step) -> None:
        world, after = self._world, step.order
        before = world.on_disk[after.id]
        world.on_disk[after.id] = after
        if world.is_traced:
            world.tell(f"on disk: {after.id} {short(event)} → {after.state} × {half(after)} {after.end or ''}".rstrip())
            for note in step.notes:
                world.tell(f"         anomaly: {note}")
        if after.is_closed:
            world.changed.set()
        with world.judged():
            world.auditor.committed(before, event, after)
            world.auditor.holds(world.on_disk.values())
            world.budget_book.look(world.on_disk.values())
            if before.waiting_since_ms is not None and after.waiting_since_ms is None:
                world.auditor.place_given(after, world.on_disk.values())
