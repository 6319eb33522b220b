"""Start a gang with torchrun, on one machine or as one node of several. Standard library only.

    python -m trainer.launch spec.json PROCESSES [PHASE]
    python -m trainer.launch spec.json PROCESSES [PHASE] --node-rank 0 --meet 10.0.0.7:29400

PROCESSES are those of all nodes together; how many nodes, says the spec. Every node runs the same line with its
own number; node 0 owns the address where they meet. Each node has a run folder of its own with spec and data;
checkpoints and events are node 0's, and the others get from it what they need to go on.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import socket
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_SIOCGIFADDR = 0x8915
JOIN_TIMEOUT_S = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One machine's place among those of a run."""

    rank: int
    count: int
    meet: str  # "host:port" on node 0
    address: str  # of this machine, as the others reach it


def torchrun(
    spec: Path, processes: int, phase: str = "run", *, node: Node | None = None, run_id: str = ""
) -> list[str]:
    """The command line. torchrun reads flags up to `-m`; the engine gets positional words only."""
    start = [sys.executable, "-m", "torch.distributed.run", "--max-restarts", "0"]
    if node is None:
        start += ["--standalone", "--local-addr", "localhost", "--nnodes", "1"]
        per_node = processes
    else:
        # a host name that means 127.0.0.1 on its own machine finds no host, so each is told which it is
        owns = f"is_host={int(node.rank == 0)},join_timeout={JOIN_TIMEOUT_S}"
        start += ["--nnodes", str(node.count), "--node-rank", str(node.rank), "--local-addr", node.address]
        start += ["--rdzv-backend", "c10d", "--rdzv-endpoint", node.meet, "--rdzv-conf", owns]
        start += ["--rdzv-id", run_id or "tauon"]
        per_node = processes // node.count
    return [*start, "--nproc-per-node", str(per_node), "-m", "trainer", phase, str(spec)]


def surroundings(node: Node | None) -> dict[str, str]:
    """What torch has to be told besides."""
    # without it a restarted gang can read the addresses of the dead one and hang
    told = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    interface = "lo" if node is None else interface_of(node.address)
    if interface:
        told |= {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface}
    return told


def address_towards(host: str) -> str:
    """This machine's address on the way to another; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))
        return str(probe.getsockname()[0])


def interface_of(address: str) -> str:
    """The network interface that has this IPv4 address; empty when none has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                found = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue  # it is down, or has no IPv4
            if socket.inet_ntoa(found[20:24]) == address:
                return name
    return ""


def _told(spec: Path) -> tuple[int, str]:
    """Nodes and run id, as far as the spec can be read: what is wrong with it, the engine says."""
    try:
        raw = json.loads(spec.read_text(encoding="utf-8"))
        return max(1, int(raw.get("resources", {}).get("nodes", 1))), str(raw.get("run_id", ""))
    except (OSError, ValueError, TypeError, AttributeError):
        return 1, ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the words, and become torchrun."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer.launch", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("spec", type=Path)
    parser.add_argument("processes", type=int)
    parser.add_argument("phase", nargs="?", default="run", choices=("run", "train", "compress"))
    parser.add_argument("--node-rank", type=int, default=0)
    parser.add_argument("--meet", default="", help="host:port on node 0")
    parser.add_argument("--address", default="", help="of this machine; found out when left out")
    said = parser.parse_args(arguments)
    node, (nodes, run_id) = None, _told(said.spec)
    if nodes > 1:
        host, _, port = said.meet.rpartition(":")
        if not host or not port.isdecimal():
            parser.error("with several nodes, --meet names host:port on node 0")
        if said.processes % nodes:
            parser.error(f"{said.processes} processes cannot be shared evenly by {nodes} nodes")
        if not 0 <= said.node_rank < nodes:
            parser.error(f"--node-rank lies between 0 and {nodes - 1}")
        address = said.address or address_towards(host)
        node = Node(rank=said.node_rank, count=nodes, meet=said.meet, address=address)
    command = torchrun(said.spec.resolve(), said.processes, said.phase, node=node, run_id=run_id)
    os.environ.update(surroundings(node))
    sys.stdout.flush()
    os.execv(command[0], command)


if __name__ == "__main__":
    sys.exit(main())
