"""A proxy before an S3 server that misbehaves on order: a 500, a late answer, a connection dropped in mid-upload."""

import http.client
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

Fault = str  # "500", "slow", "drop", "lost" (done there, but the answer never comes), "" (none)


class Unruly:
    """`http://127.0.0.1:PORT`. `fault(method, path)` says how a request goes wrong; `after` follows a change."""

    def __init__(self, upstream: str, fault: Callable[[str, str], Fault], slow: float = 12.0) -> None:
        self.upstream, self.fault, self.slow = urlsplit(upstream), fault, slow
        self.after: Callable[[str, str], None] = lambda method, path: None
        self.done: list[tuple[Fault, str, str]] = []
        self.errors: list[BaseException] = []  # of `after`
        self._ordered, self._looking = threading.Lock(), threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                outer.handle(self)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _any  # noqa: N815

            def log_message(self, *words: Any) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        """One request, well or ill."""
        chunked = "chunked" in (request.headers.get("Transfer-Encoding") or "")
        length = int(request.headers.get("Content-Length") or 0)
        with self._ordered:
            fault = self.fault(request.command, request.path)
            if fault:
                self.done.append((fault, request.command, request.path))
        body = _chunks(request) if chunked else request.rfile.read(length // 2 if fault == "drop" else length)
        if fault == "drop":
            with suppress(OSError):  # the server has half of it when both connections end
                self._forward(request, body, whole=False)
            request.close_connection = True
            return
        if fault == "500":
            text = b"<Error><Code>InternalError</Code><Message>on order</Message></Error>"
            _answer(request, 500, [("Content-Type", "application/xml")], text)
            return
        try:
            status, headers, answer = self._forward(request, body)
        except OSError:
            request.close_connection = True
            return
        if request.command in ("PUT", "POST", "DELETE"):
            with self._looking:
                try:
                    self.after(request.command, request.path)
                except BaseException as error:
                    self.errors.append(error)
        if fault == "lost":
            request.close_connection = True
            return
        if fault == "slow":
            time.sleep(self.slow)
        _answer(request, status, headers, answer)

    def _forward(
        self, request: BaseHTTPRequestHandler, body: bytes, whole: bool = True
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(str(self.upstream.hostname), self.upstream.port, timeout=60)
        connection.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
        for key, value in request.headers.items():  # the signature covers Host: it passes as it is
            if key.lower() not in ("expect", "connection"):
                connection.putheader(key, value)
        chunked = "chunked" in (request.headers.get("Transfer-Encoding") or "")
        if not whole:
            connection.endheaders()
            connection.send(b"%x\r\n" % len(body) + body[: len(body) // 2] if chunked else body)
            connection.close()
            return 0, [], b""
        connection.endheaders(body or (b"" if chunked else None), encode_chunked=chunked)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, answer.getheaders(), text

    def close(self) -> None:
        """End it."""
        self.server.shutdown()
        self.server.server_close()


def _chunks(request: BaseHTTPRequestHandler) -> bytes:
    """The body of a request that does not tell its length."""
    body = b""
    while size := int(request.rfile.readline().split(b";")[0], 16):
        body += request.rfile.read(size)
        request.rfile.readline()
    while request.rfile.readline() not in (b"\r\n", b""):
        pass
    return body


def _answer(request: BaseHTTPRequestHandler, status: int, headers: list[tuple[str, str]], text: bytes) -> None:
    try:
        request.send_response_only(status)
        for key, value in headers:
            if key.lower() not in ("transfer-encoding", "connection", "content-length"):
                request.send_header(key, value)
        length = {k.lower(): v for k, v in headers}.get("content-length", str(len(text)))
        request.send_header("Content-Length", length if request.command == "HEAD" else str(len(text)))
        request.end_headers()
        request.wfile.write(text)
    except OSError:
        request.close_connection = True
