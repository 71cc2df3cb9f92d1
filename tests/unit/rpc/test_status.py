"""What an error of the daemon is for programs: a status code, and a reason that the interface names."""

from __future__ import annotations

import re
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

import holdpay.app  # all that a serving daemon can raise
from holdpay import errors
from holdpay.rpc.status import code_of, details_of

PROTO = Path(__file__).parents[3] / "protos" / "holdpay" / "v1" / "holdpay.proto"
HEAD = PROTO.read_text().partition("syntax =")[0]
LISTED = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", HEAD))

ONLY_CHILDREN_ARE_RAISED = {errors.ProviderError, errors.LndError}
OF_UNKNOWN_OUTCOME = {errors.StoreError, errors.DatabaseGone, errors.InvariantViolation}
"""Sent without details: it is not known what became of the request."""
OF_A_COMMAND = {
    "AlreadyRunning",
    "ConfigError",
    "DatabaseForbidden",
    "DatabaseUnreadable",
    "PayeesRefused",
    "RecoverRefused",
    "ResolveRefused",
    "RestoreRefused",
}
"""They end `holdpayd` before it serves, or one of its other commands."""


def below(kind: type[errors.HoldpayError]) -> list[type[errors.HoldpayError]]:
    return [found for child in kind.__subclasses__() for found in (child, *below(child))]


REPLIES = [
    kind
    for kind in below(errors.HoldpayError)
    if kind.__module__.startswith("holdpay.")
    and kind not in ONLY_CHILDREN_ARE_RAISED | OF_UNKNOWN_OUTCOME
    and kind.__name__ not in OF_A_COMMAND
]


def test_the_daemons_errors_were_found() -> None:
    assert holdpay.app.DATABASE
    assert len(REPLIES) > 15


@pytest.mark.parametrize("kind", REPLIES)
def test_every_error_that_leaves_the_daemon_has_a_reason_of_its_own_that_the_interface_lists(
    kind: type[errors.HoldpayError],
) -> None:
    assert "reason" in vars(kind), "inherited"
    assert kind.reason in LISTED


@pytest.mark.parametrize("kind", REPLIES)
def test_every_error_that_leaves_the_daemon_has_a_status_and_says_its_reason(kind: type[errors.HoldpayError]) -> None:
    error = kind()
    status, info = status_pb2.Status.FromString(details_of(error)), error_details_pb2.ErrorInfo()
    assert [detail.Unpack(info) for detail in status.details] == [True]
    assert (info.domain, info.reason) == ("holdpay", kind.reason)
    assert status.code == code_of(error).value[0]
    assert code_of(error) is not grpc.StatusCode.INTERNAL


def test_every_reason_that_the_interface_lists_can_come() -> None:
    known = {kind.reason for kind in REPLIES}
    assert {name for name in LISTED if name not in known and not hasattr(grpc.StatusCode, name)} == set()


@pytest.mark.parametrize("kind", OF_UNKNOWN_OUTCOME)
def test_an_error_after_which_the_outcome_is_not_known_has_no_reason(kind: type[errors.HoldpayError]) -> None:
    assert kind.reason == errors.HoldpayError.reason
