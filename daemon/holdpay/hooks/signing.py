"""The signature of Standard Webhooks (github.com/standard-webhooks/standard-webhooks, spec/standard-webhooks.md)."""

from __future__ import annotations

import base64
import hashlib
import hmac

from holdpay.hooks.sending import Message

VERSION = "v1"


def signature(message: Message, secret: bytes) -> str:
    """HMAC-SHA256 of id, time of the try and body, as the header has it."""
    signed = f"{message.id}.{message.at_s}.".encode() + message.body
    digest = hmac.new(secret, signed, hashlib.sha256).digest()
    return f"{VERSION},{base64.b64encode(digest).decode()}"


def headers(message: Message, secret: bytes) -> dict[str, str]:
    """Of one try: the time is in what is signed, so that nobody can send it again later."""
    return {
        "webhook-id": message.id,
        "webhook-timestamp": str(message.at_s),
        "webhook-signature": signature(message, secret),
    }
