"""Which processes of a run listen where: sockets of /proc, told apart by a mark in the environment."""

import ipaddress
import os
from contextlib import suppress
from pathlib import Path

LISTEN = "0A"  # a socket's state in /proc/net/tcp


def address(text: str) -> str:
    """An address of /proc/net/tcp or tcp6, whose 32-bit words stand in the machine's order."""
    words = [bytes.fromhex(text[i : i + 8])[::-1] for i in range(0, len(text), 8)]
    result = ipaddress.ip_address(b"".join(words))
    return str(getattr(result, "ipv4_mapped", None) or result)


def listening() -> dict[str, str]:
    """The address of every listening socket of this machine by the socket's number."""
    result = {}
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == LISTEN:
                result[inode] = address(local.partition(":")[0])
    return result


def open_ports(processes: dict[int, str]) -> set[tuple[str, str]]:
    """(title, address) of the listening sockets of processes {pid: title}."""
    links = set()
    for pid, title in processes.items():
        with suppress(OSError):
            links |= {(title, os.readlink(handle)) for handle in Path(f"/proc/{pid}/fd").iterdir()}
    sockets = listening()  # after the links: a socket that is closed in between is missed, not mistaken
    return {(title, sockets[i]) for title, i in ((title, link[8:-1]) for title, link in links) if i in sockets}
