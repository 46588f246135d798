"""Headless Chromium on a page of MLflow, through a small proxy that logs in for it: a page's DOM, and its picture."""

import base64
import http.client
import subprocess
import tempfile
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from browser import program

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", "--window-size=1600,1400",
         "--disable-dev-shm-usage"]  # fmt: skip


def login_proxy(user: str, password: str, port: int = 5000) -> ThreadingHTTPServer:
    """A server on a free loopback port that passes requests on to 127.0.0.1:`port` with a basic login.

    It must be made, and Chromium started, within the network that has the server (`Network.within` does both).
    """
    word = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            kept = {
                k: v for k, v in self.headers.items() if k.lower() not in ("host", "origin", "referer", "connection")
            }
            connection.request(self.command, self.path, body or None, kept | {"Authorization": word})
            answer = connection.getresponse()
            text = answer.read()
            connection.close()
            self.send_response_only(answer.status)
            for key, value in answer.getheaders():
                if key.lower() not in ("transfer-encoding", "content-length", "connection"):
                    self.send_header(key, value)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            with suppress(OSError):  # the page has been left
                self.wfile.write(text)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _any  # noqa: N815

        def log_message(self, *words: Any) -> None:
            """Nothing."""

    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)


def visit(path: str, user: str, password: str, picture: Path) -> str:
    """The DOM of MLflow's page once it is drawn; its picture is written to `picture`."""
    server = login_proxy(user, password)
    thread = threading.Thread(target=server.serve_forever, daemon=True)  # inherits this thread's network
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}{path}"
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
            wait = [f"--user-data-dir={home}", "--timeout=60000", "--virtual-time-budget=45000"]
            command = [str(program()), *FLAGS, *wait, f"--screenshot={picture}", "--dump-dom", url]
            done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    finally:
        server.shutdown()
        server.server_close()
    assert done.stdout, done.stderr[-2000:]
    return done.stdout
