"""What can be bought, kept from one start to the next: the provider's countries, and the services that it ever listed.

Names are looked up here without a call to the provider: it is asked for its countries in the background. Its word is
kept in a file; while it does not answer, that is told on as stale, and where there never was one, the bundled list.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from holdpay.errors import ProviderError
from holdpay.ports import Clock, CodeProvider, CountriesOrigin, CountryInfo, ListedCountry, ServiceInfo
from holdpay.sms4sats import catalog

FILE: Final = "catalog.json"
REFRESH_S: Final = 6 * 3600
"""A country comes or goes now and then."""
RETRY_S: Final = 600
MAX_SERVICES: Final = 5000
"""Several times what is sold anywhere."""

log = structlog.get_logger(__name__)


class _Kept(BaseModel):
    """The file. ``url``: of the provider that said it; another one's numbers mean other countries."""

    model_config = ConfigDict(strict=True, extra="ignore")

    url: str
    asked_at_ms: int | None = None
    countries: list[ListedCountry] = Field(default_factory=list)
    services: dict[str, str] = Field(default_factory=dict)
    """Short code → name, the one that was seen last behind the others."""


class KeptDirectory:
    """``ports.Directory``."""

    def __init__(self, provider: CodeProvider, clock: Clock, folder: Path) -> None:
        self._provider = provider
        self._clock = clock
        self._path = folder / FILE
        self._kept = self._read()
        self._is_failure_told = False
        self._countries = catalog.listed(self._kept.countries) if self._kept.countries else catalog.bundled()

    # --- the port

    def countries(self) -> Sequence[CountryInfo]:
        return self._countries.all

    def resolve_country(self, text: str) -> CountryInfo:
        """See ``Catalog``."""
        return self._countries.resolve(text)

    def resolve_service(self, text: str, services: Sequence[ServiceInfo]) -> ServiceInfo:
        """See ``Catalog``."""
        return catalog.resolve_service(text, services)

    def origin(self) -> CountriesOrigin:
        """See ``Directory``."""
        is_down = self._provider.health.last_error != ""
        return CountriesOrigin(asked_at_ms=self._kept.asked_at_ms, is_stale=is_down or self._is_old)

    def seen_services(self) -> Sequence[ServiceInfo]:
        """See ``Directory``."""
        return [ServiceInfo(code, name, None) for code, name in self._kept.services.items()]

    # --- what it learns

    async def refresh(self) -> None:
        """Asks the provider for its countries if they are old. Never raises for what the provider does."""
        if not self._is_old:
            return
        asked_at_ms = self._clock.now_ms()
        try:
            rows = await self._provider.countries()
        except ProviderError as error:
            if not self._is_failure_told:
                log.warning("the provider's countries could not be had; those known go on", error=error.message)
            self._is_failure_told = True
            return
        self._is_failure_told = False
        self._countries = catalog.listed(rows)
        self._keep(self._kept.model_copy(update={"asked_at_ms": asked_at_ms, "countries": list(rows)}))

    def saw_services(self, services: Sequence[ServiceInfo]) -> None:
        """Remembers what the provider listed, also over restarts."""
        news = {service.code: service.name for service in services}
        if news.items() <= self._kept.services.items():
            return
        others = {code: name for code, name in self._kept.services.items() if code not in news}
        newest = list({**others, **news}.items())[-MAX_SERVICES:]
        self._keep(self._kept.model_copy(update={"services": dict(newest)}))

    @property
    def _is_old(self) -> bool:
        asked_at_ms = self._kept.asked_at_ms
        return asked_at_ms is None or not 0 <= self._clock.now_ms() - asked_at_ms < REFRESH_S * 1000

    def _read(self) -> _Kept:
        url = self._provider.health.url
        try:
            kept = _Kept.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return _Kept(url=url)
        except (OSError, ValidationError) as error:
            log.warning(
                "the kept countries and services cannot be read; they are asked for", error=type(error).__name__
            )
            return _Kept(url=url)
        return kept if kept.url == url else _Kept(url=url)

    def _keep(self, kept: _Kept) -> None:
        """A disk that takes nothing costs what the next start would know, no more."""
        self._kept = kept
        new = self._path.with_suffix(".new")
        try:
            new.touch(mode=0o600)
            new.write_text(kept.model_dump_json())
            new.replace(self._path)
        except OSError as error:
            log.warning("countries and services cannot be kept on disk", error=error.strerror)
