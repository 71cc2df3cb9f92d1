"""A net of real nodes: btcd, and lnds in a row with a channel from each to the next.

    net = await Net.start("0.21.0", directory=Path("/tmp/net"))
    alice, bob, carol = net.nodes.values()
    ...
    await net.stop()

The smallest net in which a hop charges a fee, fails or goes offline is alice - bob - carol.
"""

import asyncio
import shutil
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

from tests.regtest import binaries
from tests.regtest.binaries import Binaries
from tests.regtest.btcd import NOBODYS_ADDRESS, Btcd
from tests.regtest.node import Node

CHAIN_OF_THREE: Final = ("alice", "bob", "carol")
CAPACITY_SAT: Final = 10_000_000
PUSH_SAT: Final = CAPACITY_SAT // 2  # both ends can pay
# Each channel takes a coin until its change confirms: enough for several channels in one `open_channels`.
COINS: Final = 5
COIN_SAT: Final = 20_000_000
# Activates simnet's soft forks and lets the first coinbase outputs mature.
FIRST_BLOCKS: Final = 400
# lnd announces a channel after six confirmations.
ANNOUNCE_BLOCKS: Final = 6


class Net:
    """Running nodes by name. Everything of the net, logs too, is in its directory, which stays after `stop`."""

    def __init__(self, programs: Binaries, directory: Path) -> None:
        self.programs = programs
        self.directory = directory
        self.nodes: dict[str, Node] = {}
        self._chain = Btcd(programs.btcd, directory / "btcd")
        self._public_channels = 0

    @classmethod
    async def start(
        cls,
        lnd_version: str = binaries.DEFAULT_VERSION,
        *,
        directory: Path,
        nodes: Sequence[str] = CHAIN_OF_THREE,
        settings: Mapping[str, Sequence[str]] | None = None,
    ) -> "Net":
        """A net with funded, announced channels between neighbours, each end with half the capacity.

        `directory` exists and is empty. `settings` are more lines for the lnd.conf of a node, by its name.
        Raises binaries.Unavailable, process.StartFailed, TimeoutError; nothing is left running then.
        """
        net = cls(binaries.ensure(lnd_version), directory)
        try:
            await net._start(nodes, settings or {})
        except BaseException:
            await net.kill()
            raise
        return net

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    async def stop(self) -> None:
        """Stops everything, lnd first: it waits 25 s for a btcd that went away."""
        await asyncio.gather(*(node.stop() for node in self.nodes.values()))
        await self._chain.stop()

    async def kill(self) -> None:
        """Ends everything at once."""
        await asyncio.gather(*(node.kill() for node in self.nodes.values()), self._chain.kill())

    # --- the chain ---

    async def height(self) -> int:
        """Height of the best block."""
        return await self._chain.height()

    async def mine(self, blocks: int, *, interval_s: float = 0) -> None:
        """Mines blocks: all at once, or with a pause after each (0.25 s lets every node react to every block)."""
        if not interval_s:
            await self._chain.generate(blocks)
            return
        for _ in range(blocks):
            await self._chain.generate(1)
            await asyncio.sleep(interval_s)

    async def wait_synced(self) -> None:
        """Returns when every running node has seen the last block."""
        await asyncio.gather(*(node.wait_synced() for node in self.nodes.values() if node.running))

    # --- nodes and channels ---

    async def add_node(self, name: str, *, behind: Node | None = None, settings: Iterable[str] = ()) -> Node:
        """Starts one more node, without coins or channels (`fund`, `open_channels`).

        With `behind`, a stopped node, the new one takes over its gRPC address, its certificate and its macaroons, so
        that a client of the old node can tell them apart by the public key only.
        """
        rpc_port = int(behind.rpc_address.rpartition(":")[2]) if behind else None
        directory = self.directory / name
        node = Node(name, self.programs.lnd, directory, self._chain, rpc_port=rpc_port, settings=settings)
        self.nodes[name] = node
        if behind is not None:
            _take_over(behind, node)
        await node.start()
        return node

    async def remove_node(self, node: Node) -> None:
        """Stops a node for good, one without channels; its directory stays, so its name is spent."""
        await node.stop()
        del self.nodes[node.name]

    async def fund(self, *nodes: Node) -> None:
        """Gives each node confirmed coins of the first node's."""
        payer = next(iter(self.nodes.values()))
        await payer.send_coins({await node.new_address(): COIN_SAT for node in nodes for _ in range(COINS)})
        await self.mine(1)
        await self.wait_synced()

    async def open_channels(
        self, *pairs: tuple[Node, Node], capacity_sat: int = CAPACITY_SAT, push_sat: int = PUSH_SAT
    ) -> None:
        """Opens a channel for each (opener, peer), parallel ones too; returns when all nodes can route through them."""
        for opener, peer in pairs:
            await opener.connect(peer)
            await opener.open_channel(peer, capacity_sat=capacity_sat, push_sat=push_sat)
        await self.mine(ANNOUNCE_BLOCKS)
        self._public_channels += len(pairs)
        for node in {node.name: node for pair in pairs for node in pair}.values():
            await node.wait_active_channels()
        await asyncio.gather(*(node.wait_known_channels(self._public_channels) for node in self.nodes.values()))

    async def heal(self) -> None:
        """Brings the net back to a state in which every node can pay: after a test that hurt it."""
        for node in self.nodes.values():
            if node.running:
                node.resume()
        await asyncio.gather(*(node.start() for node in self.nodes.values() if not node.running))
        await self.wait_synced()
        for node in self.nodes.values():
            await node.wait_active_channels()
        await asyncio.gather(*(node.reset_mission_control() for node in self.nodes.values()))

    async def _start(self, names: Sequence[str], settings: Mapping[str, Sequence[str]]) -> None:
        # lnd takes a chain whose last block is old for one that is not synced, and simnet's genesis is of 2014. So one
        # block goes to nobody; then the first node can start, and has an address for the rewards of all others. It is
        # down while btcd restarts: it would come back to it after 5 s, and miss the blocks of the meantime.
        await self._chain.start(NOBODYS_ADDRESS)
        await self._chain.generate(1)
        first = await self.add_node(names[0], settings=settings.get(names[0], ()))
        reward_address = await first.new_address()
        await first.stop()
        await self._chain.stop()
        await self._chain.start(reward_address)
        await self._chain.generate(FIRST_BLOCKS)
        others = (self.add_node(name, settings=settings.get(name, ())) for name in names[1:])
        await asyncio.gather(first.start(), *others)
        row = [self.nodes[name] for name in names]
        await self.fund(*row[1:])
        await self.open_channels(*pairwise(row))


def _take_over(old: Node, new: Node) -> None:
    new.network_directory.mkdir(parents=True)
    for name in ("tls.cert", "tls.key"):
        shutil.copy(old.directory / name, new.directory / name)
    shutil.copy(old.network_directory / "macaroons.db", new.network_directory / "macaroons.db")
