"""The configuration: what is refused, in which words, and that config.example.toml tells the truth."""

import base64
import errno
import grp
import os
import re
import tomllib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic_core import PydanticUndefined

import holdpay.config.certificates
from holdpay.app import provider_settings
from holdpay.clock import SystemClock
from holdpay.config import Settings, find, load, load_lnd_place
from holdpay.config.changes import changed_keys, is_at_once
from holdpay.config.fields import KEY_CREDENTIAL
from holdpay.config.problems import UNITS, keys_of, unit_of
from holdpay.config.trust import CONFIGURATION, PROGRAM, distrust
from holdpay.core.budget import Budget, Renewal
from holdpay.core.holds import HoldCaps, WhenFull
from holdpay.core.payees import PayeeCheck
from holdpay.core.policy import Policy, Strictness
from holdpay.errors import ConfigError
from holdpay.lnd.link import Link
from holdpay.lnd.settings import LndSettings
from holdpay.sandbox.tls import write_certificate

EXAMPLE = Path(__file__).parents[2] / "config.example.toml"
WITHOUT_DEFAULT = {
    "client.group",
    "client.max_fee_per_day_sat",
    "client.max_open_orders",
    "client.max_orders_per_minute",
    "client.max_price_sat",
    "client.max_spend_per_day_sat",
    "client.max_spend_per_hour_sat",
    "client.max_spend_per_month_sat",
    "client.max_spend_per_week_sat",
    "client.name",
    "client.socket",
    "lnd.tls_cert",
    "lnd.tls_server_name",
    "lnd.macaroon",
    "lnd.network",
    "hook.command",
    "hook.events",
    "hook.name",
    "hook.secret_file",
    "hook.url",
    "holds.max_channel_locked_sat",
    "holds.max_channel_orders",
    "holds.max_locked_sat",
    "holds.max_orders",
    "payment.max_fee_sat",
    "provider.api_key_file",
    "provider.proxy",
    "provider.ref",
    "provider.top_up_amount_sat",
    "provider.top_up_below_sat",
    "provider.warn_balance_below_sat",
    "webhook.listen",
    "webhook.public_url",
    "metrics.listen",
}
MACAROON = b"\x02\x01\x03lnd"

Load = Callable[[str], Settings]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_certificate(tmp_path_factory.mktemp("certificate")).certificate


@pytest.fixture(autouse=True)
def _system_bundle(
    certificate: bytes, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path_factory.mktemp("system") / "bundle.pem"
    bundle.write_bytes(certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))


@pytest.fixture
def folder(tmp_path: Path, certificate: bytes) -> Path:
    """A folder with a macaroon and a certificate, as a configuration may name them."""
    (tmp_path / "a.macaroon").write_bytes(MACAROON)
    (tmp_path / "a.macaroon").chmod(0o640)
    (tmp_path / "tls.cert").write_bytes(certificate)
    return tmp_path


@pytest.fixture
def read(folder: Path) -> Load:
    """Loads a text, with lnd.macaroon added unless the text has an [lnd] of its own."""

    def read(text: str) -> Settings:
        if "[lnd]" not in text:
            text += '\n[lnd]\nmacaroon = "a.macaroon"\n'
        path = folder / "config.toml"
        path.write_text(text)
        path.chmod(0o640)
        return load(path)

    return read


def test_a_mark_that_an_editor_puts_before_the_text_is_no_error(folder: Path) -> None:
    path = folder / "config.toml"
    path.write_bytes(b'\xef\xbb\xbf[lnd]\nmacaroon = "a.macaroon"\n')
    path.chmod(0o640)
    assert load(path).lnd.macaroon == folder / "a.macaroon"


def problems(read: Load, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return caught.value.problems


def problem(read: Load, text: str) -> str:
    found = problems(read, text)
    assert len(found) == 1, found
    return found[0]


# --- what is loaded ---


def test_a_macaroon_is_all_that_must_be_given(read: Load, folder: Path) -> None:
    loaded = read("")
    assert loaded.lnd.macaroon == folder / "a.macaroon"
    assert loaded.lnd.address == "127.0.0.1:10009"
    assert loaded.daemon.socket == Path("/run/holdpay/holdpay.sock")
    assert loaded.warnings() == []


def test_the_policy_gets_every_number_from_its_own_key(read: Load) -> None:
    # Other keys than those that the policy calls alike, and a value of its own for every one.
    elsewhere = {
        "network": "lnd.network",
        "payee_pubkeys": "provider.payee_pubkeys",
        "payee_check": "provider.payee_check",
        "order_id_check": "provider.order_id_check",
        "cancel_after_s": "provider.cancel_after_s",
        "cancel_retry_s": "provider.cancel_retry_s",
        "promise_s": "provider.promise_s",
        "place_attempts": "provider.place_attempts",
        "place_retry_s": "provider.place_retry_s",
        "max_attempts": "requests.max_attempts",
        "poll_min_s": "polling.min_s",
        "poll_max_s": "polling.max_s",
        "poll_late_max_s": "polling.late_max_s",
        "hold_max_wait_s": "holds.max_wait_s",
        "guard_in_transit_s": "guard.in_transit_s",
        "guard_refund_s": "guard.refund_s",
        "guard_peer_offline_s": "guard.peer_offline_s",
        "guard_warning_blocks": "guard.warning_blocks",
        "guard_critical_blocks": "guard.critical_blocks",
    }
    values: dict[str, Any] = {"network": "regtest", "payee_check": "warn", "order_id_check": "pin"}
    values |= {"payee_pubkeys": ["02" + "ab" * 32], "retry_delays_s": [7, 8], "fee_rungs_percent": [9, 10.5]}
    values |= {"mpp_max_parts": 2, "max_dispatches": 3, "place_attempts": 4, "guard_critical_blocks": 5}
    values |= {"max_attempts": 5}
    values |= {field.name: 20 + i for i, field in enumerate(fields(Policy)) if field.name not in values}
    sections: dict[str, list[str]] = {"lnd": ['macaroon = "a.macaroon"']}
    for name, value in values.items():
        section, _, key = elsewhere.get(name, f"payment.{name}").partition(".")
        sections.setdefault(section, []).append(f"{key} = {value!r}")
    policy = read("\n".join(f"[{section}]\n" + "\n".join(lines) for section, lines in sections.items())).policy()

    wanted = values | {
        "payee_pubkeys": frozenset(values["payee_pubkeys"]),
        "payee_check": PayeeCheck.WARN,
        "order_id_check": Strictness.PIN,
        "retry_delays_s": (7, 8),
        "fee_rungs_percent": (9, 10.5),
    }
    assert {field.name: getattr(policy, field.name) for field in fields(Policy)} == wanted


def test_the_limits_reach_the_store(read: Load) -> None:
    limits = read(
        "[limits]\nmax_open_orders = 3\nmax_pending_sat = 20001\nmax_spend_per_day_sat = 20002"
    ).order_limits()
    assert (limits.max_open_orders, limits.max_pending_sat, limits.max_spend_per_day_sat) == (3, 20001, 20002)


def test_settings_cannot_be_changed(read: Load) -> None:
    loaded = read("")
    with pytest.raises(ValueError, match="frozen"):
        loaded.limits.max_open_orders = 5000


def test_a_relative_path_starts_at_the_folder_of_the_configuration(
    read: Load, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    loaded = read('[daemon]\nstate_dir = "state"\nsocket = "run/s.sock"')
    assert loaded.daemon.state_dir == folder / "state"
    assert loaded.daemon.socket == folder / "run" / "s.sock"


def test_a_tilde_is_the_home_of_the_user(read: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert read('[daemon]\nstate_dir = "~/holdpay"').daemon.state_dir == Path("/home/ann/holdpay")


def test_a_credential_is_a_file_in_the_directory_that_systemd_names(
    read: Load, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    assert read('[lnd]\nmacaroon = "credential:a.macaroon"').lnd.macaroon == folder / "a.macaroon"


def test_a_credential_without_systemd_is_told_how_to_be_checked(read: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    text = problem(read, '[lnd]\nmacaroon = "credential:macaroon"')
    assert text.startswith(
        "lnd.macaroon names credential:macaroon, and CREDENTIALS_DIRECTORY is not set: start holdpayd"
    )
    with_hook = read(URL_HOOK.replace('"secret"', '"credential:hook-shop"'))
    assert with_hook.unusable_hooks()["shop"].startswith(
        "secret_file names credential:hook-shop, and CREDENTIALS_DIRECTORY is not set: start holdpayd by its unit"
    )


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/../../b", "", "/etc/passwd"])
def test_a_credential_cannot_leave_its_directory(read: Load, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials")
    assert "names no credential" in problem(read, f'[lnd]\nmacaroon = "credential:{name}"')


# --- what is refused, and how it is said ---


def test_all_problems_are_told_at_once_even_behind_an_unknown_key(read: Load) -> None:
    text = """
        [daemon]
        sokcet = "/run/x"
        [lnd]
        macaroon = "gone.macaroon"
        [payment]
        pay_within_s = "10m"
        [polling]
        foo = 1
        min_s = 5
        max_s = 4
    """
    found = problems(read, text)
    starts = ["daemon.sokcet ", "lnd.macaroon ", "payment.pay_within_s ", "polling.foo ", "polling.min_s "]
    assert [[text for text in found if text.startswith(start)] for start in starts] == [[text] for text in found]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[daemon]\nsokcet = 1", "daemon.sokcet is not a known key: did you mean daemon.socket? Rename it"),
        ("[payment]\nmax_price_msat = 1", "did you mean payment.max_price_sat? Rename it"),
        ("[payment]\npay_within = 1", "did you mean payment.pay_within_s? Rename it"),
        ("[payment]\npromise_s = 1", "did you mean provider.promise_s? Move it there"),
        ("socket = '/x'", "socket is not a known section: did you mean daemon.socket? Move it there"),
        ("[limit]", "limit is not a known section: did you mean limits? Rename it"),
        ("[daemon]\nxyzzy = 1", "daemon.xyzzy is not a known key: delete it, or see config.example.toml"),
    ],
)
def test_an_unknown_key_gets_the_nearest_known_one(read: Load, text: str, wanted: str) -> None:
    assert wanted in problem(read, text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            '[payment]\npay_within_s = "10m"',
            "pay_within_s must be a whole number from 1 to 3,600 (seconds), not the text '10m'; 600 is the default.",
        ),
        ("[payment]\npay_within_s = 600.0", "must be a whole number from 1 to 3,600 (seconds), not 600.0"),
        ("[payment]\npay_within_s = true", "not true"),
        ("[payment]\nfee_limit_percent = 51", "must be a number from 0 to 50 (percent), not 51; 1 is the default."),
        ("[payment]\nfee_rungs_percent = [50, 100.5]", "payment.fee_rungs_percent[2] must be a number from 0 to 100"),
        ("[payment]\nmax_price_sat = 0", "from 1 to 10,000,000 (sat), not 0; 10,000 is the default."),
        ("[payment]\nmax_final_cltv_delta = 2017", "from 18 to 2,016 (blocks), not 2,017"),
        ("[payment]\nretry_delays_s = [0, 3601]", "payment.retry_delays_s[2] must be a whole number from 0 to 3,600"),
        ("[payment]\nretry_delays_s = []", "must be a list in brackets, 1 to 10 long, not a list of 0"),
        ("[payment]\nretry_delays_s = 60", "must be a list in brackets, 1 to 10 long, not 60"),
        ("[provider]\nmax_requests_per_s = nan", "from 0.05 to 1,000 (requests a second), not nan"),
        (f"[limits]\nmax_open_orders = {10**30}", "from 1 to 10,000 (orders), not a huge number"),
        ("[limits]\nmax_open_orders = 1979-05-27", "(orders), not a date"),
        ("[limits]\nmax_open_orders = {a = 1}", "(orders), not a section"),
        ('[daemon]\nlog_format = "xml"', """must be one of "json", "text", not the text 'xml'"""),
        ("[daemon]\nlog_level = 3", 'must be one of "debug", "info", "warning", "error", not 3'),
        ("[daemon]\nstate_dir = 3", "daemon.state_dir must be a path in quotes"),
        ('[lnd]\nmacaroon = "a.macaroon"\nnetwork = "main"', 'must be one of "mainnet", "testnet"'),
        ("limits = 3", "limits must be a section: write [limits] on a line of its own"),
        ("[polling]\nmin_s = 3\nmax_s = 2.5", "polling.min_s is 3 and polling.max_s is 2.5: make min_s the smaller"),
        ("[provider]\npayee_pubkeys = []", "provider.payee_pubkeys is empty, and provider.payee_check is"),
        ('[provider]\npayee_pubkeys = ["04ab"]', "provider.payee_pubkeys[1] must be a node's public key"),
        ("[provider]\npayee_pubkeys = [3]", "provider.payee_pubkeys[1] must be text in quotes, not 3"),
    ],
)
def test_a_wrong_value_is_told_with_what_is_wanted(read: Load, text: str, wanted: str) -> None:
    assert wanted in problem(read, text)


def test_a_missing_macaroon_key_says_what_to_name(read: Load) -> None:
    assert problem(read, "[lnd]").startswith("lnd.macaroon is missing: name the file that `lncli bakemacaroon` wrote")


@pytest.mark.parametrize(
    ("address", "is_fine"),
    [
        ("127.0.0.1:10009", True),
        ("[::1]:10009", True),
        ("node.example.org:443", True),
        ("node.example.org", False),
        ("https://node.example.org:443", False),
        ("::1:10009", False),
        ("[:::1]:10009", False),
        ("node:0", False),
        ("node:65536", False),
    ],
)
def test_the_address_of_lnd_is_a_host_and_a_port(read: Load, address: str, is_fine: bool) -> None:
    text = f'[lnd]\nmacaroon = "a.macaroon"\naddress = "{address}"'
    if is_fine:
        assert read(text).lnd.address == address
    else:
        assert problem(read, text).startswith("lnd.address ")


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("https://api.example.org/v1/", None),
        ("http://127.0.0.1:8080", None),
        ("http://localhost:8080", None),
        ("http://[::1]:8080", None),
        ("http://10.0.0.1", "must begin with https://"),
        ("http://localhost.example.org", "must begin with https://"),
        ("ftp://127.0.0.1", "must begin with https:// or http://"),
        ("https://", "names no host"),
        ("https://user@api.example.org", "must be the bare base URL: leave out"),
        ("https://api.example.org/?x=1", "must be the bare base URL: leave out"),
        ("https://[::1", "is not a URL"),
        ("https://xn--e1afmkfd.xn--p1ai:8443/%C3%BC", None),
        ("https://пример.рф:8443", "must be ASCII"),
        ("https://sms4sats.com/ü", "must be ASCII"),
        ("https://api example", "has a blank"),
    ],
)
def test_the_provider_is_spoken_to_over_tls_unless_it_is_on_this_machine(
    read: Load, url: str, wanted: str | None
) -> None:
    text = f'[provider]\nbase_url = "{url}"'
    if wanted is None:
        assert read(text).provider.base_url == url.rstrip("/")
    else:
        assert problem(read, text).startswith(f"provider.base_url {wanted}")


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:3128", "socks5h://127.0.0.1:9050", "https://u:pw@proxy.example:1"])
def test_a_proxy_may_speak_http_or_socks_with_names_resolved_there(read: Load, proxy: str) -> None:
    assert read(f'[provider]\nproxy = "{proxy}"').provider.proxy == proxy


@pytest.mark.parametrize("proxy", ["socks5://u:sesame@127.0.0.1:9050", "socks5h://u:sesame@tor", "u:sesame@host:1"])
def test_a_refused_proxy_is_not_quoted_because_it_may_hold_a_password(read: Load, proxy: str) -> None:
    text = problem(read, f'[provider]\nproxy = "{proxy}"')
    assert text.startswith("provider.proxy must ")
    assert "sesame" not in text


def test_a_password_in_a_file_that_everybody_may_read_is_refused(read: Load, folder: Path) -> None:
    read('[provider]\nproxy = "socks5h://u:sesame@127.0.0.1:9050"')
    path = folder / "config.toml"
    path.chmod(0o644)
    with pytest.raises(ConfigError, match=re.escape(f"run `chmod o= {path}`")):
        load(path)


def test_a_socket_path_that_the_kernel_cannot_take_is_refused(read: Load) -> None:
    fits = "/" + "s" * 106
    assert read(f'[daemon]\nsocket = "{fits}"').daemon.socket == Path(fits)
    text = problem(read, f'[daemon]\nsocket = "{fits}s"')
    assert text == "daemon.socket is 108 bytes long, and a socket's path may have 107: shorten it."
    # Bytes count, not characters.
    assert "is 213 bytes long" in problem(read, f'[daemon]\nsocket = "/{"ü" * 106}"')


@pytest.mark.parametrize(("path", "wanted"), [("/a\\u0000b", "character"), ("/a%20b", "%"), ("", "path in quotes")])
def test_a_socket_path_that_would_be_read_otherwise_is_refused(read: Load, path: str, wanted: str) -> None:
    assert wanted in problem(read, f'[daemon]\nsocket = "{path}"')


# --- metrics --------------------------------------------------------------------------------------------------------


def test_metrics_are_off_by_default_and_one_that_others_can_read_is_warned_of(read: Load) -> None:
    assert read("").metrics.listen is None
    loaded = read('[metrics]\nlisten = "127.0.0.1:9780"')
    assert (loaded.metrics.listen, loaded.warnings()) == ("127.0.0.1:9780", read("").warnings())
    (of_clients,) = read('[metrics]\nlisten = "127.0.0.1:9780"\n' + SHOP).warnings()
    assert of_clients.startswith("metrics.listen is 127.0.0.1:9780, where every user of this machine, so every client,")
    assert read('[metrics]\nlisten = "/run/holdpay/metrics.sock"\n' + SHOP).warnings() == []
    (warning, *_) = set(read('[metrics]\nlisten = "0.0.0.0:9780"').warnings()) - set(loaded.warnings())
    assert warning.startswith("metrics.listen is 0.0.0.0:9780, where other machines may read")


# --- webhooks ---


HOOKED = '[webhook]\nlisten = "{}"\npublic_url = "{}"'
PUBLIC_URL = "https://pay.example.org/holdpay"


def test_webhooks_are_off_by_default(read: Load) -> None:
    assert (read("").webhook.listen, read("").webhook.public_url) == (None, None)


@pytest.mark.parametrize(
    ("listen", "wanted"),
    [
        ("127.0.0.1:8780", "127.0.0.1:8780"),
        ("[::1]:8780", "[::1]:8780"),
        ("localhost:8780", "localhost:8780"),
        ("/run/x/hook.sock", Path("/run/x/hook.sock")),
    ],
)
def test_webhooks_come_to_an_address_or_a_socket(read: Load, listen: str, wanted: str | Path) -> None:
    loaded = read(HOOKED.format(listen, f"{PUBLIC_URL}/"))
    assert (loaded.webhook.listen, loaded.webhook.public_url) == (wanted, PUBLIC_URL)
    assert loaded.warnings() == []


def test_the_socket_for_webhooks_starts_at_the_folder_of_the_configuration(read: Load, folder: Path) -> None:
    assert read(HOOKED.format("./hook.sock", PUBLIC_URL)).webhook.listen == folder / "hook.sock"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('listen = "127.0.0.1:8780"', "webhook.public_url is missing: give the URL"),
        (f'public_url = "{PUBLIC_URL}"', "webhook.listen is missing: give the address"),
        (f'listen = "8780"\npublic_url = "{PUBLIC_URL}"', "webhook.listen must be host:port, like"),
        (f'listen = "hook.sock"\npublic_url = "{PUBLIC_URL}"', "webhook.listen must be host:port, like"),
        (f'listen = "[:::1]:80"\npublic_url = "{PUBLIC_URL}"', "webhook.listen has no IPv6 address"),
        (f'listen = 8780\npublic_url = "{PUBLIC_URL}"', "webhook.listen must be host:port, like"),
        (f'listen = "/{"s" * 107}"\npublic_url = "{PUBLIC_URL}"', "webhook.listen is 108 bytes long"),
        ('listen = "a:1"\npublic_url = "http://pay.example.org"', "webhook.public_url must begin with https://"),
        ('listen = "a:1"\npublic_url = "https://u:p@pay.example.org"', "webhook.public_url must be the bare base URL"),
        ('listen = "a:1"\npublic_url = "https://päy.example.org"', "webhook.public_url must have at most 1024"),
        (f'listen = "a:1"\npublic_url = "https://{"x" * 1017}"', "webhook.public_url must have at most 1024"),
        ('listen = "a:1"\npublic_url = 3', "webhook.public_url must be text in quotes"),
    ],
)
def test_half_of_a_webhook_and_a_wrong_one_are_refused(read: Load, text: str, wanted: str) -> None:
    assert problem(read, f"[webhook]\n{text}").startswith(wanted)


@pytest.mark.parametrize(
    ("listen", "public_url", "wanted"),
    [
        ("0.0.0.0:8780", PUBLIC_URL, "webhook.listen is 0.0.0.0:8780, where other machines may reach it"),
        ("[::]:8780", PUBLIC_URL, "webhook.listen is [::]:8780, where other machines may reach it"),
        ("127.0.0.1:8780", "http://127.0.0.1:8780", "webhook.public_url begins with http://"),
    ],
)
def test_a_webhook_that_is_too_open_or_that_nobody_reaches_is_warned_of(
    read: Load, listen: str, public_url: str, wanted: str
) -> None:
    (warning,) = read(HOOKED.format(listen, public_url)).warnings()
    assert warning.startswith(wanted)


# --- the files it names ---


@pytest.mark.parametrize("mode", [0o644, 0o641, 0o602])
def test_a_macaroon_that_everybody_may_use_is_refused_with_the_remedy(read: Load, folder: Path, mode: int) -> None:
    (folder / "a.macaroon").chmod(mode)
    assert problem(read, "").endswith(f"run `chmod o= {folder}/a.macaroon`.")


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"", "and that is empty"),
        (b"\n", "and that is empty"),
        (b"0201036c6e64" * 20 + b"\n", "and that holds hex digits"),
        (b"0201036c6e64\n" * 20, "and that holds hex digits"),
        (base64.b64encode(MACAROON * 20), "and that holds base64 text"),
        (base64.encodebytes(MACAROON * 20), "and that holds base64 text"),
        (b"root:x:0:0:root:/root:/bin/sh\n", "and that holds no macaroon: name the file that `bakemacaroon"),
        (b"\x02" * 70_000, "and that is longer than 65,536"),
        (MACAROON + b"\x02\x23lnd-custom account 0123456789abcdef\0", "which belongs to a litd account"),
    ],
)
def test_a_file_that_is_no_macaroon_is_told(read: Load, folder: Path, content: bytes, wanted: str) -> None:
    (folder / "a.macaroon").write_bytes(content)
    text = problem(read, "")
    assert text.startswith(f"lnd.macaroon names {folder}/a.macaroon, {wanted}"), text


@pytest.mark.parametrize(
    ("section", "what"),
    [
        ('[lnd]\nmacaroon = "other"', "holds no macaroon"),
        ('[provider]\napi_key_file = "other"', "does not hold a key"),
    ],
)
def test_nobody_is_sent_to_change_the_rights_of_some_other_file(
    read: Load, folder: Path, section: str, what: str
) -> None:
    (folder / "other").write_text("root:x:0:0:root of all:/root:/bin/sh\n")
    (folder / "other").chmod(0o644)
    text = problem(read, section)
    assert (what in text, "chmod" in text) == (True, False)


def test_a_macaroon_that_its_group_may_write_is_refused_with_the_remedy(read: Load, folder: Path) -> None:
    (folder / "a.macaroon").chmod(0o660)
    assert problem(read, "").endswith(f"run `chmod g-w {folder}/a.macaroon`.")


def test_a_macaroon_in_the_place_of_its_file_name_is_not_repeated(read: Load) -> None:
    secret = "0201036c6e64" * 20
    text = problem(read, f'[lnd]\nmacaroon = "{secret}"')
    assert "holds the macaroon itself" in text
    assert secret[:20] not in text


# --- the API key ---


KEY = "k3y-of-the-account"


@pytest.fixture
def key_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    path = folder / "api-key"
    path.write_text(f"{KEY}\n")
    path.chmod(0o640)
    return path


NAMED = '[provider]\napi_key_file = "api-key"'


def test_the_api_key_comes_from_the_file_that_is_named_and_is_shown_nowhere(read: Load, key_file: Path) -> None:
    settings = read(NAMED)
    assert settings.provider.api_key_file == key_file
    given = provider_settings(settings)
    assert given.api_key == KEY
    assert KEY not in f"{settings!r} {given!r}"


def test_without_a_word_there_is_no_api_key(read: Load, key_file: Path) -> None:
    assert provider_settings(read("")).api_key is None


def test_the_api_key_that_systemd_hands_over_is_found_by_itself(
    read: Load, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(key_file.parent))
    assert provider_settings(read("")).api_key == KEY
    assert provider_settings(read('[provider]\napi_key_file = "credential:api-key"')).api_key == KEY
    (key_file.parent / "other").write_text("another-key")
    (key_file.parent / "other").chmod(0o600)
    assert provider_settings(read('[provider]\napi_key_file = "credential:other"')).api_key == "another-key"


@pytest.mark.parametrize("content", ["", "\n", None])
def test_the_empty_credential_of_the_unit_is_no_api_key(
    read: Load, key_file: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(key_file.parent))
    if content is None:
        key_file.unlink()
    else:
        key_file.write_text(content)
    assert provider_settings(read("")).api_key is None
    if content is not None:
        assert "and that is empty" in problem(read, NAMED)


def test_the_unit_hands_the_api_key_over_under_the_name_that_is_looked_for() -> None:
    unit = (EXAMPLE.parent / "systemd" / "holdpayd.service").read_text()
    assert f"LoadCredential={KEY_CREDENTIAL}:/etc/holdpay/api-key\nSetCredential={KEY_CREDENTIAL}:\\n\n" in unit


@pytest.mark.parametrize(
    "content",
    [
        b"short",
        b"two words here",
        b"two\nlines-of-it",
        b"k\xc3\xa4y-of-the-account",
        b"k" * 513,
        b"key\0key\0key",
        b"\x1b[31mkey",
    ],
)
def test_what_is_no_api_key_is_refused_and_not_repeated(read: Load, key_file: Path, content: bytes) -> None:
    key_file.write_bytes(content)
    text = problem(read, NAMED)
    assert text.startswith(f"provider.api_key_file names {key_file}, and that does not hold a key: ")
    assert content.decode(errors="replace") not in text


@pytest.mark.parametrize(("mode", "remedy"), [(0o644, "chmod o="), (0o604, "chmod o="), (0o660, "chmod g-w")])
def test_an_api_key_that_others_may_use_or_change_is_refused(
    read: Load, key_file: Path, mode: int, remedy: str
) -> None:
    key_file.chmod(mode)
    assert f"run `{remedy} {key_file}`" in problem(read, NAMED)


def test_an_api_key_in_the_place_of_its_file_name_is_not_repeated(read: Load, key_file: Path) -> None:
    text = problem(read, f'[provider]\napi_key_file = "{KEY}"')
    assert "there is no such file" in text
    assert KEY not in text


def test_a_longer_file_is_no_api_key(read: Load, key_file: Path) -> None:
    key_file.write_bytes(b"k" * 5000)
    assert "longer than 4,096 bytes" in problem(read, NAMED)


def test_a_low_balance_without_an_api_key_is_warned_of(read: Load, key_file: Path) -> None:
    (warning,) = read("[provider]\nwarn_balance_below_sat = 5000").warnings()
    assert "provider.api_key_file names no key" in warning
    assert read(f"{NAMED}\nwarn_balance_below_sat = 5000").warnings() == []


def test_a_top_up_says_when_and_how_much_and_needs_a_key(read: Load, key_file: Path) -> None:
    both = "top_up_below_sat = 5000\ntop_up_amount_sat = 9000"
    assert read(f"{NAMED}\n{both}").warnings() == []
    (warning,) = read(f"[provider]\n{both}").warnings()
    assert "provider.top_up_below_sat" in warning
    for half in both.splitlines():
        with pytest.raises(ConfigError, match="go together"):
            read(f"{NAMED}\n{half}")


def test_a_ref_is_a_lightning_address(read: Load) -> None:
    assert read('[provider]\nref = "Satoshi@example.com"').provider.ref == "satoshi@example.com"
    assert problem(read, '[provider]\nref = "satoshi"').startswith(
        "provider.ref is no Lightning Address: write it like "
    )


def test_a_missing_file_and_a_directory_are_told_apart(read: Load, folder: Path) -> None:
    assert "and there is no such file" in problem(read, '[lnd]\nmacaroon = "gone"')
    assert "and that is a directory" in problem(read, '[lnd]\nmacaroon = "."')


def test_a_fifo_is_refused_and_not_waited_for(read: Load, folder: Path) -> None:
    os.mkfifo(folder / "pipe", 0o600)
    assert "not a regular file" in problem(read, '[lnd]\nmacaroon = "pipe"')


def test_a_file_that_may_not_be_read_says_whose_right_is_missing(
    read: Load, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_open = os.open

    def refuse(path: Path | str, *args: Any, **kwargs: Any) -> int:
        if str(path).endswith("a.macaroon"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real_open(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)  # root may read everything, so the mode alone would prove nothing
    assert "holdpayd may not read it: let its user read the file" in problem(read, "")


def test_a_certificate_must_be_one(read: Load, folder: Path) -> None:
    text = '[lnd]\nmacaroon = "a.macaroon"\ntls_cert = "{}"'
    assert read(text.format("tls.cert")).lnd.tls_cert == folder / "tls.cert"
    assert "holds no PEM certificate" in problem(read, text.format("a.macaroon"))


@pytest.mark.parametrize("cut", [0, 40, 300, None])
def test_the_start_finds_nothing_in_a_certificate_that_the_check_did_not_find(
    read: Load, folder: Path, certificate: bytes, cut: int | None
) -> None:
    path = folder / "tls.cert"
    path.write_bytes(certificate[:cut] if cut is not None else certificate.replace(b"M", b"-", 1))
    found = problem(read, '[lnd]\nmacaroon = "a.macaroon"\ntls_cert = "tls.cert"')
    with pytest.raises(ConfigError) as started:
        Link(LndSettings(address="h:1", macaroon=b"", tls_cert_path=path), SystemClock(), lambda: None)
    assert started.value.problems == [found]


def test_a_system_without_a_bundle_of_certificates_is_told(read: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/none.pem")
    monkeypatch.setattr(holdpay.config.certificates, "_ROOT_BUNDLES", ())
    assert problem(read, "").startswith("lnd.tls_cert is not set, and the system has no bundle of trusted certificates")


# --- who may change it ---


@pytest.mark.parametrize("mode", [0o660, 0o602, 0o666])
def test_a_file_that_others_may_write_is_refused_with_the_remedy(read: Load, folder: Path, mode: int) -> None:
    read("")
    path = folder / "config.toml"
    path.chmod(mode)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert caught.value.problems == [f"Others may write to {path}, which decides who is paid: run `chmod go-w {path}`."]


@pytest.mark.parametrize("above", [".", ".."])
@pytest.mark.parametrize(("mode", "is_fine"), [(0o770, False), (0o703, False), (0o1777, True), (0o755, True)])
def test_a_folder_in_which_others_could_put_another_file_is_refused(
    tmp_path: Path, above: str, mode: int, is_fine: bool
) -> None:
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    (inner / "m").write_bytes(MACAROON)
    (inner / "m").chmod(0o600)
    path = inner / "config.toml"
    path.write_text(f'[lnd]\nmacaroon = "{inner}/m"\n')
    path.chmod(0o640)
    link = tmp_path / "link.toml"
    link.symlink_to(path)
    folder = (inner / above).resolve()
    folder.chmod(mode)
    for name in (path, link):
        if is_fine:
            load(name)
            continue
        with pytest.raises(ConfigError) as caught:
            load(name)
        assert caught.value.problems == [
            f"Others may put another configuration into {folder}: run `chmod go-w {folder}`."
        ]


def test_a_file_of_another_user_is_refused_unless_it_is_roots(
    read: Load, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read("")
    path, mine = folder / "config.toml", (folder / "config.toml").stat()
    theirs = os.stat_result([*mine[:4], 4711, *mine[5:]])
    assert distrust(path, mine, CONFIGURATION) == []
    assert distrust(path, os.stat_result([*mine[:4], 0, *mine[5:]]), CONFIGURATION) == []
    (found,) = distrust(path, theirs, CONFIGURATION)
    assert found.startswith(
        f"{path} belongs to user id 4711, who could change whom holdpayd pays: run `chown root {path}`"
    )
    (found,) = distrust(path, theirs, PROGRAM)
    assert "who could change what holdpayd runs" in found


# --- the file itself ---


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"[lnd\n", "is not valid TOML: Expected ']' at the end of a table declaration (at line 1, column 5)"),
        (b"a = 1\na = 2\n", "is not valid TOML: Cannot overwrite a value (at line 2"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"x = " + b"[" * 30_000, "is nested too deeply"),
        (b"#" * 70_000, "longer than 65,536"),
    ],
)
def test_a_file_that_is_no_toml_is_told_with_its_line(tmp_path: Path, content: bytes, wanted: str) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert wanted in caught.value.message
    assert str(path) in caught.value.message


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"should be in .*/gone\.toml, and there is no such file"):
        load(tmp_path / "gone.toml")


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from([*(key.split(".")[0] for key in keys_of(Settings)), "other", ""]),
        st.one_of(
            st.integers(),
            st.dictionaries(
                st.one_of(st.sampled_from([key.split(".")[1] for key in keys_of(Settings)]), st.text(max_size=5)),
                st.recursive(
                    st.one_of(st.integers(), st.floats(), st.booleans(), st.text(max_size=80), st.dates()),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
                    max_leaves=4,
                ),
                max_size=4,
            ),
        ),
        max_size=4,
    )
)
def test_whatever_the_file_holds_it_is_settings_or_sentences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: dict[str, Any]
) -> None:
    path = tmp_path / "config.toml"
    path.touch()
    monkeypatch.setattr(tomllib, "loads", lambda _text: data)
    with pytest.raises(ConfigError) as caught:  # never complete: no macaroon can be named by chance
        load(path)
    assert caught.value.problems
    assert all(text.endswith(".") and "\n" not in text for text in caught.value.problems), caught.value.problems


# --- where it is ---


def test_the_system_file_comes_before_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system, home = tmp_path / "etc.toml", tmp_path / "home"
    user = home / ".config" / "holdpay" / "config.toml"
    monkeypatch.setattr(holdpay.config, "SYSTEM_PATH", system)
    monkeypatch.setenv("HOME", str(home))
    with pytest.raises(ConfigError) as caught:
        find(None)
    assert str(system) in caught.value.message
    assert str(user) in caught.value.message
    user.parent.mkdir(parents=True)
    user.touch()
    assert find(None) == user
    system.touch()
    assert find(None) == system
    assert find(tmp_path / "given") == tmp_path / "given"


def test_a_system_file_in_a_closed_folder_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: Path) -> os.stat_result:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "stat", refuse)
    assert find(None) == Path("/etc/holdpay/config.toml")


# --- where lnd is, before there is a macaroon ---


def test_where_lnd_is_is_read_from_a_configuration_whose_macaroon_is_not_there_yet(folder: Path) -> None:
    config = folder / "config.toml"
    config.write_text(
        '[lnd]\naddress = "node:10009"\ntls_cert = "tls.cert"\nmacaroon = "gone"\n[limits]\nnonsense = 1\n'
    )
    place = load_lnd_place(config, {})
    assert (place.address, place.tls_cert) == ("node:10009", folder / "tls.cert")
    assert load_lnd_place(config, {"address": "other:1"}).address == "other:1"
    assert load_lnd_place(None, {"tls_cert": folder / "tls.cert"}).address == "127.0.0.1:10009"


def test_every_problem_with_where_lnd_is_is_told(folder: Path) -> None:
    config = folder / "config.toml"
    config.write_text('[lnd]\naddress = "nonsense"\ntls_cert = "gone"\n')
    with pytest.raises(ConfigError) as caught:
        load_lnd_place(config, {})
    assert [text.split()[0] for text in caught.value.problems] == ["lnd.address", "lnd.tls_cert"]
    config.write_text('lnd = "nonsense"\n')
    assert load_lnd_place(config, {"tls_server_name": "alice"}).tls_server_name == "alice"


# --- clients ---

GROUP = grp.getgrgid(os.getgid()).gr_name
SHOP = f'[[client]]\nname = "shop"\ngroup = "{GROUP}"\nmax_spend_per_day_sat = 9\n'
OTHER_GROUP = next(found.gr_name for found in grp.getgrall() if found.gr_name != GROUP)
BOT = SHOP.replace("shop", "bot").replace(GROUP, OTHER_GROUP)


def test_without_a_word_there_is_no_client(read: Load) -> None:
    assert read("").client == ()
    assert read("").order_limits().budgets == {}


def test_a_client_has_a_socket_beside_the_daemons_or_where_it_says(read: Load, folder: Path) -> None:
    loaded = read(SHOP + BOT + 'socket = "bot.sock"\n')
    assert [loaded.socket_of(client) for client in loaded.client] == [
        Path("/run/holdpay/holdpay-shop.sock"),
        folder / "bot.sock",
    ]


def test_each_limit_of_a_client_reaches_its_budget(read: Load) -> None:
    names = [field.name for field in fields(Budget) if field.name.startswith("max_")]
    text = "".join(f"{name} = {number}\n" for number, name in enumerate(names, start=11))
    loaded = read(SHOP.replace("max_spend_per_day_sat = 9\n", text) + 'window = "calendar"\nmay_fund = true\n')
    limits: Any = {name: number for number, name in enumerate(names, start=11)}
    budget = Budget(client="shop", renewal=Renewal.CALENDAR, may_fund=True, **limits)
    assert loaded.order_limits().budgets == {"shop": budget}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[[client]]\nname = 'a'\nmax_open_orders = 1\n", "client[1].group is missing: name the group whose"),
        (f"[[client]]\ngroup = '{GROUP}'\n", "client[1].name is missing: give it a short name."),
        (SHOP + 'socket = "/run/holdpay/holdpay.sock"', "client[1].socket is daemon.socket too: name another path."),
        (
            SHOP + BOT + 'socket = "/run/holdpay/holdpay-shop.sock"',
            "client[2].socket is client[1].socket too: name another path.",
        ),
        (
            SHOP + SHOP.replace('"shop"', '"bot"'),
            "client[2].group is that of client[1] too, and whoever is in it is both: give each a group of its own.",
        ),
        (SHOP.replace("shop", "Shop"), "client[1].name must have 1 to 32 characters, a-z, 0-9 and -"),
        (SHOP.replace("shop", "-shop"), "client[1].name must have 1 to 32 characters"),
        (SHOP.replace(GROUP, "no-such-group"), "client[1].group names no group of this machine: make it (`groupadd`)"),
        (SHOP + "max_price_sat = 0", "client[1].max_price_sat must be a whole number from 1 to 10,000,000 (sat), not"),
        (SHOP + "max_orders_per_minute = 0", "from 1 to 10,000 (orders a minute), not 0."),
        (SHOP + "may_fund = 1", "client[1].may_fund must be true or false, not 1; false is the default."),
        (SHOP + 'window = "daily"', """client[1].window must be one of "rolling", "calendar", not the text 'daily'"""),
        (SHOP + "max_price_msat = 1", "client[1].max_price_msat is not a known key: did you mean client.max_price_sat"),
        ("client = 3", "client must be a list of sections: write [[client]] on a line of its own and its keys below."),
        ("[client]\nname = 'a'", "client must be a list of sections: write [[client]] on a line of its own"),
        ("client = [3]", "client[1] must be a section: write [client] on a line of its own and its keys below."),
        (
            '[daemon]\nsocket = "/%s/a.sock"\n' % ("x" * 89) + SHOP,
            "client[1].socket is 108 bytes long, and a socket's path may have 107: shorten it.",
        ),
    ],
)  # fmt: skip
def test_a_client_that_makes_no_sense_is_told_with_its_place(read: Load, text: str, wanted: str) -> None:
    assert wanted in problem(read, text)


HOOKS_TO_US = "[webhook]\nlisten = '%s'\npublic_url = 'https://pay.example.org'\n"
METRICS = "[metrics]\nlisten = '%s'\n"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            HOOKS_TO_US % "127.0.0.1:8780" + METRICS % "127.0.0.1:8780",
            "metrics.listen is webhook.listen too: name another address.",
        ),
        (HOOKS_TO_US % "/a/b" + METRICS % "/a/b", "metrics.listen is webhook.listen too: name another address."),
        (METRICS % "/run/holdpay/holdpay.sock", "metrics.listen is daemon.socket too: name another address."),
        (
            SHOP + HOOKS_TO_US % "/run/holdpay/holdpay-shop.sock",
            "webhook.listen is client[1].socket too: name another address.",
        ),
    ],
)
def test_an_address_that_two_were_to_listen_on_is_told_and_no_start_is_tried_again(
    read: Load, text: str, wanted: str
) -> None:
    assert problem(read, text) == wanted


def test_what_listens_at_different_addresses_is_right(read: Load) -> None:
    read(HOOKS_TO_US % "127.0.0.1:8780" + METRICS % "127.0.0.1:8781")
    read(METRICS % "/run/holdpay/metrics.sock")


def test_all_that_is_wrong_with_several_clients_is_told_behind_an_unknown_key_of_one(read: Load) -> None:
    found = problems(read, SHOP + "sokcet = 1\n" + SHOP.replace("shop", "Bot"))
    assert [text.split()[0] for text in found] == ["client[1].sokcet", "client[2].name"]


# --- hooks ---

HOOK = '[[hook]]\nname = "shop"\nevents = ["closed"]\n'
URL_HOOK = HOOK + 'url = "https://shop.example.org/in?key=hidden"\nsecret_file = "secret"\n'
COMMAND_HOOK = HOOK.replace("shop", "pager") + 'command = ["/bin/true", "-x"]\n'


def write_secret(path: Path, content: str = "whsec_" + "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3") -> None:
    path.write_text(content + "\n")
    path.chmod(0o600)


def test_hooks_lead_to_a_url_or_to_a_program_and_nothing_of_a_url_is_shown(read: Load, folder: Path) -> None:
    write_secret(folder / "secret")
    url, command = read(URL_HOOK + COMMAND_HOOK).hook
    assert (url.secret_file, url.include_secrets, url.timeout_s) == (folder / "secret", False, 15)
    assert (url.found(), command.found()) == (b"0123456789abcdef01234567", b"")
    assert command.command == ("/bin/true", "-x")
    assert "hidden" not in repr(url)


def test_how_sections_fit_each_other_is_told_beside_what_is_wrong_in_others(read: Load) -> None:
    """All at once: a second look after the first has been mended is one too many."""
    same = ["client[2].name is that of client[1] too: rename one."]
    same.append("client[2].group is that of client[1] too, and whoever is in it is both: give each a group of its own.")
    assert problems(read, SHOP + SHOP) == same
    for wrong in ("[limits]\nmax_open_orders = 0\n", HOOK, "[limits]\nmax_open = 3\n", "[nonsense]\n"):
        first, *rest = problems(read, wrong + SHOP + SHOP)
        assert (wrong[1:4] in first or "hook[1]" in first, rest) == (True, same), first
    # What cannot be known while another section is wrong is not made up.
    assert len(problems(read, SHOP + SHOP + "[daemon]\nshutdown_wait_s = -1\n")) == 1


def test_what_must_be_a_list_is_called_one(read: Load) -> None:
    text = problem(read, HOOK + 'command = "rm -rf"')
    assert text.startswith("hook[1].command must be a list in brackets, 1 to 64 long, not the text 'rm -rf'"), text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (HOOK, "hook[1].url or command: give one of them."),
        (URL_HOOK + 'command = ["/bin/true"]', "hook[1].url or command: give one of them."),
        (URL_HOOK.replace("secret_file", "#"), "hook[1].secret_file is missing: name the file of the secret"),
        (COMMAND_HOOK + 'secret_file = "secret"', "hook[1].command needs neither secret_file nor use_provider_proxy"),
        (URL_HOOK + URL_HOOK, "hook[2].name is that of hook[1] too: rename one."),
        (URL_HOOK + "use_provider_proxy = true", "hook[1].use_provider_proxy is set, and there is no provider.proxy"),
        (URL_HOOK.replace("https", "http"), "hook[1].url must begin with https://"),
        (URL_HOOK.replace("https://", "https://me:pw@"), "hook[1].url must have no user and no fragment"),
        (URL_HOOK.replace('"secret"', '"whsec_abc"'), "hook[1].secret_file holds the secret itself"),
        (COMMAND_HOOK.replace("/bin/true", "true"), "hook[1].command must begin with the whole path of a program"),
        (COMMAND_HOOK.replace('["/bin/true", "-x"]', "[]"), "hook[1].command must be a list in brackets: a program,"),
        (URL_HOOK.replace('"closed"', '"opened"'), """hook[1].events may not have 'opened': known are "number","""),
        (URL_HOOK.replace('"closed"', ""), "hook[1].events must be a list in brackets of at least one of"),
        (URL_HOOK.replace('"closed"', "1"), "hook[1].events must be a list in brackets of at least one of"),
        (URL_HOOK + "timeout_s = 0", "hook[1].timeout_s must be a whole number from 1 to 300 (seconds), not 0"),
    ],
)
def test_a_hook_that_makes_no_sense_is_told_with_its_place(read: Load, folder: Path, text: str, wanted: str) -> None:
    write_secret(folder / "secret")
    assert wanted in problem(read, text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (URL_HOOK.replace('"secret"', '"weak"'), "and that does not hold whsec_ and base64 of 24 to 64 random bytes"),
        (URL_HOOK.replace('"secret"', '"open"'), "which everybody on this machine may use: run `chmod o="),
        (URL_HOOK.replace('"secret"', '"gone"'), "and there is no such file"),
        (COMMAND_HOOK.replace("/bin/true", "/bin/gone"), "command names /bin/gone, and there is no such file: put it"),
        (COMMAND_HOOK.replace("/bin/true", "/etc/passwd"), "which holdpayd cannot start: run `chmod +x"),
    ],
)
def test_what_the_machine_lacks_for_a_hook_is_told_and_is_no_fault_of_the_configuration(
    read: Load, folder: Path, text: str, wanted: str
) -> None:
    write_secret(folder / "weak", "whsec_dG9vIHNob3J0")
    write_secret(folder / "open")
    (folder / "open").chmod(0o604)
    loaded = read(text)
    (why,) = loaded.unusable_hooks().values()
    assert why.startswith(("secret_file names ", "command names "))
    assert wanted in why
    with pytest.raises(ValueError, match=re.escape(why)):
        loaded.hook[0].found()


def test_a_program_that_others_may_change_or_replace_is_not_usable(read: Load, folder: Path) -> None:
    inner = folder / "inner"
    inner.mkdir()
    program = inner / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    loaded = read(COMMAND_HOOK.replace("/bin/true", str(program)))
    assert loaded.unusable_hooks() == {}
    program.chmod(0o775)
    inner.chmod(0o777)
    why = loaded.unusable_hooks()["pager"]
    assert why == (
        f"command names {program}, which is not safe: others may write to {program}, which holdpayd runs: run"
        f" `chmod go-w {program}`; others may put another program into {inner}: run `chmod go-w {inner}`"
    )
    program.chmod(0o755)
    inner.chmod(0o1777)
    assert loaded.unusable_hooks() == {}, "whom a file there belongs to, only they can replace it"


def test_of_hooks_everything_comes_into_effect_at_once(read: Load, folder: Path) -> None:
    write_secret(folder / "secret")
    before, after = read(URL_HOOK), read(URL_HOOK + "timeout_s = 3\n" + COMMAND_HOOK)
    changed = changed_keys(before, after)
    assert "hook.shop.timeout_s" in changed
    assert "hook.pager.command" in changed
    assert all(is_at_once(key, before, after) for key in changed)


# --- warnings ---


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[payment]\nmax_fee_sat = 99", "payment.max_fee_sat"),
        ("[payment]\nfee_limit_percent = 5.1", "payment.max_fee_sat"),
        ("[payment]\nprove_absent_s = 29", "payment.prove_absent_s"),
        ("[payment]\nconfirm_unpaid_s = 9", "payment.confirm_unpaid_s"),
        ("[limits]\nmax_pending_sat = 10099", "limits.max_pending_sat"),
        ("[limits]\nmax_spend_per_day_sat = 10099", "limits.max_spend_per_day_sat"),
        ("[holds]\nmax_locked_sat = 10099", "holds.max_locked_sat"),
        ("[holds]\nmax_channel_locked_sat = 10099", "holds.max_channel_locked_sat"),
        ("[holds]\nmax_orders = 8", "holds.max_orders"),
        ('[provider]\npayee_check = "warn"', "provider.payee_check"),
        (SHOP.replace("max_spend_per_day_sat", "max_fee_per_day_sat"), "client.shop"),
    ],
)
def test_what_is_probably_not_meant_is_warned_about(read: Load, text: str, key: str) -> None:
    assert [warning.split()[0] for warning in read(text).warnings()] == [key]


def test_caps_below_the_limits_are_no_reason_to_warn(read: Load) -> None:
    assert read("[holds]\nmax_orders = 7\nmax_locked_sat = 10100\nmax_channel_locked_sat = 10100").warnings() == []


def test_the_caps_reach_the_engine(read: Load) -> None:
    assert read("").hold_caps() == HoldCaps()
    text = "max_orders = 3\nmax_locked_sat = 4\nmax_channel_orders = 5\nmax_channel_locked_sat = 6"
    assert read(f'[holds]\n{text}\nwhen_full = "refuse"').hold_caps() == HoldCaps(
        max_orders=3,
        max_locked_sat=4,
        max_channel_orders=5,
        max_channel_locked_sat=6,
        when_full=WhenFull.REFUSE,
    )


def test_critical_comes_after_the_warning(read: Load) -> None:
    assert read("[guard]\nwarning_blocks = 5\ncritical_blocks = 5").guard.critical_blocks == 5
    assert "make critical_blocks the smaller one" in problem(read, "[guard]\nwarning_blocks = 11")


# --- names ---


def test_every_number_ends_in_its_unit() -> None:
    for key in keys_of(Settings):
        default = default_of(key)
        if is_number(default) or (isinstance(default, tuple) and isinstance(default[0], int)):
            assert unit_of(key) in UNITS.values()


# --- config.example.toml ---


def default_of(key: str) -> Any:
    section, _, name = key.partition(".")
    model: Any = Settings.model_fields[section].annotation
    if get_origin(model) is tuple:  # a list of sections
        (model, _) = get_args(model)
    return model.model_fields[name].get_default()


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def shown_in_example() -> dict[str, Any]:
    """Every key of the example, those too that are commented out to show a default."""
    found = tomllib.loads(uncommented(EXAMPLE.read_text()))
    sections = {name: keys[0] if isinstance(keys, list) else keys for name, keys in found.items()}
    return {f"{section}.{key}": value for section, keys in sections.items() for key, value in keys.items()}


def uncommented(text: str) -> str:
    return re.sub(r"^#(?=\w+ = |\[\[)", "", text, flags=re.MULTILINE)


def test_the_example_names_every_key_and_no_other() -> None:
    assert sorted(shown_in_example()) == sorted(keys_of(Settings))


def test_the_values_that_the_example_shows_are_the_defaults() -> None:
    for key, shown in shown_in_example().items():
        default = default_of(key)
        if key in WITHOUT_DEFAULT:
            assert default in {None, PydanticUndefined}, key
        else:
            value = tuple(shown) if isinstance(shown, list) else shown
            assert value == (str(default) if isinstance(default, Path) else default), key
            assert isinstance(value, float) == isinstance(default, float), key


@pytest.mark.parametrize("uncomment", [False, True])
def test_the_example_loads_once_its_files_are_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch, uncomment: bool
) -> None:
    text = EXAMPLE.read_text()
    if uncomment:
        text = uncommented(text)
        monkeypatch.setattr(grp, "getgrnam", lambda name: None)
    assert text.count("/etc/holdpay/tls.cert") == 1
    path = folder / "config.toml"
    path.write_text(text.replace("/etc/holdpay/tls.cert", str(folder / "tls.cert")))
    (folder / "a.macaroon").rename(folder / "macaroon")
    (folder / "api-key").write_text("key-of-the-account\n")
    (folder / "api-key").chmod(0o640)
    write_secret(folder / "hook-shop")
    text = path.read_text()
    # A hook has a URL or a command.
    path.write_text(re.sub(r"^command = .*\n", "", text, flags=re.MULTILINE))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    loaded = load(path)
    assert loaded.lnd.macaroon == folder / "macaroon"
    assert loaded.lnd.network == ("mainnet" if uncomment else None)
    # The whole of it has clients beside a port for the metrics.
    assert [warning.split()[0] for warning in loaded.warnings()] == ["metrics.listen"] * uncomment


@pytest.mark.parametrize("key", keys_of(Settings))
def test_the_example_explains_every_key_with_its_unit_and_says_where_there_is_no_default(key: str) -> None:
    section, _, name = key.partition(".")
    of_section = re.split(rf"^#?\[+{section}\]+$", EXAMPLE.read_text(), flags=re.MULTILINE)[1]
    of_section = re.split(r"^#?\[+\w+\]+$", of_section, flags=re.MULTILINE)[0]
    found = re.findall(rf"((?:^# .*\n)+)#?{name} = ", of_section, re.MULTILINE)
    assert len(found) == 1
    comment = found[0].lower()
    assert ("no default:" in comment) == (key in WITHOUT_DEFAULT)
    if is_number(default_of(key)):
        unit = unit_of(key)
        assert unit in comment
