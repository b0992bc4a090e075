"""get-model against a server that truncates, corrupts and stalls; prepare-imagenet on small archives."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from harness_support import Command
from PIL import Image

from harness.data.download import download
from harness.data.imagenet import prepare
from harness.data.model import check_interface
from harness.errors import BadInputError, RunFailedError
from harness.profiles import RESNET50
from harness.progress import Quiet

CONTENT = np.random.default_rng(2).bytes(300_000)
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
Answer = Callable[[http.server.BaseHTTPRequestHandler, int], None]


class Server:
    """Answers request after request as told, the last answer for ever; keeps the ranges that were asked for."""

    def __init__(self, *answers: Answer) -> None:
        self.ranges: list[str | None] = []
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = self.headers.get("Range")
                server.ranges.append(wanted)
                start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
                with contextlib.suppress(ConnectionError):
                    answers[min(len(server.ranges), len(answers)) - 1](self, start)

            def log_message(self, *_: object) -> None:
                pass

        self.httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.httpd.server_port}/resnet50_v1.onnx"


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Starts servers, and stops them."""
    servers: list[Server] = []

    def start(*answers: Answer) -> Server:
        servers.append(Server(*answers))
        threading.Thread(target=servers[-1].httpd.serve_forever, daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.httpd.shutdown()
        server.httpd.server_close()


def whole(
    handler: http.server.BaseHTTPRequestHandler, start: int, content: bytes = CONTENT, stop: int | None = None
) -> None:
    """From `start` on; `stop`: fewer bytes than promised."""
    if start >= len(content) and start:
        handler.send_error(416)
        return
    handler.send_response(206 if start else 200)
    handler.send_header("Content-Length", str(len(content) - start))
    handler.end_headers()
    handler.wfile.write(content[start:stop])


def truncated(handler: http.server.BaseHTTPRequestHandler, start: int) -> None:
    whole(handler, start, stop=start + 100_000)


def corrupt(handler: http.server.BaseHTTPRequestHandler, start: int) -> None:
    whole(handler, start, CONTENT[:-1] + b"?")


def stalled(handler: http.server.BaseHTTPRequestHandler, start: int) -> None:
    whole(handler, start, stop=start + 50_000)
    handler.wfile.flush()
    time.sleep(1.5)


def without_ranges(handler: http.server.BaseHTTPRequestHandler, _start: int) -> None:
    whole(handler, 0)


def busy(handler: http.server.BaseHTTPRequestHandler, _start: int) -> None:
    handler.send_error(503)


def gone(handler: http.server.BaseHTTPRequestHandler, _start: int) -> None:
    handler.send_error(404)


def fetch(server: Server, target: Path) -> None:
    download(server.url, MD5, target, Quiet(), stall_s=0.5, pause_s=0.01)


GOOD: dict[str, tuple[tuple[Answer, ...], list[str | None]]] = {
    "at once": ((whole,), [None]),
    "truncated twice": ((truncated, truncated, whole), [None, "bytes=100000-", "bytes=200000-"]),
    "stalled": ((stalled, whole), [None, "bytes=50000-"]),
    "a server without ranges": ((truncated, without_ranges), [None, "bytes=100000-"]),
    "busy at first": ((busy, whole), [None, None]),
}


@pytest.mark.parametrize("name", GOOD)
def test_downloads_that_succeed(name: str, serve: Callable[..., Server], tmp_path: Path) -> None:
    answers, ranges = GOOD[name]
    server = serve(*answers)
    target = tmp_path / "models/resnet50_v1.onnx"
    fetch(server, target)
    assert target.read_bytes() == CONTENT
    assert server.ranges == ranges
    assert list(target.parent.iterdir()) == [target]
    fetch(server, target)  # is there
    assert server.ranges == ranges


def test_a_download_goes_on_in_a_later_call(serve: Callable[..., Server], tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    (tmp_path / "model.onnx.part").write_bytes(CONTENT[:200_000])
    server = serve(whole)
    fetch(server, target)
    assert (target.read_bytes() == CONTENT, server.ranges) == (True, ["bytes=200000-"])
    (tmp_path / "model.onnx.part").write_bytes(CONTENT)
    target.unlink()
    fetch(server, target)  # nothing is missing
    assert target.read_bytes() == CONTENT


def test_downloads_that_fail(serve: Callable[..., Server], tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    with pytest.raises(RunFailedError, match=r"has not the md5 .* was removed"):
        fetch(serve(corrupt), target)
    assert not list(tmp_path.iterdir())
    with pytest.raises(BadInputError, match="answers 404"):
        fetch(serve(gone), target)
    with pytest.raises(RunFailedError, match=r"503 .*, 5 times; 0\.0 MB lie in .*the same command goes on"):
        fetch(serve(busy), target)
    assert not target.exists()
    target.write_bytes(b"mine")
    with pytest.raises(BadInputError, match="is another file"):
        fetch(serve(whole), target)
    assert target.read_bytes() == b"mine"


def test_the_model_is_opened_and_refused_if_it_is_another(
    command: Command, model: Path, serve: Callable[..., Server]
) -> None:
    check_interface(model, "resnet50")
    with pytest.raises(BadInputError, match=r"add --profile resnet50|use --profile resnet50"):
        check_interface(model, "mobilenet")
    done = command("get-model", "resnet50", "--url", serve(gone).url, "--quiet")
    assert (done.status, "answers 404" in done.stderr) == (2, True)
    assert command("get-model", "mobilenet").status == 2
    assert all(url.startswith("https://zenodo.org/records/") for url in RESNET50.urls)
    assert len(RESNET50.urls) == len(RESNET50.md5)


COUNT = 6
SYNSETS = ["n03", "n01", "n05", "n02"]  # in the kit's own order: ids 1 to 4
IDS = [2, 1, 4, 3, 2, 1]
RANKS = [0, 2, 1, 3, 0, 2]  # of n01 n03 n02 n05 n01 n03 among the sorted


def jpeg(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), (number, 2 * number, 3 * number)).save(file, "JPEG")
    return file.getvalue()


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


@pytest.fixture
def images_tar(tmp_path: Path) -> Path:
    """As ILSVRC2012_img_val.tar: files without a folder."""
    path = tmp_path / "ILSVRC2012_img_val.tar"
    with tarfile.open(path, "w") as archive:
        for number in range(COUNT, 0, -1):
            add(archive, f"ILSVRC2012_val_{number:08d}.JPEG", jpeg(number))
    return path


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    """As ILSVRC2012_devkit_t12.tar.gz: classes first, then synsets that have children."""
    scipy_io = pytest.importorskip("scipy.io")
    rows = [(number, name, "words", "gloss", 0) for number, name in enumerate(SYNSETS, start=1)]
    rows.append((len(rows) + 1, "n00", "parent", "gloss", len(SYNSETS)))
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    meta = io.BytesIO()
    scipy_io.savemat(meta, {"synsets": np.array(rows, dtype=fields).reshape(-1, 1)})
    path = tmp_path / "ILSVRC2012_devkit_t12.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        truth = "".join(f"{one}\n" for one in IDS)
        add(archive, "ILSVRC2012_devkit_t12/readme.txt", b"hello")
        add(archive, "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", truth.encode())
        add(archive, "ILSVRC2012_devkit_t12/data/meta.mat", meta.getvalue())
    return path


def expected_map() -> str:
    return "".join(f"ILSVRC2012_val_{number:08d}.JPEG {label}\n" for number, label in enumerate(RANKS, start=1))


def test_archives_become_a_dataset(images_tar: Path, devkit: Path, tmp_path: Path) -> None:
    folder = prepare(images_tar, tmp_path / "val", Quiet(), devkit=devkit, val_map=None, count=COUNT)
    assert (folder / "val_map.txt").read_text() == expected_map()
    assert (folder / "ILSVRC2012_val_00000003.JPEG").read_bytes() == jpeg(3)
    assert len(list(folder.iterdir())) == COUNT + 1
    stamp = (folder / "ILSVRC2012_val_00000003.JPEG").stat().st_mtime_ns
    (folder / "ILSVRC2012_val_00000002.JPEG").write_bytes(jpeg(2)[:100])  # as an interruption might leave it
    prepare(images_tar, folder, Quiet(), devkit=devkit, val_map=None, count=COUNT)
    assert (folder / "ILSVRC2012_val_00000002.JPEG").read_bytes() == jpeg(2)
    assert (folder / "ILSVRC2012_val_00000003.JPEG").stat().st_mtime_ns == stamp


def test_a_folder_and_a_map_become_a_dataset_in_place(images_tar: Path, tmp_path: Path) -> None:
    folder = tmp_path / "jpegs"
    with tarfile.open(images_tar) as archive:
        archive.extractall(folder, filter="data")
    lines = expected_map().splitlines()
    (tmp_path / "val.txt").write_text("\n".join(reversed(lines)) + "\n")
    assert prepare(folder, None, Quiet(), devkit=None, val_map=tmp_path / "val.txt", count=COUNT) == folder
    assert (folder / "val_map.txt").read_text() == expected_map()
    other = prepare(folder, tmp_path / "copy", Quiet(), devkit=None, val_map=tmp_path / "val.txt", count=COUNT)
    assert (other / "val_map.txt").read_text() == expected_map()
    (folder / "ILSVRC2012_val_00000004.JPEG").write_bytes(b"<html>")
    with pytest.raises(BadInputError, match=r"00000004.JPEG is no whole JPEG"):
        prepare(folder, None, Quiet(), devkit=None, val_map=tmp_path / "val.txt", count=COUNT)
    (folder / "ILSVRC2012_val_00000004.JPEG").unlink()
    with pytest.raises(BadInputError, match=r"lacks 1 of 6 images, the first is ILSVRC2012_val_00000004.JPEG"):
        prepare(folder, None, Quiet(), devkit=None, val_map=tmp_path / "val.txt", count=COUNT)
    (tmp_path / "val.txt").write_text("ILSVRC2012_val_00000001.JPEG 1000\n")
    with pytest.raises(BadInputError, match=r"val.txt:1: .* is not a file name and a class 0..999"):
        prepare(folder, None, Quiet(), devkit=None, val_map=tmp_path / "val.txt", count=COUNT)


@pytest.mark.parametrize(
    "name", ["../ILSVRC2012_val_00000001.JPEG", "/tmp/ILSVRC2012_val_00000001.JPEG", "link", "hard", "a.txt"]
)
def test_unsafe_archives_are_refused(name: str, devkit: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.tar"
    with tarfile.open(path, "w") as archive:
        if name in ("link", "hard"):
            member = tarfile.TarInfo("ILSVRC2012_val_00000001.JPEG")
            member.type, member.linkname = (tarfile.SYMTYPE if name == "link" else tarfile.LNKTYPE), "/etc/passwd"
            archive.addfile(member)
        else:
            add(archive, name, jpeg(1))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BadInputError, match=r"refused|none of ImageNet's"):
        prepare(path, tmp_path / "val", Quiet(), devkit=devkit, val_map=None, count=COUNT)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_no_devkit(command: Command, images_tar: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.tar.gz"
    broken.write_bytes(b"\x1f\x8b nothing")
    for devkit, reason in ((images_tar, "holds no "), (broken, "is damaged"), (tmp_path / "absent", "no such file")):
        done = command("prepare-imagenet", "--images", images_tar, "--devkit", devkit, "--output", "val", "--quiet")
        assert (done.status, reason in done.stderr) == (2, True), done.stderr
    assert "give one of them" in command("prepare-imagenet", "--images", images_tar, "--output", "val").stderr
    done = command("prepare-imagenet", "--images", images_tar, "--val-map", broken, "--quiet")
    assert (done.status, "--output" in done.stderr or "--val-map" in done.stderr) == (2, True)
