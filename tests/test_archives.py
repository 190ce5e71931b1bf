"""Archives: fetched with interruptions, checked, and unpacked without trust."""

import hashlib
import io
import stat
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest

from mixbench.datasets import archives
from mixbench.datasets.archives import check, download, unpack
from mixbench.declare import Archive
from mixbench.errors import DataError

CONTENT = bytes(range(256)) * 5000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(NamedTuple):
    """A server of one file.

    Attributes
    ----------
    asked
        The ranges that were asked for.
    behaviour
        ``plain``, ``no ranges``, ``short`` (hangs up half-way), ``gone`` or ``wrong`` content.
    """

    url: str
    asked: list[str | None]
    behaviour: list[str]


@pytest.fixture
def server() -> Iterator[Server]:
    asked: list[str | None] = []
    behaviour = ["plain"]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the library's name
            wish = self.headers.get("Range")
            asked.append(wish)
            start = int(wish.removeprefix("bytes=").rstrip("-")) if wish else 0
            if behaviour[0] == "gone" or start >= len(CONTENT):
                self.send_error(404 if behaviour[0] == "gone" else 416)
                return
            start = 0 if behaviour[0] == "no ranges" else start
            body = CONTENT[start:] if behaviour[0] != "wrong" else bytes(len(CONTENT))
            self.send_response(206 if wish and behaviour[0] != "no ranges" else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if behaviour[0] == "short" else body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield Server(f"http://127.0.0.1:{running.server_port}/a.bin", asked, behaviour)
    running.shutdown()
    running.server_close()


def fetch(server: Server, folder: Path, digest: str = SHA256) -> tuple[Path, list[tuple[int, int]]]:
    told: list[tuple[int, int]] = []
    archive = Archive("a.bin", digest, server.url, len(CONTENT))
    return download(archive, folder, lambda done, of: told.append((done, of))), told


def test_a_file_is_fetched_and_its_progress_told(server: Server, tmp_path: Path) -> None:
    path, told = fetch(server, tmp_path)

    assert path.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.parametrize("then", ["plain", "no ranges"])
def test_what_broke_off_goes_on(server: Server, tmp_path: Path, then: str) -> None:
    server.behaviour[0] = "short"
    with pytest.raises(DataError, match="Run the same command again to resume"):
        fetch(server, tmp_path)
    server.behaviour[0] = then

    path, told = fetch(server, tmp_path)

    assert path.read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={len(CONTENT) // 2}-"]
    assert told[-1] == (len(CONTENT), len(CONTENT))


def test_a_whole_file_that_was_not_named_yet_is_taken(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(CONTENT)

    assert fetch(server, tmp_path)[0].read_bytes() == CONTENT


def test_other_content_is_refused_and_not_kept(server: Server, tmp_path: Path) -> None:
    server.behaviour[0] = "wrong"

    with pytest.raises(DataError, match=f"checksum must be {SHA256}"):
        fetch(server, tmp_path)

    assert not list(tmp_path.iterdir())


def test_a_missing_file_is_named(server: Server, tmp_path: Path) -> None:
    server.behaviour[0] = "gone"

    with pytest.raises(DataError, match=r"a\.bin returned 404"):
        fetch(server, tmp_path)


def test_no_server_is_named(tmp_path: Path) -> None:
    archive = Archive("a.bin", SHA256, "http://127.0.0.1:9/a.bin", 1)

    with pytest.raises(DataError, match="cannot be downloaded"):
        download(archive, tmp_path, lambda _done, _of: None)


def test_md5_and_sha256_are_told_apart_by_their_length(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(CONTENT)

    check(path, Archive("a.bin", SHA256))
    check(path, Archive("a.bin", hashlib.md5(CONTENT).hexdigest()))
    with pytest.raises(DataError, match=r"checksum must be 0+ \(got"):
        check(path, Archive("a.bin", "0" * 64))


def tarred(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            member.size = 3 if member.isfile() else 0
            tar.addfile(member, io.BytesIO(b"abc") if member.isfile() else None)
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def zipped(path: Path, name: str, mode: int = stat.S_IFREG) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, "abc")
    return path


def test_files_and_folders_are_unpacked(tmp_path: Path) -> None:
    tar = tarred(tmp_path / "a.tar.gz", member("d", tarfile.DIRTYPE), member("d/x"))
    archive = zipped(tmp_path / "a.zip", "e/y")

    unpack(tar, tmp_path / "out")
    unpack(archive, tmp_path / "out")

    assert (tmp_path / "out/d/x").read_text() == (tmp_path / "out/e/y").read_text() == "abc"


@pytest.mark.parametrize(
    "make",
    [
        lambda path: tarred(path, member("../x")),
        lambda path: tarred(path, member("/x")),
        lambda path: tarred(path, member("d/../../x")),
        lambda path: tarred(path, member("x", tarfile.SYMTYPE, "/etc/passwd")),
        lambda path: tarred(path, member("y"), member("x", tarfile.LNKTYPE, "y")),
        lambda path: tarred(path, member("x", tarfile.CHRTYPE)),
        lambda path: zipped(path, "../x"),
        lambda path: zipped(path, "..\\x"),
        lambda path: zipped(path, "/x"),
        lambda path: zipped(path, "x", stat.S_IFLNK),
    ],
    ids=["tar ..", "tar /", "tar d/../..", "tar symlink", "tar hard link", "tar device",
         "zip ..", "zip backslash", "zip /", "zip symlink"],
)  # fmt: skip
def test_what_leads_elsewhere_is_refused(make: Callable[[Path], Path], tmp_path: Path) -> None:
    archive = make(tmp_path / "archive")

    with pytest.raises(DataError, match=r"is refused: '.*x'") as caught:
        unpack(archive, tmp_path / "out")

    assert str(archive) in str(caught.value)
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "out" / "x").exists()


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_an_archive_that_would_fill_the_disk_is_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "SMALL", 1 << 20)
    path, zeros = tmp_path / f"bomb.{kind}", b"\0" * (4 << 20)
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
            opened.writestr("zeros", zeros)
    else:
        with tarfile.open(path, "w:gz") as tar:
            info = tarfile.TarInfo("zeros")
            info.size = len(zeros)
            tar.addfile(info, io.BytesIO(zeros))

    with pytest.raises(DataError, match="is refused: it has over"):
        unpack(path, tmp_path / "out")

    assert not (tmp_path / "out/zeros").exists()


def test_an_archive_of_too_many_members_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MOST_MEMBERS", 3)
    path = tarred(tmp_path / "archive", *(member(f"{n}") for n in range(4)))

    with pytest.raises(DataError, match="it has over 3 members"):
        unpack(path, tmp_path / "out")


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_truncated_archive_is_named(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "archive"
    make = {"tar": lambda: tarred(path, member("x")), "zip": lambda: zipped(path, "x")}
    make[kind]()
    path.write_bytes(path.read_bytes()[:-30])

    with pytest.raises(DataError, match="is damaged") as caught:
        unpack(path, tmp_path / "out")

    assert str(path) in str(caught.value)
