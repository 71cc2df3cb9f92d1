"""The certificates that lnd is trusted by: one look for `--check-config`, the start, and lnd's renewals."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator

from holdpay.config.fields import read_bounded, resolve

MAX_BUNDLE_BYTES: Final = 4 * 1024 * 1024
"""Several times what a system's bundle of all roots takes."""

# Where distributions keep the bundle of trusted roots: the list of Go's crypto/x509 for Linux. gRPC for Python would
# prefer a list of its own, which no operator can add a certificate to.
_ROOT_BUNDLES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)

_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"
_BLOCK: Final = re.compile(_BEGIN + rb"[\r\n].*?-----END CERTIFICATE-----", re.DOTALL)


class CertificateUnusable(ValueError):
    """The trusted certificates cannot be read, or are none. The end of a sentence that begins with lnd.tls_cert."""


def read_certificates(path: Path | None) -> bytes:
    """The PEM certificates to trust: those of ``path`` (lnd's tls.cert), or the system's roots.

    Comments around them, in whatever encoding, are left out. Raises CertificateUnusable, also for a file that lnd is
    still writing.
    """
    path = path or _system_bundle()
    try:
        content, _ = read_bounded(path, MAX_BUNDLE_BYTES)
    except ValueError as error:
        raise CertificateUnusable(f"names {path}, {error}") from None
    blocks = _BLOCK.findall(content)
    if _BEGIN not in content:
        raise CertificateUnusable(f"names {path}, and that holds no PEM certificate: name lnd's tls.cert")
    if len(blocks) != content.count(_BEGIN):
        raise CertificateUnusable(f"names {path}, and that holds half a certificate: copy lnd's tls.cert again")
    pem = b"".join(block + b"\n" for block in blocks)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem.decode("ascii"))
    except (ssl.SSLError, ValueError):  # its words are OpenSSL's own, and name neither line nor remedy
        raise CertificateUnusable(
            f"names {path}, and that holds a certificate that cannot be read: copy lnd's tls.cert again"
        ) from None
    return pem


def _system_bundle() -> Path:
    named = ssl.get_default_verify_paths().cafile
    for candidate in (named, *_ROOT_BUNDLES):
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    raise CertificateUnusable(
        "is not set, and the system has no bundle of trusted certificates: name lnd's tls.cert, or install a bundle"
        " (Debian: package ca-certificates)"
    )


def _check(path: Path) -> Path:
    read_certificates(path)
    return path


CertificateFile = Annotated[Path, BeforeValidator(resolve), AfterValidator(_check)]
