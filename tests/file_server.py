"""A server of files on this machine, which can be told to cut its answers short."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CUT_AT = 300_000


class Server(ThreadingHTTPServer):
    """Serves `files`; `cuts` answers end after `cut_at` bytes, `stalls` delays that; `ranges` are the Range headers."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.cuts, self.cut_at, self.knows_ranges, self.ranges = 0, CUT_AT, True, []
        self.stalls = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        if self.command == "GET":
            self.server.ranges.append(wanted)
        content = self.server.files.get(self.path)
        if content is None:
            return self.send_error(404)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.server.knows_ranges else 0
        if start and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.server.cuts:
            self.server.cuts -= 1
            content = content[: start + self.server.cut_at]
        self.wfile.write(content[start:])
        while self.server.stalls.is_set():
            time.sleep(0.01)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass
