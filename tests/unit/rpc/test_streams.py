"""Streams have a bound of their own, which follows the open files that the system lets the process have."""

from __future__ import annotations

import resource
from typing import Any

import pytest

from holdpay.errors import TooManyStreams
from holdpay.rpc import streams
from holdpay.rpc.streams import MAX_STREAMS, SPARE_FILES, Streams, room_for_streams, shares


class Files:
    """RLIMIT_NOFILE of a process that may not raise the hard one."""

    def __init__(self, soft: int, hard: int) -> None:
        self.now = (soft, hard)
        self.may_be_set = True

    def getrlimit(self, which: int) -> tuple[int, int]:
        return self.now

    def setrlimit(self, which: int, limits: tuple[int, int]) -> None:
        if not self.may_be_set:
            raise PermissionError
        self.now = limits


def _room(monkeypatch: pytest.MonkeyPatch, files: Files) -> int:
    names: dict[str, Any] = {"getrlimit": files.getrlimit, "setrlimit": files.setrlimit}
    for name, value in names.items():
        monkeypatch.setattr(resource, name, value)
    return room_for_streams()


def test_one_more_stream_than_there_is_room_for_is_refused_and_told_how_many_there_are() -> None:
    two = Streams(2)
    with two.one(), two.one():
        with pytest.raises(TooManyStreams, match="2 clients follow orders") as refused, two.one():
            pass
        assert refused.value.metadata == {"max_streams": "2"}


def test_a_stream_that_ended_in_whatever_way_leaves_room_for_the_next() -> None:
    one = Streams(1)
    with pytest.raises(ZeroDivisionError), one.one():
        _ = 1 / 0
    with one.one():
        pass


def test_a_client_that_takes_all_of_its_streams_shuts_nobody_else_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "room_for_streams", lambda: 5)
    of = shares(["", "ann"])
    with of["ann"].one(), of["ann"].one():
        with pytest.raises(TooManyStreams), of["ann"].one():
            pass
        with of[""].one(), of[""].one():
            pass
    monkeypatch.setattr(streams, "room_for_streams", lambda: 1)
    with shares(["", "ann"])["ann"].one():
        pass


def test_as_many_files_are_taken_as_all_streams_need(monkeypatch: pytest.MonkeyPatch) -> None:
    files = Files(1024, 524_288)
    assert _room(monkeypatch, files) == MAX_STREAMS
    assert files.now == (MAX_STREAMS + SPARE_FILES, 524_288)


def test_more_files_than_needed_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    files = Files(100_000, resource.RLIM_INFINITY)
    assert _room(monkeypatch, files) == MAX_STREAMS
    assert files.now == (100_000, resource.RLIM_INFINITY)


def test_where_there_may_be_few_files_some_are_left_for_lnd_and_the_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _room(monkeypatch, Files(1024, 1024)) == 1024 - SPARE_FILES
    assert _room(monkeypatch, Files(64, 64)) == 1


def test_a_system_that_forbids_it_only_makes_fewer_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    files = Files(1024, 524_288)
    files.may_be_set = False
    assert _room(monkeypatch, files) == 1024 - SPARE_FILES


def test_without_any_limit_there_is_room_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _room(monkeypatch, Files(resource.RLIM_INFINITY, resource.RLIM_INFINITY)) == MAX_STREAMS
