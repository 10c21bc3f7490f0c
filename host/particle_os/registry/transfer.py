"""The transfer of one blob, which continues after a broken connection where it has stopped.

Sources: distribution-spec, "Pushing a blob in chunks" and "Pulling blobs"; RFC 9110, section 14.
"""

from __future__ import annotations

import errno
import hashlib
import re
import time
from collections.abc import Callable
from typing import IO

import urllib3

from particle_os.registry import connection
from particle_os.registry.connection import RegistryLink, Temporary, blocks, finish

RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,18})")
CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/[0-9*]{1,18}")
# Such a blob goes in one request.
SMALL = 1 << 18
OCTETS = {"Content-Type": "application/octet-stream"}


# It gets the bytes that have been transferred, and the size of the blob.
TransferWatch = Callable[[int, int], None]


def percent(word: str, line: Callable[[str], None]) -> TransferWatch:
    """Announces each percent of a transfer."""
    last = -1

    def watch(done: int, size: int) -> None:
        nonlocal last
        if size and last != (now := 100 * done // size):
            last = now
            line(f"{word} {now} % of {size} bytes")

    return watch


class BlobDownload:
    """A blob on its way into a file, from its current position on; nothing is read back."""

    def __init__(
        self, link: RegistryLink, digest: str, size: int, file: IO[bytes], watch: TransferWatch
    ) -> None:
        self._link, self._digest, self._size, self._file = link, digest, size, file
        self._watch = watch
        self._begin = file.tell()
        self._sum = hashlib.sha256()
        self.done = 0

    def run(self) -> None:
        """Fetches the rest of the blob. Raises OSError for a blob of another size or digest."""
        headers = {"Range": f"bytes={self.done}-"} if self.done else {}
        answer = self._link.ask("GET", f"blobs/{self._digest}", headers=headers)
        if answer.status == 404:
            finish(answer)
            raise FileNotFoundError(errno.ENOENT, "the registry lacks a blob")
        if answer.status == 416:
            self._begin_again()
            raise Temporary(errno.EIO, "the registry has no rest of a blob")
        if self.done and not self._continues(answer):
            self._begin_again()
        for block in blocks(answer, self._size - self.done):
            self._sum.update(block)
            self._file.write(block)
            self.done += len(block)
            self._watch(self.done, self._size)
        if self.done < self._size:
            raise Temporary(errno.EIO, "the registry ends its answer early")
        if f"sha256:{self._sum.hexdigest()}" != self._digest:
            raise OSError(errno.EBADMSG, "a blob has another digest")

    def _continues(self, answer: urllib3.BaseHTTPResponse) -> bool:
        """Whether an answer begins where the last one has ended; the other one is the whole."""
        found = CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        return answer.status == 206 and found is not None and int(found[1]) == self.done

    def _begin_again(self) -> None:
        self._file.seek(self._begin)
        self._file.truncate()
        self._sum, self.done = hashlib.sha256(), 0


class BlobUpload:
    """The content of a file, from its current position on, on its way to a registry."""

    def __init__(
        self, link: RegistryLink, digest: str, size: int, file: IO[bytes], watch: TransferWatch
    ) -> None:
        self._link, self._digest, self._size, self._file = link, digest, size, file
        self._watch = watch
        self._begin = file.tell()
        self._place: str | None = None
        self.done = 0

    def run(self) -> None:
        """Sends the rest of the blob, and completes the upload. Raises OSError."""
        place, body = self._continued() or self._started(), b""
        if self._size <= SMALL:
            self._file.seek(self._begin)
            body = self._file.read(self._size)
        elif self.done < self._size:
            place = self._send(place)
        joint = "&" if "?" in place else "?"
        url = f"{place}{joint}digest={self._digest}"
        answer = self._link.ask("PUT", url, headers=OCTETS, body=body)
        finish(answer)
        if answer.status not in (201, 204):
            raise self._lost("the registry does not complete an upload")

    def _started(self) -> str:
        self.done = 0
        answer = self._link.ask("POST", "blobs/uploads/")
        finish(answer)
        if answer.status != 202:
            raise OSError(errno.EIO, f"the registry answers with status {answer.status}")
        self._place = self._link.location(answer, "")
        return self._place

    def _continued(self) -> str | None:
        """The place of an upload that was interrupted; None when it has to begin again."""
        if self._place is None:
            return None
        place, self._place = self._place, None
        try:
            answer = self._link.ask("GET", place)
        except Temporary:
            raise
        except OSError:
            return None
        finish(answer)
        found = RANGE.fullmatch(answer.headers.get("Range", ""))
        # 0-0 is the range of one byte, and that of none.
        if answer.status != 204 or found is None or not 0 < int(found[1]) < self._size:
            return None
        self.done = int(found[1]) + 1
        self._place = self._link.location(answer, place)
        return self._place

    def _send(self, place: str) -> str:
        """Sends all bytes that the registry does not have; returns the place for the end."""
        headers = {**OCTETS, "Content-Length": str(self._size - self.done)}
        if self.done:
            headers["Content-Range"] = f"{self.done}-{self._size - 1}"
        self._file.seek(self._begin + self.done)
        body = _Paced(self._file, self._size - self.done, self._tell)
        answer = self._link.ask("PATCH", place, headers=headers, body=body)  # type: ignore[arg-type]
        finish(answer)
        if answer.status != 202:
            raise self._lost("the registry has lost an upload")
        self.done = self._size
        self._place = self._link.location(answer, place)
        return self._place

    def _tell(self, left: int) -> None:
        self._watch(self._size - left, self._size)

    def _lost(self, why: str) -> Temporary:
        self._place = None
        return Temporary(errno.EIO, why)


class _Paced:
    """The next bytes of a file. Reading them raises OSError when the reader is too slow."""

    def __init__(self, file: IO[bytes], size: int, tell: Callable[[int], None]) -> None:
        self._file, self._left, self._tell = file, size, tell
        self._next_mark(size)

    def _next_mark(self, left: int) -> None:
        self._mark = left - connection.BLOCK
        self._due = time.monotonic() + connection.BLOCK_SECONDS

    def read(self, size: int = -1) -> bytes:
        if time.monotonic() > self._due:
            raise OSError(errno.ETIMEDOUT, "the registry takes the content too slowly")
        wanted = self._left if size < 0 else min(size, self._left)
        data = self._file.read(wanted)
        self._left -= len(data)
        if self._left <= self._mark:
            self._next_mark(self._left)
            self._tell(self._left)
        return data
