"""How another process plays tricks on a running sandbox: a loopback HTTP server, its address in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from holdpay.sandbox.files import write_private
from holdpay.sandbox.http_server import HttpServer, Request, Response, json_response
from holdpay.sandbox.tricks import UnknownTrick, play

if TYPE_CHECKING:
    from holdpay.sandbox.world import SandboxWorld

_TIMEOUT_S = 30


class NoSandbox(Exception):
    """No sandbox runs there."""


class ControlServer:
    """Takes tricks by POST /trick, the trick's text as its body."""

    def __init__(self, world: SandboxWorld, directory: Path) -> None:
        self._world = world
        self._file = address_file(directory)
        self._http = HttpServer(self._answer)

    async def start(self) -> None:
        await self._http.start()
        write_private(self._file, json.dumps({"control": self._http.url}).encode())

    async def stop(self) -> None:
        self._file.unlink(missing_ok=True)
        await self._http.stop()

    async def _answer(self, request: Request) -> Response:
        if (request.method, request.path) != ("POST", "/trick"):
            return json_response({"error": "POST /trick"}, 404)
        try:
            return json_response({"done": await play(self._world, request.body.decode(errors="replace"))})
        except UnknownTrick as error:
            return json_response({"error": str(error)}, 400)


def address_file(directory: Path) -> Path:
    return directory / "sandbox.json"


def play_remotely(directory: Path, text: str) -> str:
    """Plays a trick on the sandbox that runs in ``directory``. Raises NoSandbox, UnknownTrick."""
    try:
        url = json.loads(address_file(directory).read_text())["control"]
        with httpx.Client(trust_env=False, timeout=_TIMEOUT_S) as client:
            answer = client.post(f"{url}/trick", content=text.encode()).json()
    except PermissionError as error:
        raise NoSandbox(f"You may not look into {directory}. Run this as the user who started the sandbox.") from error
    except (OSError, ValueError, KeyError, httpx.HTTPError) as error:
        raise NoSandbox(f"No sandbox runs in {directory}. Start one with `holdpayd sandbox run`.") from error
    if "error" in answer:
        raise UnknownTrick(answer["error"])
    return str(answer["done"])
