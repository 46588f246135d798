"""The watch over open ports itself (`test_secrets` uses it on runs): IPv4, IPv6 and all interfaces are told apart."""

import os
import subprocess
import sys

from ports import open_ports
from processes import MARK, marked

CODE = """
import socket, sys
kinds = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::1"), (socket.AF_INET6, "::")]
open_ones = [socket.create_server((address, 0), family=family) for family, address in kinds]
print(flush=True)
sys.stdin.read()
"""


def test_an_open_port_is_seen():
    given = os.environ | {MARK: "of-the-watch-itself"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", CODE], env=given, **pipes) as process:
        process.stdout.readline()
        seen = open_ports(marked("of-the-watch-itself"))
        process.communicate()
    assert {address for _, address in seen} == {"127.0.0.1", "0.0.0.0", "::1", "::"}
