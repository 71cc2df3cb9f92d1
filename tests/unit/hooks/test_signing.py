"""What is signed is what every library of Standard Webhooks checks; the docs' own example, too."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdpay.hooks.sending import Message
from holdpay.hooks.signing import headers, signature

PAGE = Path(__file__).parents[3] / "docs" / "hooks.md"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
KEY = base64.b64decode(SECRET.removeprefix("whsec_"))
PUBLISHED = Message("msg_p5jXN8AQM9LWM0D4loKWxJek", "test", 1614265330, b'{"test": 2432232314}')
"""The test vector of the reference implementations."""

Verify = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def verified() -> Verify:
    """As the page has it."""
    (code,) = re.findall(r"<!-- example: verify -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    function: Verify = names["verified"]
    return function


def test_the_published_vector_has_the_published_signature() -> None:
    assert signature(PUBLISHED, KEY) == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_example_of_the_docs_takes_what_we_sign(verified: Verify) -> None:
    assert verified(headers(PUBLISHED, KEY), PUBLISHED.body, SECRET, now_s=PUBLISHED.at_s + 299) == {"test": 2432232314}


@pytest.mark.parametrize(
    ("changes", "body", "late_s"),
    [
        ({}, b'{"test": 2432232315}', 0),
        ({"webhook-id": "msg_other"}, PUBLISHED.body, 0),
        ({"webhook-timestamp": str(PUBLISHED.at_s + 1)}, PUBLISHED.body, 0),
        ({"webhook-signature": "v1,AAAA"}, PUBLISHED.body, 0),
        ({}, PUBLISHED.body, 301),
    ],
)
def test_the_example_refuses_what_was_changed_or_is_old(
    verified: Verify, changes: dict[str, str], body: bytes, late_s: int
) -> None:
    with pytest.raises(ValueError, match=r"not signed|too old"):
        verified({**headers(PUBLISHED, KEY), **changes}, body, SECRET, now_s=PUBLISHED.at_s + late_s)
