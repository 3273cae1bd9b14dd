"""Fetch one large file: with a progress bar, resumed after a break, verified before it gets its name."""
import time
from pathlib import Path

import requests
from tqdm import tqdm

from asymmlib.base.files import checksum, has_file, locked, publish, writing_in

__all__ = ["download"]

TIMEOUT_S = (10, 60)  # to connect, and between two pieces
PAUSE_S = 1  # before the first new try; doubled before each further one
TRIES = 3  # tries in a row that bring nothing new
MAX_BYTES = 8 * 2**30
CHUNK_BYTES = 2**16  # at most so much is lost by a break


class _Failed(Exception):
    """The transfer failed; another try may bring the rest."""


class _Refused(_Failed):
    """The server's answer is final: another try would get the same."""


def download(url: str, path: Path | str, md5: str, progress: bool = True) -> Path:
    """Fetch `url` to `path`, which appears only when its MD5 is right; a file that is there and right is kept.

    Data arrive in `<path>.part`. After a break the same call, now or in another process, goes on where it stopped; a
    second process waits for the first. progress: show a bar.
    Returns `path`. Raises `ConnectionError` when the server cannot be reached, refuses, or answers with a web page: the
    message tells how to get the file by hand; `ValueError` for a wrong checksum; `OSError` where it cannot write.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    with locked(path):
        if has_file(path) and checksum(path, "md5") == md5:
            return path
        try:
            _fetch_with_patience(url, part, progress)
        except _Failed as error:
            kept = f" What has arrived is kept: the same call goes on from {part}." if part.exists() else ""
            raise ConnectionError(f"cannot download {url} ({error}).{kept} Without a network, fetch the file on "
                                  f"another machine and put it at {path} (MD5 {md5}).") from error
        _verify(url, part, md5)
        publish(part, path)
    return path


def _fetch_with_patience(url, part, progress):
    """Try until the file is whole; give up after `TRIES` tries in a row that brought nothing."""
    idle = 0
    while True:
        before = _size(part)
        try:
            return _fetch(url, part, progress)
        except _Refused:
            raise
        except (_Failed, requests.RequestException) as error:
            idle = 0 if _size(part) > before else idle + 1
            if idle == TRIES:
                raise _Failed(error) from error
            time.sleep(PAUSE_S * 2**idle / 2)


def _fetch(url, part, progress):
    """One request: append what `part` lacks, or start anew where the server does not resume."""
    start = _size(part)
    headers = {"Accept-Encoding": "identity"}  # lengths and ranges then count the file's own bytes
    if start:
        headers["Range"] = f"bytes={start}-"
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as answer:
        if answer.status_code == 416:  # nothing after `start`: the part is whole, or longer than the file
            if answer.headers.get("Content-Range") == f"bytes */{start}":
                return
            part.unlink()
            raise _Failed(f"{part} did not fit the server's file")
        _check_answer(answer)
        if answer.status_code == 200:
            start = 0  # the server sends the whole file again
        elif not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise _Failed("the server sent another part of the file than was asked for")
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length and length.isdigit() else None
        _save(answer, part, start, total, progress)
    if total is not None and _size(part) != total:
        raise _Failed(f"the connection ended after {_size(part):,} of {total:,} bytes")


def _check_answer(answer):
    if answer.status_code >= 500 or answer.status_code == 429:
        raise _Failed(f"the server answered {answer.status_code} {answer.reason}")
    if answer.status_code not in (200, 206):
        raise _Refused(f"the server answered {answer.status_code} {answer.reason}")
    if "html" in answer.headers.get("Content-Type", "").lower():
        raise _Refused(f"{answer.url} is a web page, not the file (a login or a notice in between?)")


def _save(answer, part, start, total, progress):
    bar = tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=part.stem, disable=not progress)
    with writing_in(part.parent):
        file = open(part, "ab" if start else "wb")  # noqa: SIM115 - the errors of the network are not the disk's
    with file, bar:
        for chunk in answer.iter_content(CHUNK_BYTES):
            with writing_in(part.parent):
                file.write(chunk)
            bar.update(len(chunk))
            if file.tell() > MAX_BYTES:
                raise _Refused(f"the server sends more than {MAX_BYTES:,} bytes")


def _verify(url, part, md5):
    found = checksum(part, "md5")
    if found != md5:
        part.unlink()
        raise ValueError(f"{url}: the download has MD5 {found}, the official file {md5}; it was deleted. Run again, or "
                         "get the file by hand.")


def _size(path):
    return path.stat().st_size if has_file(path) else 0
