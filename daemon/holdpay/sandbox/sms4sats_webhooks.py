"""How the simulated sms4sats tells a client's webhook that an order's status has changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

TIMEOUT_S: Final = 5.0
"""Ordinary seconds for one call; it is made once."""

log = logging.getLogger(__name__)


class Webhook:
    """Called in the order of the changes, one after the other; a sandbox calls the loopback only, and without TLS."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._turn = asyncio.Lock()
        self._is_callable = is_loopback(url)
        if url and not self._is_callable:
            log.warning("a webhookUrl is never called: the sandbox calls http://127.0.0.1 and http://localhost only")

    async def call(self, body: Mapping[str, Any]) -> None:
        """Whatever it answers, or that it does not, changes nothing."""
        if not self._is_callable:
            return
        async with self._turn:
            try:
                async with httpx.AsyncClient(trust_env=False, verify=False, timeout=TIMEOUT_S) as client:  # noqa: S501
                    await client.post(self._url, json=body)
            except httpx.HTTPError:
                log.warning("a webhook on the loopback could not be reached")


def is_loopback(url: str) -> bool:
    """http, and an address of this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        return parts.scheme == "http" and (host == "localhost" or ip_address(host).is_loopback)
    except ValueError:
        return False
