from __future__ import annotations

import pytest

from holdpay.lnd.version import OLDEST, parse_version, too_old_text, version_warning


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("0.21.0-beta commit=v0.21.0-beta", (0, 21, 0)),
        ("0.18.3-beta.rc1 commit=v0.18.3-beta.rc1", (0, 18, 3)),
        ("v0.19.2-beta", (0, 19, 2)),
        ("0.18.5-beta commit=lightning-terminal-v0.14.1-alpha", (0, 18, 5)),
        ("", None),
        ("dev", None),
        ("1" * 5000 + ".2.3", None),
    ],
)
def test_a_version_is_read_from_what_getinfo_says(text: str, version: tuple[int, int, int] | None) -> None:
    assert parse_version(text) == version


def test_the_first_release_that_may_pay_is_0_18_3() -> None:
    assert OLDEST == (0, 18, 3)


@pytest.mark.parametrize("text", ["0.18.3-beta", "0.18.5-beta", "0.19.3-beta", "0.20.1-beta", "0.21.0-beta", "0.21.9"])
def test_a_release_that_was_tried_has_no_warning(text: str) -> None:
    assert version_warning(text) == too_old_text(text) == ""


@pytest.mark.parametrize("text", ["0.19.0-beta", "0.19.1-beta", "0.19.2-beta"])
def test_early_0_19_loses_what_is_held_past_its_time_out_and_may_not_pay(text: str) -> None:
    assert "0.19.3 or later" in too_old_text(text)


@pytest.mark.parametrize("text", ["0.22.0-beta", "1.0.0"])
def test_a_release_newer_than_any_tried_is_warned_about(text: str) -> None:
    assert "newer than any" in version_warning(text)


def test_a_version_that_cannot_be_read_is_warned_about() -> None:
    assert "cannot read" in version_warning("custom build")
