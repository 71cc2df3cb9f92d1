"""All looks at once, each within its time, and what is to be thought of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

from holdpay import manual
from holdpay.app import DATABASE
from holdpay.clock import SystemClock
from holdpay.config import Settings, find, load
from holdpay.config.settings import ProviderSection
from holdpay.core.payees import PayeeCheck
from holdpay.doctor import judge_lnd, judge_machine, judge_provider
from holdpay.doctor.certificate import look_at_certificate
from holdpay.doctor.findings import CONFIGURATION, Finding, Unseen, failed, ok, skipped, unseen, warning
from holdpay.doctor.lnd import ANSWER_S, CHANNELS_S, ROUTES_S, LndSeen, look_at_lnd
from holdpay.doctor.looking import Abandoning, look
from holdpay.doctor.machine import (
    look_at_database,
    look_at_disk,
    look_at_files,
    look_at_socket,
    look_at_unit,
)
from holdpay.doctor.provider import PROVIDER_S, look_at_account, look_at_provider
from holdpay.doctor.seen import DatabaseSeen, Listening, ProviderSeen, SocketSeen
from holdpay.errors import ConfigError
from holdpay.lnd.macaroon import PAYING
from holdpay.store.database import MIN_FREE_BYTES

P = ParamSpec("P")
T = TypeVar("T")

LOCAL_S: Final = 6.0
HANDSHAKE_S: Final = 10.0
LND_S: Final = ANSWER_S + max(CHANNELS_S, ROUTES_S) + 2.0
"""Its parts end before."""

_SILENT_DISK: Final = Unseen("The file system does not answer.", "See its disk (`df`, `mount`, `dmesg`).")
_SILENT_LND: Final = Unseen("lnd does not answer in time.", "See that it runs, and that lnd.address is right.")
_SILENT_PROVIDER: Final = Unseen(
    "The provider does not answer in time.", "See that the network, provider.base_url and provider.proxy are right."
)
_SILENT_SYSTEMD: Final = Unseen("systemd does not answer in time.", "See `systemctl status`.")
_OF_LND: Final = "version, network, sync, balance, payee, route"
_PROVIDERS_URL: Final = ProviderSection.model_fields["base_url"].default


async def examine(config_path: Path | None, clock: SystemClock) -> list[Finding]:
    """Everything, in the order in which it is told. Raises nothing: what cannot be looked at is a finding."""
    asyncio.get_running_loop().set_default_executor(Abandoning())
    unit = asyncio.create_task(look(asyncio.to_thread(look_at_unit), LOCAL_S, _SILENT_SYSTEMD))
    loaded = await look(asyncio.to_thread(_load, config_path), LOCAL_S, _SILENT_DISK)
    if not isinstance(loaded, tuple):
        problems = loaded if isinstance(loaded, list) else [unseen(CONFIGURATION, loaded)]
        rest = skipped("all else", "The configuration has to be right first.")
        return [*problems, rest, *judge_machine.judge_unit(await unit)]
    path, settings = loaded
    found = await _examine(settings, clock)
    return [*_configuration(path, settings), *found, *judge_machine.judge_unit(await unit)]


def _load(config_path: Path | None) -> tuple[Path, Settings] | list[Finding]:
    try:
        path = find(config_path)
        return path, load(path)
    except ConfigError as error:
        return [failed(CONFIGURATION, problem, _todo(problem)) for problem in error.problems]


def _todo(problem: str) -> str:
    if "CREDENTIALS_DIRECTORY" in problem:  # only the unit has it: as a rule nothing is wrong
        return f"{manual.page('operations.md')} begins with the lines that run this as the unit would."
    return "Correct that, then run this again; config.example.toml explains every key."


def _configuration(path: Path, settings: Settings) -> list[Finding]:
    todo = f"Change it in {path}, then restart holdpayd."
    found = [warning(CONFIGURATION, text, todo) for text in settings.warnings()]
    return found or [ok(CONFIGURATION, f"{path} is fine.")]


async def _examine(settings: Settings, clock: SystemClock) -> list[Finding]:
    state_dir = settings.daemon.state_dir
    database = state_dir / DATABASE
    files = _begin(_in_thread(look_at_files, state_dir, database))
    disk = _begin(_in_thread(look_at_disk, state_dir))
    stored = _begin(_in_thread(look_at_database, database))
    sockets = _begin(_sockets(settings))
    certificate = _begin(look(look_at_certificate(settings.lnd), HANDSHAKE_S, _SILENT_LND))
    lnd = _begin(_lnd(settings, clock, stored))
    provider = _begin(look(look_at_provider(settings, clock), PROVIDER_S, _SILENT_PROVIDER))
    account = _begin(_account(settings, clock))
    hooks = _begin(_in_thread(settings.unusable_hooks))
    return [
        *judge_machine.judge_files(await files),
        judge_machine.judge_disk(await disk, MIN_FREE_BYTES),
        judge_machine.judge_database(await stored),
        judge_machine.judge_certificate(await certificate, clock.now_ms()),
        *_of_lnd(await lnd, await stored, settings, clock.now_ms()),
        judge_provider.judge_provider(await provider),
        *_judged(await account, settings),
        _clock(await provider, await lnd, clock.now_ms()),
        *judge_machine.judge_hooks(await hooks),
        *await sockets,
    ]


async def _lnd(settings: Settings, clock: SystemClock, stored: asyncio.Task[DatabaseSeen | Unseen]) -> LndSeen | Unseen:
    """The nodes that may be paid are pinned, or those that the record trusts."""
    payees = settings.provider.payee_pubkeys
    if settings.provider.payee_check is PayeeCheck.FIRST_USE:
        seen = await stored
        payees = seen.trusted_payees if isinstance(seen, DatabaseSeen) else ()
    return await look(look_at_lnd(settings, clock, payees), LND_S, _SILENT_LND)


async def _sockets(settings: Settings) -> list[Finding]:
    """The daemon's own, and, while it answers there, those of the clients."""
    own = await _in_thread(look_at_socket, settings.daemon.socket)
    found = [judge_machine.judge_socket(own)]
    if isinstance(own, SocketSeen) and own.listening in {Listening.ANSWERS, Listening.DENIED}:
        for client in settings.client:
            seen = await _in_thread(look_at_socket, settings.socket_of(client))
            found.append(judge_machine.judge_client_socket(client.name, client.group, seen))
    return found


def _begin(looking: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    return asyncio.create_task(looking)


async def _in_thread(looking: Callable[P, T | Unseen], *args: P.args, **kwargs: P.kwargs) -> T | Unseen:
    return await look(asyncio.to_thread(looking, *args, **kwargs), LOCAL_S, _SILENT_DISK)


async def _account(settings: Settings, clock: SystemClock) -> int | Unseen | None:
    """None: there is none."""
    if settings.provider.api_key_file is None:
        return None
    return await look(look_at_account(settings, clock), PROVIDER_S, _SILENT_PROVIDER)


def _judged(account: int | Unseen | None, settings: Settings) -> list[Finding]:
    if account is None:
        return []
    return [judge_provider.judge_account(account, settings.provider.warn_balance_below_sat)]


def _of_lnd(lnd: LndSeen | Unseen, stored: DatabaseSeen | Unseen, settings: Settings, now_ms: int) -> list[Finding]:
    if isinstance(lnd, Unseen):
        return [unseen("lnd", lnd), skipped(_OF_LND, "lnd has to answer first.")]
    rights = judge_lnd.judge_rights(lnd.rights, PAYING)
    node = lnd.node
    if isinstance(node, Unseen):
        return [judge_lnd.judge_node(node), *rights, skipped(_OF_LND, "lnd has to answer first.")]
    policy = settings.policy()
    price_sat, fee_sat = policy.max_price_sat, policy.fee_cap_sat(policy.max_price_sat)
    is_providers = settings.provider.base_url == _PROVIDERS_URL
    return [
        judge_lnd.judge_node(node, () if isinstance(stored, Unseen) else stored.payers),
        *rights,
        judge_lnd.judge_version(node),
        judge_lnd.judge_network(node, settings.lnd.network, is_providers=is_providers),
        judge_lnd.judge_sync(node, now_ms),
        *([] if lnd.channels is None else [judge_lnd.judge_balance(lnd.channels, price_sat, fee_sat)]),
        *judge_lnd.judge_routes(lnd.routes or {}, price_sat, fee_sat),
    ]


def _clock(provider: ProviderSeen | Unseen, lnd: LndSeen | Unseen, now_ms: int) -> Finding:
    node = None if isinstance(lnd, Unseen) or isinstance(lnd.node, Unseen) else lnd.node
    return judge_provider.judge_clock(provider, None if node is None else node.block_at_ms, now_ms)
