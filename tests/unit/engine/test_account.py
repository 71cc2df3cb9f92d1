"""The prepaid account: an eye on its balance."""

from __future__ import annotations

import pytest

from holdpay.engine.account import Account
from holdpay.errors import ProviderError, ProviderUnavailable
from holdpay.ports import Balance, Funding

NOW_MS = 1_790_000_000_000
LEAST_SAT = 5_000


class FakeAccount:
    """``PrepaidAccount`` with a balance, or an error in its place."""

    def __init__(self, balance_sat: int) -> None:
        self.balance_sat = balance_sat
        self.error: ProviderError | None = None

    async def balance(self) -> Balance:
        if self.error is not None:
            raise self.error
        return Balance(self.balance_sat, NOW_MS)

    async def funding(self) -> Funding:
        return Funding(0, ())


async def test_a_low_balance_is_an_alarm_once_it_was_seen_until_it_is_seen_to_be_enough() -> None:
    theirs = FakeAccount(LEAST_SAT - 1)
    account = Account(theirs, LEAST_SAT)
    assert account.alarms() == []
    await account.look()
    (alarm,) = account.alarms()
    assert alarm.startswith("The prepaid account has 4,999 sat (seen 2026-09-21T")
    assert "provider.warn_balance_below_sat is 5,000. Put money into it" in alarm

    theirs.balance_sat = LEAST_SAT
    assert len(account.alarms()) == 1
    assert await account.balance() == Balance(LEAST_SAT, NOW_MS)  # a client asks
    assert account.alarms() == []


async def test_without_the_option_no_balance_is_an_alarm() -> None:
    account = Account(FakeAccount(0), None)
    await account.look()
    assert account.alarms() == []


async def test_a_provider_that_cannot_be_asked_fails_no_task_and_the_last_balance_seen_counts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    theirs = FakeAccount(1)
    account = Account(theirs, LEAST_SAT)
    await account.look()
    theirs.error = ProviderUnavailable("sms4sats is away. Wait.")
    for _ in range(3):
        await account.look()
    assert len(account.alarms()) == 1
    assert capsys.readouterr().out.count("sms4sats is away") == 1
    with pytest.raises(ProviderUnavailable):
        await account.balance()


async def test_a_balance_that_is_low_is_logged_once_and_again_only_after_it_was_enough(
    capsys: pytest.CaptureFixture[str],
) -> None:
    theirs = FakeAccount(LEAST_SAT)
    account = Account(theirs, LEAST_SAT)
    logged = []
    for balance_sat in (LEAST_SAT, 1, 1, LEAST_SAT, 1):
        theirs.balance_sat = balance_sat
        await account.look()
        logged.append(capsys.readouterr().out.count("The prepaid account has"))
    assert logged == [0, 1, 0, 0, 1]
