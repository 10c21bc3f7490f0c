"""Applies the layers of a container image to a directory, the lowest layer first.

The OCI image specification defines the format in image-layout.md and layer.md
(https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md). Debian's umoci cannot replace
this module: it does not read layers compressed by zstd.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from particle_agent.errors import EnvironmentFailed, StageError
from particle_agent.target.inside import resolve

CHUNK = 1 << 18
# The buffer of tarfile in bytes. It is small, because tarfile copies its rest at each header.
BLOCKS = 1 << 14
WHITEOUT, OPAQUE, AUFS = ".wh.", ".wh..wh..opq", ".wh..wh."
XATTR = "SCHILY.xattr."
# The bytes of a header with a long name or with attributes, which tarfile reads into memory.
HEADER_LIMIT = 1 << 20
# The bytes after the end of an archive. tar pads archives to its block size.
PADDING_LIMIT = 64 << 20
_LONG = {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE}
_LONG |= {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}


class _Member(tarfile.TarInfo):
    """A member that rejects a damaged header, which tarfile would take for the archive's end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        try:
            member = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            # A header of zeros, or no header at all, is the regular end.
            if not any(buf) or not buf:
                raise
            raise StageError(f"a layer of the image has a damaged tar header: {error}") from error
        if member.type in _LONG and member.size > HEADER_LIMIT:
            raise StageError(f"a layer of the image has a tar header of {member.size} bytes")
        return member


class Rest:
    """A stream preceded by bytes that were already read from it."""

    def __init__(self, before: bytes, stream: IO[bytes]) -> None:
        self._before = before
        self._stream = stream

    def read(self, size: int) -> bytes:
        if not self._before:
            return self._stream.read(size)
        taken, self._before = self._before[:size], self._before[size:]
        return taken


def apply(
    layer: IO[bytes],
    root: Path,
    directories: Iterable[Path] = (),
    others: Iterable[Path] = (),
) -> None:
    """Applies a layer, an uncompressed tar stream, to the tree in `root`. Reads the whole stream.

    Names and links are resolved with `root` as the root directory. `directories` and `others` are
    the paths that were already made from this layer. Only root sets owners. Raises StageError when
    the stream is no layer, and EnvironmentFailed when the disk is full.
    """
    head = layer.read(1)
    # Some tools write an empty layer as no bytes at all.
    if not head:
        return
    layer = cast(IO[bytes], Rest(head, layer))
    try:
        with tarfile.open(
            fileobj=layer,
            mode="r|",
            bufsize=BLOCKS,
            tarinfo=_Member,
            encoding="utf-8",
            errors="surrogateescape",
        ) as archive:
            _Layer(archive, root, directories, others).apply()
        rest = 0
        while chunk := layer.read(CHUNK):
            rest += len(chunk)
            if rest > PADDING_LIMIT:
                raise StageError("a layer of the image continues after the end of its tar archive")
    except (tarfile.TarError, EOFError, ValueError, IndexError, OverflowError) as error:
        raise StageError(f"a layer of the image is no complete tar archive: {error}") from error


class _Layer:
    """One layer that is being applied to `root`.

    All paths in its attributes are absolute and resolved.
    """

    def __init__(
        self,
        archive: tarfile.TarFile,
        root: Path,
        directories: Iterable[Path],
        others: Iterable[Path],
    ) -> None:
        self._archive = archive
        self._root = root
        self._owned = os.geteuid() == 0
        self._parents: dict[str, Path] = {}
        # The times of directories in nanoseconds, which are set last.
        self._times = {path: path.stat().st_mtime_ns for path in directories}
        # The paths from this layer. Whiteouts spare them, wherever in the archive they stand.
        self._made = {*self._times, *others}
        # Directories with nothing from lower layers, and so for the rest of this layer.
        self._cleared: set[Path] = set()

    def apply(self) -> None:
        while (member := self._archive.next()) is not None:
            # tarfile would keep all members in memory.
            self._archive.members.clear()  # type: ignore[attr-defined]
            with _explained(member):
                self._add(member)
        for path, time in self._times.items():
            os.utime(path, ns=(time, time))

    def _add(self, member: tarfile.TarInfo) -> None:
        parts = _parts(member, member.name)
        if not parts:
            if not member.isdir():
                raise _refused(member, "the root is a directory")
            self._describe(self._root, member)
            return
        *above, name = parts
        if any(part.startswith(WHITEOUT) for part in above):
            raise _refused(member, f"'{WHITEOUT}' at the start of a name is reserved")
        if name.startswith(WHITEOUT):
            self._white_out(member, above, name)
        else:
            self._place(member, self._parent(above, make=True) / name)

    def _parent(self, above: list[str], *, make: bool) -> Path:
        key = "/".join(above)
        found = self._parents.get(key)
        if found is None:
            found = resolve(self._root, key)
            if make:
                self._make_room(found)
                found.mkdir(parents=True, exist_ok=True)
            if found.is_dir():
                self._parents[key] = found
        return found

    def _make_room(self, directory: Path) -> None:
        """Removes a file of a lower layer in the place of a directory or of one above it."""
        for path in (directory, *directory.parents):
            if path == self._root:
                return
            if path.exists() and not path.is_dir() and path not in self._made:
                self._unlink(path)
                return

    def _place(self, member: tarfile.TarInfo, path: Path) -> None:
        source = path
        if member.islnk():
            *above, name = _parts(member, member.linkname) or [""]
            source = self._parent(above, make=False) / name
            links = source.is_symlink() or (source.exists() and not source.is_dir())
            if source == path or not links:
                raise _refused(member, f"there is no '{member.linkname[:200]}' to link to")
        elif member.size < 0:
            raise _refused(member, "its size is negative")
        elif not (member.isreg() or member.isdir() or member.issym() or member.isdev()):
            raise _refused(member, f"its type {member.type!r} is unknown")
        if not self._replaces_nothing(member, path):
            self._remove(path)
        if member.isdir():
            path.mkdir(0o700, exist_ok=True)
        elif member.issym():
            path.symlink_to(member.linkname)
        elif member.islnk():
            os.link(source, path, follow_symlinks=False)
        elif member.isdev():
            _make_node(member, path)
        else:
            self._write(member, path)
        self._made.add(path)
        if not member.islnk():
            self._describe(path, member)

    def _replaces_nothing(self, member: tarfile.TarInfo, path: Path) -> bool:
        try:
            there = path.lstat()
        except FileNotFoundError:
            return True
        return member.isdir() and stat.S_ISDIR(there.st_mode)

    def _write(self, member: tarfile.TarInfo, path: Path) -> None:
        if member.size > CHUNK:
            # Fail before writing: filling the disk would take long.
            disk = os.statvfs(self._root)
            if member.size > disk.f_bavail * disk.f_frsize:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o600)
        try:
            for chunk in self._content(member):
                while chunk:
                    chunk = chunk[os.write(descriptor, chunk) :]
        finally:
            os.close(descriptor)

    def _content(self, member: tarfile.TarInfo) -> Iterator[bytes]:
        if member.issparse():
            content = self._archive.extractfile(member)
            assert content is not None
            while chunk := content.read(CHUNK):
                yield chunk
            return
        # Read the underlying stream, which is at the content: extractfile() takes longer than all
        # other work.
        stream = self._archive.fileobj
        assert stream is not None
        left = member.size
        while left:
            chunk = stream.read(min(left, CHUNK))
            if not chunk:
                raise tarfile.ReadError("unexpected end of data")
            left -= len(chunk)
            yield chunk

    def _describe(self, path: Path, member: tarfile.TarInfo) -> None:
        """Sets owner, mode, extended attributes and times. In this order none undoes another."""
        if self._owned:
            os.chown(path, member.uid, member.gid, follow_symlinks=False)
        if not member.issym():
            path.chmod(member.mode & 0o7777)
        for key, value in member.pax_headers.items():
            if key.startswith(XATTR):
                _set_attribute(path, key.removeprefix(XATTR), value)
        time = int(member.mtime * 1_000_000_000)
        os.utime(path, ns=(time, time), follow_symlinks=False)
        if member.isdir():
            # Later members in the directory change its time.
            self._times[path] = time

    # Removing

    def _remove(self, path: Path) -> None:
        """Removes `path`, from whatever layer it is, so that a member can replace it."""
        if path.is_dir() and not path.is_symlink():
            self._forget(path)
            for above, directories, others in os.walk(path):
                for name in (*directories, *others):
                    self._forget(Path(above, name))
            shutil.rmtree(path)
            self._parents.clear()
        else:
            self._unlink(path)

    def _forget(self, path: Path) -> None:
        self._times.pop(path, None)
        self._made.discard(path)

    def _white_out(self, member: tarfile.TarInfo, above: list[str], name: str) -> None:
        parent = self._parent(above, make=False)
        hidden = name.removeprefix(WHITEOUT)
        if name == OPAQUE:
            self._clear(parent)
        elif hidden in ("", ".", ".."):
            raise _refused(member, "the whiteout names no file")
        elif not name.startswith(AUFS):
            self._hide(parent / hidden)

    def _clear(self, directory: Path) -> None:
        """Removes the content that lower layers have in a directory."""
        if directory in self._cleared or not directory.is_dir() or directory.is_symlink():
            return
        self._cleared.add(directory)
        for name in os.listdir(directory):
            self._hide(directory / name)

    def _hide(self, path: Path) -> None:
        """Removes the file or directory that lower layers have at `path`."""
        try:
            there = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return
        if stat.S_ISDIR(there.st_mode):
            self._clear(path)
            if path in self._made:
                return
            try:
                path.rmdir()
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise
            else:
                self._parents.clear()
        elif path not in self._made:
            self._unlink(path)

    def _unlink(self, path: Path) -> None:
        if path.is_symlink():
            # A cached parent may lead through this link.
            self._parents.clear()
        path.unlink()


@contextmanager
def _explained(member: tarfile.TarInfo) -> Iterator[None]:
    """Converts errors to a StageError with the name of the member."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise EnvironmentFailed(
                "the image does not fit on the scratch disk",
                hint="Give the scratch disk more room with --scratch-size.",
            ) from error
        raise _refused(member, str(error.strerror)) from error
    except (ValueError, OverflowError, RecursionError) as error:
        raise _refused(member, str(error)) from error


def _refused(member: tarfile.TarInfo, why: str) -> StageError:
    return StageError(f"'{member.name[:200]}' in a layer of the image cannot be unpacked: {why}")


def _parts(member: tarfile.TarInfo, name: str) -> list[str]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise _refused(member, f"'{name[:200]}' leads out of the image")
    return parts


def _make_node(member: tarfile.TarInfo, path: Path) -> None:
    if member.isfifo():
        os.mkfifo(path, 0o600)
    else:
        kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
        os.mknod(path, kind | 0o600, os.makedev(member.devmajor, member.devminor))


def _set_attribute(path: Path, name: str, value: str) -> None:
    # Encode the value as tarfile has decoded it.
    data = value.encode("utf-8", "surrogateescape")
    try:
        os.setxattr(path, name, data, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.E2BIG, errno.ERANGE) and _has_room(path):
            # ext4 keeps the attributes of a file in its inode and one block.
            raise ValueError(f"its attribute {name} of {len(data)} bytes does not fit") from error
        # Skip attributes of other kinds of file systems.
        if error.errno != errno.ENOTSUP:
            raise


def _has_room(path: Path) -> bool:
    disk = os.statvfs(path.parent)
    return disk.f_bavail * disk.f_frsize > CHUNK
