"""The configuration: TOML → frozen settings, checked as a whole; every problem at once, each one a sentence.

``config.example.toml`` documents every key. A number's unit is the end of its name. A relative path starts at the
folder of the configuration file, ``~`` is the user's home.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import stat
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from holdpay.config.fields import read_bounded, read_key
from holdpay.config.problems import sentences
from holdpay.config.settings import LndOnly, LndPlace, Settings, Together
from holdpay.config.trust import CONFIGURATION, distrust
from holdpay.errors import ConfigError

__all__ = [
    "SYSTEM_PATH",
    "USER_PATH",
    "LndPlace",
    "Settings",
    "find",
    "load",
    "load_lnd_place",
    "read_key",
]

SYSTEM_PATH = Path("/etc/holdpay/config.toml")
USER_PATH = Path("~/.config/holdpay/config.toml")


def find(path: Path | None) -> Path:
    """The configuration to load: ``path`` if given, else the first of /etc/holdpay and ~/.config/holdpay that exists.

    Raises ConfigError if there is none.
    """
    if path is not None:
        return path
    candidates = [SYSTEM_PATH]
    with contextlib.suppress(RuntimeError):  # no home directory, as for some system users
        candidates.append(USER_PATH.expanduser())
    for candidate in candidates:
        if _is_there(candidate):
            return candidate
    names = " nor ".join(str(candidate) for candidate in candidates)
    raise ConfigError(
        [f"There is no configuration: neither {names} exists. `holdpayd --print-config-example` prints one to fill in."]
    )


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # loading it will say why it cannot be read
    return True


def load(path: Path) -> Settings:
    """Reads and checks a configuration file, who may change it, and the files that it names.

    Raises ConfigError with every problem.
    """
    data, info = _parse(path)
    data.setdefault("lnd", {})
    context = {"folder": path.absolute().parent}
    problems = distrust(path, info, CONFIGURATION)
    settings: Settings | None = None
    try:
        settings = Settings.model_validate(data, context=context)
    except ValidationError as error:
        problems += sentences(error, Settings)
        problems += _problems_behind(data, error, context)
    if info.st_mode & stat.S_IROTH and _holds_password(data):
        problems.append(f"provider.proxy holds a password, and everybody may read {path}: run `chmod o= {path}`.")
    if settings is None or problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return settings


def load_lnd_place(path: Path | None, given: dict[str, Any]) -> LndPlace:
    """Where lnd is: by [lnd] of the configuration file, if there is one, without what is about the macaroon, which need
    not be there yet. Keys that are ``given`` count before those.

    Raises ConfigError with every problem.
    """
    lnd: dict[str, Any] = {}
    folder = Path.cwd()
    if path is not None:
        data, _ = _parse(path)
        folder = path.absolute().parent
        section = data.get("lnd")
        lnd = (
            {key: section[key] for key in LndPlace.model_fields if key in section} if isinstance(section, dict) else {}
        )
    lnd |= given
    try:
        return LndOnly.model_validate({"lnd": lnd}, context={"folder": folder}).lnd
    except ValidationError as error:
        raise ConfigError(sentences(error, LndOnly)) from None


def _parse(path: Path) -> tuple[dict[str, Any], os.stat_result]:
    """The file's content and status."""
    try:
        content, info = read_bounded(path)
    except ValueError as error:
        raise ConfigError([f"The configuration should be in {path}, {error}."]) from None
    try:
        data = tomllib.loads(content.removeprefix(codecs.BOM_UTF8).decode())  # some editors begin with it
    except UnicodeDecodeError:
        raise ConfigError([f"{path} is not UTF-8 text: save it as UTF-8."]) from None
    except RecursionError:
        raise ConfigError([f"{path} is nested too deeply: see config.example.toml."]) from None
    except ValueError as error:
        raise ConfigError([f"{path} is not valid TOML: {error}. Correct that line."]) from None
    return data, info


def _problems_behind(data: dict[str, Any], error: ValidationError, context: dict[str, Path]) -> list[str]:
    """A section with an unknown key is not looked at as a whole, and how sections fit each other not while there is
    anything else: so look again without what is wrong."""
    problems: list[str] = []
    unknown = [finding["loc"] for finding in error.errors() if finding["type"] == "extra_forbidden"]
    known = {section: _without(unknown, keys, section) for section, keys in data.items() if (section,) not in unknown}
    wrong = {finding["loc"][0] for finding in error.errors() if finding["loc"] and finding["loc"] not in unknown}
    if unknown:
        try:
            Settings.model_validate(known, context=context)
        except ValidationError as second:
            problems += sentences(second, Settings)
            wrong |= {finding["loc"][0] for finding in second.errors() if finding["loc"]}
    wrong |= {behind for of, behind in (("daemon", "client"), ("provider", "hook")) if of in wrong}
    right = {section: keys for section, keys in known.items() if section in Together.model_fields.keys() - wrong}
    try:
        Together.model_validate(right, context=context)
    except ValidationError as third:
        problems += sentences(third, Settings)
    return problems


def _without(unknown: list[tuple[int | str, ...]], given: Any, *at: int | str) -> Any:
    """A section, or a list of them, without those keys."""
    if isinstance(given, list):
        return [_without(unknown, each, *at, number) for number, each in enumerate(given)]
    if isinstance(given, dict):
        return {key: value for key, value in given.items() if (*at, key) not in unknown}
    return given


def _holds_password(data: dict[str, Any]) -> bool:
    provider = data.get("provider")
    proxy = provider.get("proxy") if isinstance(provider, dict) else None
    return isinstance(proxy, str) and "@" in proxy
