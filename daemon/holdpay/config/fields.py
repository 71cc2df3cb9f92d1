"""The kinds of values in the configuration that a type alone cannot check.

Each check raises ValueError with the end of a sentence that begins with the key: "names FILE, and ...: do this".
"""

from __future__ import annotations

import base64
import errno
import grp
import ipaddress
import os
import re
import stat
from pathlib import Path
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, ValidationInfo

from holdpay.config.trust import PROGRAM, distrust
from holdpay.core.hooks import Topic
from holdpay.errors import InvalidRequest
from holdpay.recipients import lightning_address

MAX_SOCKET_PATH_BYTES = 107
"""What sockaddr_un holds, without the closing NUL (unix(7))."""
MAX_PUBLIC_URL_CHARS = 1024
MAX_FILE_BYTES = 64 * 1024
CREDENTIAL = "credential:"
SECRET_PREFIX = "whsec_"  # noqa: S105 - how every one begins
KEY_CREDENTIAL = "api-key"
"""The name of the API key among systemd's credentials, as in the unit."""
MAX_KEY_FILE_BYTES = 4096

_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.%]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>\d{1,5})")
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}")
_PUBKEY = re.compile(r"0[23][0-9a-f]{64}")
_MACAROON_VERSION = b"\x02"
"""With which those of lnd begin (gopkg.in/macaroon.v2, marshal-v2.go)."""
_LITD_ACCOUNT = b"lnd-custom account "
"""How the caveat begins that binds a macaroon to one (lightning-terminal: accounts/interceptor.go; what it may ask:
accounts/checkers.go)."""
_HEX_TEXT = re.compile(rb"[0-9A-Fa-f]{64,}")
_BASE64_TEXT = re.compile(rb"[A-Za-z0-9+/_-]{64,}={0,2}")
_KEY = re.compile(rb"[!-~]{8,512}")
_CLIENT_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_SECRET_BYTES = range(24, 65)
"""Of a hook, as Standard Webhooks has it."""
_CREDENTIAL_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


def read_bounded(path: Path, max_bytes: int = MAX_FILE_BYTES) -> tuple[bytes, os.stat_result]:
    """A regular file's content and status. Raises ValueError, "and ..." what is wrong and what to do."""
    if str(path).startswith(CREDENTIAL):
        raise ValueError(
            "and CREDENTIALS_DIRECTORY is not set: start holdpayd by its unit, or set it to the folder of the file to"
            " check by hand"
        )
    try:
        # Not blocking: opening a FIFO would wait for a writer.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                raise ValueError("and that is not a regular file: correct the path")
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise ValueError(_why_unreadable(error)) from None
    if len(content) > max_bytes:
        raise ValueError(f"and that is longer than {max_bytes:,} bytes: correct the path")
    return content, info


def _why_unreadable(error: OSError) -> str:
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        return "and there is no such file: put it there, or correct the path"
    if error.errno == errno.EISDIR:
        return "and that is a directory: name the file in it"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return "and holdpayd may not read it: let its user read the file and enter the directories above it"
    return f"and it cannot be read ({error.strerror}): see to the file, or correct the path"


def resolve(text: object, info: ValidationInfo) -> Path:
    """A path from the configuration: ``~`` is the user's home; a relative path starts at the configuration's folder."""
    if isinstance(text, Path):
        return text
    if not isinstance(text, str) or not text.strip():
        raise ValueError("must be a path in quotes")
    if "\0" in text or not text.isprintable():
        raise ValueError("has a character that no path here may have: type it again")
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise ValueError("begins with ~, and this user has no home directory: write the whole path") from None
    folder: Path = (info.context or {}).get("folder", Path.cwd())
    return folder / path


def check_socket(path: Path) -> Path:
    """Raises ValueError for a path that gRPC or the kernel cannot take."""
    _check_socket_length(path)
    if "%" in str(path):
        raise ValueError("may not contain %, which gRPC reads as an escape: choose another path")
    return path


def _check_socket_length(path: Path) -> None:
    length = len(os.fsencode(path))
    if length > MAX_SOCKET_PATH_BYTES:
        raise ValueError(f"is {length} bytes long, and a socket's path may have {MAX_SOCKET_PATH_BYTES}: shorten it")


def _resolve_listen(text: object, info: ValidationInfo) -> str | Path:
    """An address as "host:port", or the path of a socket: it has a slash in it."""
    if not isinstance(text, str) or "/" not in text:
        if not isinstance(text, str) or not _is_host_and_port(text):
            raise ValueError('must be host:port, like "127.0.0.1:8780", or a socket\'s path with a slash in it')
        return _check_address(text)
    path = resolve(text, info)
    _check_socket_length(path)
    return path


def _resolve_macaroon(text: object, info: ValidationInfo) -> object:
    if not isinstance(text, str):
        return resolve(text, info)
    if _HEX_TEXT.fullmatch(b"".join(text.encode(errors="replace").split())):
        raise ValueError("holds the macaroon itself: save the macaroon in a file (chmod 640) and name the file")
    return _resolve_secret(text, info, "macaroon")


def _resolve_secret(text: object, info: ValidationInfo, as_in_unit: str) -> Path:
    """A path, or "credential:NAME" for systemd's, which stays so where systemd gave none: see ``read_bounded``.
    ``as_in_unit``: the name that the unit gives it."""
    if not isinstance(text, str) or not text.startswith(CREDENTIAL):
        return resolve(text, info)
    name = text.removeprefix(CREDENTIAL)
    if not _CREDENTIAL_NAME.fullmatch(name):
        raise ValueError(f"names no credential after {CREDENTIAL!r}: write {CREDENTIAL}{as_in_unit}, as in the unit")
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return Path(folder) / name if folder else Path(text)


def _check_macaroon(path: Path) -> Path:
    content, info = _read_named(path)
    if not content.strip():
        # The unit hands over an empty credential where the file is missing.
        raise ValueError(
            f"names {path}, and that is empty: put lnd's macaroon there (for the unit: /etc/holdpay/holdpay.macaroon)"
        )
    if kind := _spelled_out(content):
        raise ValueError(f"names {path}, and that holds {kind}: name the file that `bakemacaroon --save_to` wrote")
    if _LITD_ACCOUNT in content:
        raise ValueError(
            f"names {path}, which belongs to a litd account: litd hides the node's channels and stream of payments from"
            " it, so that nobody could see what became of a payment; bake one of lnd's own"
        )
    _check_rights(path, info)
    return path


def _check_rights(path: Path, info: os.stat_result) -> None:
    """To be called once the content is known to be what it should: else a path that is mistyped would have the rights
    of some other file changed."""
    if info.st_mode & 0o007:
        raise ValueError(f"names {path}, which everybody on this machine may use: run `chmod o= {path}`")
    if info.st_mode & 0o020:
        raise ValueError(f"names {path}, which its group may write: run `chmod g-w {path}`")


def _spelled_out(content: bytes) -> str:
    """What a file has in place of a binary macaroon: one that was written as text, in one line or wrapped, or none;
    empty for a binary one."""
    joined = b"".join(content.split())
    if _HEX_TEXT.fullmatch(joined):
        return "hex digits"
    if _BASE64_TEXT.fullmatch(joined):
        return "base64 text"
    return "" if content[:1] == _MACAROON_VERSION else "no macaroon"


def _resolve_key(text: object, info: ValidationInfo) -> object:
    return text if text is None else _resolve_secret(text, info, KEY_CREDENTIAL)


def credential_key() -> Path | None:
    """The file of the API key that systemd gave us, if it did: the unit hands over an empty one where there is none."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    path = Path(folder or "") / KEY_CREDENTIAL
    try:
        return path if folder and path.read_bytes().strip() else None
    except OSError:
        return None


def _check_key(path: Path | None) -> Path | None:
    if path is not None:
        read_key(path)
    return path


def read_key(path: Path) -> str:
    """The API key in a file, which only the daemon may read. Raises ValueError: a missing file's name is not repeated,
    for it may be the key itself."""
    try:
        content, info = read_bounded(path, MAX_KEY_FILE_BYTES)
    except ValueError as error:
        raise ValueError(f"should name the file that holds the key, {error}") from None
    key = content.strip()
    if not key:
        raise ValueError(f"names {path}, and that is empty: put the prepaid account's key there, in one line")
    if not _KEY.fullmatch(key):
        raise ValueError(
            f"names {path}, and that does not hold a key: put the key there alone, in one line of 8 to 512 characters"
            " without blanks"
        )
    _check_rights(path, info)
    return key.decode("ascii")


def _resolve_hook_secret(text: object, info: ValidationInfo) -> object:
    if isinstance(text, str) and text.startswith(SECRET_PREFIX):
        raise ValueError("holds the secret itself: save it in a file (chmod 600) and name the file")
    return text if text is None else _resolve_secret(text, info, "hook-NAME")


def read_hook_secret(path: Path) -> bytes:
    """The key with which a hook is signed, which only the daemon may read. Raises ValueError."""
    try:
        content, info = read_bounded(path, MAX_KEY_FILE_BYTES)
    except ValueError as error:
        raise ValueError(f"names {path}, {error}") from None
    wanted = f"{SECRET_PREFIX} and base64 of 24 to 64 random bytes, in one line"
    make = f"`printf {SECRET_PREFIX}; head -c 32 /dev/urandom | base64` makes one"
    try:
        text = content.strip().decode("ascii")
        secret = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except ValueError:
        raise ValueError(f"names {path}, and that does not hold {wanted}: {make}") from None
    if not text.startswith(SECRET_PREFIX) or len(secret) not in _SECRET_BYTES:
        raise ValueError(f"names {path}, and that does not hold {wanted}: {make}")
    _check_rights(path, info)
    return secret


def _check_command(argv: tuple[str, ...]) -> tuple[str, ...]:
    if not argv:
        raise ValueError("must be a list in brackets: a program, and its arguments")
    if not Path(argv[0]).is_absolute():
        raise ValueError("must begin with the whole path of a program, since no shell looks for it")
    if any("\0" in argument for argument in argv):
        raise ValueError("has a character that no argument may have: type it again")
    return argv


def check_program(program: Path) -> None:
    """That it can be started, and that only those can change it who may do more than holdpayd. Raises ValueError."""
    try:
        info = program.stat()
    except OSError as error:
        raise ValueError(f"names {program}, {_why_unreadable(error)}") from None
    if not stat.S_ISREG(info.st_mode) or not os.access(program, os.X_OK):
        raise ValueError(f"names {program}, which holdpayd cannot start: run `chmod +x {program}`, or correct the path")
    if reasons := distrust(program, info, PROGRAM):
        told = "; ".join(reason[0].lower() + reason[1:].rstrip(".") for reason in reasons)
        raise ValueError(f"names {program}, which is not safe: {told}")


def _read_topics(given: object) -> object:
    known = ", ".join(f'"{topic}"' for topic in Topic)
    if not isinstance(given, list) or not given or not all(isinstance(name, str) for name in given):
        raise ValueError(f"must be a list in brackets of at least one of {known}")
    unknown = [name for name in given if name not in list(Topic)]
    if unknown:
        raise ValueError(f"may not have {unknown[0]!r}: known are {known}")
    return tuple(Topic(name) for name in dict.fromkeys(given))


def _check_hook_url(text: str) -> str:
    url = _split_url(text, ("https", "http"))
    if url.scheme == "http" and not is_loopback(url.hostname or ""):
        raise ValueError("must begin with https://; plain http:// is for a server on this machine only")
    if url.username is not None or url.fragment:
        raise ValueError("must have no user and no fragment: leave them out; the signature says who sends it")
    return text


def _check_ref(text: str) -> str:
    try:
        return lightning_address(text)
    except InvalidRequest:
        raise ValueError("is no Lightning Address: write it like satoshi@example.com, or leave the key out") from None


def _read_named(path: Path) -> tuple[bytes, os.stat_result]:
    try:
        return read_bounded(path)
    except ValueError as error:
        raise ValueError(f"names {path}, {error}") from None


def _is_host_and_port(text: str) -> bool:
    match = _ADDRESS.fullmatch(text)
    return match is not None and 0 < int(match["port"]) < 65536


def _check_address(text: str) -> str:
    match = _ADDRESS.fullmatch(text)
    if match is None or not _is_host_and_port(text):
        raise ValueError('must be host:port without a scheme, like "127.0.0.1:10009" or "[::1]:10009"')
    if match["v6"]:
        try:
            ipaddress.IPv6Address(match["v6"])
        except ValueError:
            raise ValueError("has no IPv6 address between its brackets: correct it") from None
    return text


def _check_host(text: str) -> str:
    if not _HOST.fullmatch(text):
        raise ValueError("must be a bare host name, as it stands in lnd's certificate")
    return text


def _check_base_url(text: str) -> str:
    if not text.isascii():
        raise ValueError("must be ASCII: write the host by its name that begins with xn--, and encode the path")
    url = _split_url(text, ("https", "http"))
    if url.scheme == "http" and not is_loopback(url.hostname or ""):
        raise ValueError("must begin with https://; plain http:// is for a server on this machine only")
    if url.username is not None or url.query or url.fragment:
        raise ValueError("must be the bare base URL: leave out user, query and fragment")
    return text.rstrip("/")


def _check_public_url(text: str) -> str:
    if len(text) > MAX_PUBLIC_URL_CHARS or not text.isascii():
        raise ValueError(f"must have at most {MAX_PUBLIC_URL_CHARS} characters, all ASCII: encode or shorten it")
    return _check_base_url(text)


def _check_proxy(text: str) -> str:
    # socks5:// would look names up outside the proxy, past Tor.
    url = _split_url(text, ("http", "https", "socks5h"))
    if url.port is None or url.path not in {"", "/"} or url.query or url.fragment:
        raise ValueError("must be scheme, host and port only, like socks5h://127.0.0.1:9050")
    return text.rstrip("/")


def _split_url(text: str, schemes: tuple[str, ...]) -> SplitResult:
    """Never quotes the text: it may hold a password."""
    wanted = " or ".join(f"{scheme}://" for scheme in schemes)
    if not text.isprintable() or " " in text:
        raise ValueError("has a blank or an unprintable character: type it again")
    try:
        url = urlsplit(text)
        has_host = bool(url.hostname) and url.port != 0
    except ValueError:
        raise ValueError(f"is not a URL: write it like {schemes[0]}://host:port") from None
    if url.scheme not in schemes:
        raise ValueError(f"must begin with {wanted}")
    if not has_host:
        raise ValueError(f"names no host: write it like {schemes[0]}://host:port")
    return url


def is_loopback(host: str) -> bool:
    """Whether it is this machine, as far as its name says."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_pubkey(text: object) -> object:
    if isinstance(text, str) and not _PUBKEY.fullmatch(text.lower()):
        raise ValueError("must be a node's public key: 66 hex digits that begin with 02 or 03")
    return text.lower() if isinstance(text, str) else text


def _check_client_name(text: str) -> str:
    if not _CLIENT_NAME.fullmatch(text):
        raise ValueError("must have 1 to 32 characters, a-z, 0-9 and -, and begin with none of the latter: rename it")
    return text


def _check_group(text: str) -> str:
    try:
        grp.getgrnam(text)
    except (KeyError, ValueError):
        raise ValueError("names no group of this machine: make it (`groupadd`), or correct the name") from None
    return text


AnyPath = Annotated[Path, BeforeValidator(resolve)]
SocketPath = Annotated[Path, BeforeValidator(resolve), AfterValidator(check_socket)]
MacaroonFile = Annotated[Path, BeforeValidator(_resolve_macaroon), AfterValidator(_check_macaroon)]
KeyFile = Annotated[Path | None, BeforeValidator(_resolve_key), AfterValidator(_check_key)]
HookSecretFile = Annotated[Path | None, BeforeValidator(_resolve_hook_secret)]
HookUrl = Annotated[str, AfterValidator(_check_hook_url)]
HookCommand = Annotated[tuple[str, ...], AfterValidator(_check_command)]
HookEvents = Annotated[tuple[Topic, ...], BeforeValidator(_read_topics)]
Ref = Annotated[str, AfterValidator(_check_ref)]
Address = Annotated[str, AfterValidator(_check_address)]
HostName = Annotated[str, AfterValidator(_check_host)]
BaseUrl = Annotated[str, AfterValidator(_check_base_url)]
PublicUrl = Annotated[str, AfterValidator(_check_public_url)]
Listen = Annotated[str | Path, BeforeValidator(_resolve_listen)]
"""A Path is of a Unix socket."""
ProxyUrl = Annotated[str, AfterValidator(_check_proxy)]
ClientName = Annotated[str, AfterValidator(_check_client_name)]
UnixGroup = Annotated[str, AfterValidator(_check_group)]
"""One that this machine knows."""
Pubkey = Annotated[str, BeforeValidator(_check_pubkey)]
