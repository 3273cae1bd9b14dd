"""Downloads from a server on this machine that cuts, stalls, lies and refuses."""
import hashlib
import os
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from asymmlib.data import download as module
from asymmlib.data.download import download

DATA = os.urandom(700_000)
PIECE = module.CHUNK_BYTES
MD5 = hashlib.md5(DATA).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves DATA; `script` holds one behaviour per request, the last one stays."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.ranges, self.resumes = ["whole"], [], True
        self.url = f"http://127.0.0.1:{self.server_port}/data.zip"

    def handle_error(self, request, client_address):
        """A client that hangs up early is part of these tests."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        server, asked = self.server, self.headers.get("Range")
        server.ranges.append(asked)
        act = server.script.pop(0) if len(server.script) > 1 else server.script[0]
        if self.path == "/page":
            return self.answer(200, b"<html>please log in</html>", {"Content-Type": "text/html; charset=utf-8"})
        if isinstance(act, int):
            return self.answer(act, b"sorry")
        if act == "page":
            return self.answer(302, b"", {"Location": "/page"})
        self.send_data(act, asked if server.resumes else None)

    def send_data(self, act, asked):
        data = bytes(len(DATA)) if act == "wrong bytes" else DATA
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked else 0
        if start >= len(data):
            return self.answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
        headers = {"Content-Type": "application/zip"}
        if asked:
            headers["Content-Range"] = f"bytes {start + (act == 'wrong range')}-{len(data) - 1}/{len(data)}"
        body = data[start:]
        declared = len(body) + (5 if act == "wrong length" else 0)
        if isinstance(act, tuple):  # cut after so many bytes
            body = body[:act[1]]
        self.answer(206 if asked else 200, body[:1000] if act == "stall" else body, headers, declared)
        if act == "stall":
            self.wfile.flush()
            self.server.stalled.wait(5)
        self.close_connection = True

    def answer(self, status, body, headers=(), length=None):
        self.send_response(status)
        headers = {"Content-Length": str(len(body) if length is None else length), **dict(headers)}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(module, "PAUSE_S", 0)
    with Server() as running:
        running.stalled = threading.Event()
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.stalled.set()
        running.shutdown()
        thread.join()


def visible(folder):
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def test_a_whole_download_and_no_second_one(server, tmp_path, capsys):
    path = tmp_path / "downloads" / "data.zip"
    assert download(server.url, path, MD5) == path
    assert path.read_bytes() == DATA
    assert "100%" in capsys.readouterr().err  # the bar
    assert download(server.url, path, MD5, progress=False) == path
    assert server.ranges == [None]
    assert visible(path.parent) == ["data.zip"]
    assert capsys.readouterr().err == ""


def test_a_wrong_file_in_its_place_is_replaced(server, tmp_path):
    (tmp_path / "data.zip").write_bytes(b"old")
    download(server.url, tmp_path / "data.zip", MD5, progress=False)
    assert (tmp_path / "data.zip").read_bytes() == DATA


def test_a_cut_connection_is_taken_up_where_it_stopped(server, tmp_path):
    server.script = [("cut", 3 * PIECE), ("cut", 0), 503, ("cut", PIECE + 10), ("cut", 0), 500, "whole"]
    download(server.url, tmp_path / "data.zip", MD5, progress=False)
    assert (tmp_path / "data.zip").read_bytes() == DATA
    assert server.ranges == [None] + [f"bytes={3 * PIECE}-"] * 3 + [f"bytes={4 * PIECE}-"] * 3


def test_a_later_call_goes_on_from_what_is_kept(server, tmp_path):
    server.script = [("cut", 3 * PIECE), ("cut", 0)]
    with pytest.raises(ConnectionError, match="What has arrived is kept: the same call goes on from .*data.zip.part"):
        download(server.url, tmp_path / "data.zip", MD5, progress=False)
    assert visible(tmp_path) == ["data.zip.part"]
    server.script, server.ranges = ["whole"], []
    download(server.url, tmp_path / "data.zip", MD5, progress=False)
    assert server.ranges == [f"bytes={3 * PIECE}-"]
    assert (tmp_path / "data.zip").read_bytes() == DATA
    assert visible(tmp_path) == ["data.zip"]


def test_a_server_that_cannot_resume_sends_all_again(server, tmp_path):
    server.resumes = False
    (tmp_path / "data.zip.part").write_bytes(DATA[:1000])
    download(server.url, tmp_path / "data.zip", MD5, progress=False)
    assert (tmp_path / "data.zip").read_bytes() == DATA


def test_a_complete_part_is_only_renamed(server, tmp_path):
    (tmp_path / "data.zip.part").write_bytes(DATA)
    download(server.url, tmp_path / "data.zip", MD5, progress=False)
    assert (tmp_path / "data.zip").read_bytes() == DATA


def test_a_part_longer_than_the_file_is_dropped(server, tmp_path):
    (tmp_path / "data.zip.part").write_bytes(DATA + b"more")
    download(server.url, tmp_path / "data.zip", MD5, progress=False)
    assert (tmp_path / "data.zip").read_bytes() == DATA


@pytest.mark.parametrize("bad", ["bytes", "part"])
def test_wrong_bytes_are_deleted_and_said(server, tmp_path, bad):
    if bad == "bytes":
        server.script = ["wrong bytes"]
    else:
        (tmp_path / "data.zip.part").write_bytes(b"something else")
    with pytest.raises(ValueError, match=f"has MD5 [0-9a-f]{{32}}, the official file {MD5}; it was deleted"):
        download(server.url, tmp_path / "data.zip", MD5, progress=False)
    assert visible(tmp_path) == []


@pytest.mark.parametrize("act, reason, requests", [
    (404, "answered 404 Not Found", 1), (403, "answered 403 Forbidden", 1), (500, "answered 500", module.TRIES),
    (429, "answered 429", module.TRIES), ("page", "/page is a web page, not the file", None),
])
def test_a_refusal_says_how_to_get_the_file_by_hand(server, tmp_path, act, reason, requests):
    server.script = [act]
    with pytest.raises(ConnectionError, match=f"cannot download .*{reason}.* on another machine") as error:
        download(server.url, tmp_path / "data.zip", MD5, progress=False)
    assert server.url in str(error.value) and str(tmp_path / "data.zip") in str(error.value) and MD5 in str(error.value)
    assert "is kept" not in str(error.value)
    assert visible(tmp_path) == []
    if requests:
        assert len(server.ranges) == requests


def test_a_wrong_length(server, tmp_path):
    server.script = ["wrong length"]
    with pytest.raises(ConnectionError, match="cannot download"):
        download(server.url, tmp_path / "data.zip", MD5, progress=False)
    assert not (tmp_path / "data.zip").exists()


def test_a_wrong_range(server, tmp_path):
    (tmp_path / "data.zip.part").write_bytes(DATA[:1000])
    server.script = ["wrong range"]
    with pytest.raises(ConnectionError, match="another part of the file than was asked for"):
        download(server.url, tmp_path / "data.zip", MD5, progress=False)
    assert (tmp_path / "data.zip.part").read_bytes() == DATA[:1000]


def test_a_stall_ends_and_is_taken_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT_S", (5, 0.3))
    server.script = ["stall", "whole"]
    download(server.url, tmp_path / "data.zip", MD5, progress=False)
    assert (tmp_path / "data.zip").read_bytes() == DATA


def test_a_limit_on_size(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    with pytest.raises(ConnectionError, match="more than 1,000 bytes"):
        download(server.url, tmp_path / "data.zip", MD5, progress=False)


def test_no_network(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PAUSE_S", 0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/data.zip"
        with pytest.raises(ConnectionError, match=f"cannot download {url} .* on another machine and put it at"):
            download(url, tmp_path / "data.zip", MD5, progress=False)


@pytest.mark.parametrize("call", ["open", "replace"])
def test_no_right_to_write(server, tmp_path, monkeypatch, call):
    """Simulated, as root may write anywhere."""
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(*((module, "open") if call == "open" else (os, "replace")), refuse, raising=False)
        with pytest.raises(PermissionError, match="cannot write in .*Permission denied.*ASYMMLIB_HOME"):
            download(server.url, tmp_path / "data.zip", MD5, progress=False)
    assert not (tmp_path / "data.zip").exists()
