"""A Hugging Face Hub on this machine, which serves the files of one folder."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

TOKEN = "hf_of_a_test"
COMMIT = "c0ffee" * 6 + "c0ff"


class Hub(BaseHTTPRequestHandler):
    """Answers requests for the files ORG/NAME/FILE of a folder, and for lists of them."""

    folder: ClassVar[Path]

    def do_HEAD(self) -> None:
        self._file(with_content=False)

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[0] != "api":
            self._file(with_content=True)
        elif len(parts) > 3:
            self._list(self.folder / parts[2] / parts[3], tree="tree" in parts)
        else:
            self._answer(404, b"{}")

    def do_POST(self) -> None:
        """Take the files of a commit, and create repositories."""
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, b'{"error": "Invalid username or password."}')
            return
        parts = self.path.partition("?")[0].strip("/").split("/")
        answer: dict[str, object] = {"url": "", "name": "", "id": ""}
        if parts[1] == "repos":
            asked = json.loads(raw)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            answer["url"] = f"http://{self.headers['Host']}/{name}"
        if "preupload" in parts:
            asked = json.loads(raw)["files"]
            answer = {"files": [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in asked
            ]}  # fmt: skip
        if "commit" in parts:
            place = self.folder / parts[2] / parts[3]
            for line in raw.splitlines():
                change = json.loads(line)
                if change["key"] == "file":
                    path = place / change["value"]["path"]
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(base64.b64decode(change["value"]["content"]))
            answer = {
                "commitOid": COMMIT,
                "commitUrl": f"http://{self.headers['Host']}/me/net/commit/{COMMIT}",
            }
        self._answer(200, json.dumps(answer).encode())

    def _file(self, *, with_content: bool) -> None:
        repository, _, rest = self.path.partition("?")[0].strip("/").partition("/resolve/")
        path = self.folder / repository.removeprefix("datasets/") / rest.partition("/")[2]
        content = path.read_bytes() if path.is_file() else b""
        headers = {
            "X-Repo-Commit": COMMIT,
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            **({} if path.is_file() else {"X-Error-Code": "EntryNotFound"}),
        }
        self._answer(200 if path.is_file() else 404, content, headers, with_content=with_content)

    def _list(self, place: Path, *, tree: bool) -> None:
        """Answer with the commit and the files of a repository."""
        paths = [path for path in place.rglob("*") if path.is_file()]
        files = [
            {
                **dict.fromkeys(("rfilename", "path"), path.relative_to(place).as_posix()),
                "type": "file",
                "oid": "0" * 40,
                "size": path.stat().st_size,
            }
            for path in paths
        ]
        about = {"id": "/".join(place.parts[-2:]), "sha": COMMIT, "siblings": files}
        self._answer(200 if paths else 404, json.dumps(files if tree else about).encode())

    def _answer(
        self,
        code: int,
        content: bytes,
        headers: dict[str, str] | None = None,
        *,
        with_content: bool = True,
    ) -> None:
        self.send_response(code)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_content:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a folder as the Hub serves its repositories, and yield the server's address."""
    handler = type("HubOfFolder", (Hub,), {"folder": folder})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
