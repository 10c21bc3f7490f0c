"""Helpers that make and apply layers of container images."""

import io
import os
import stat
import tarfile

from hypothesis import strategies as st
from particle_agent.unpack import layers

NAMES = st.lists(
    st.sampled_from(["a", "b", "..", ".", "etc", "link", ".wh.a", ".wh.link", ".wh..wh..opq"]),
    min_size=1,
    max_size=4,
).map("/".join)
KINDS = [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE]
TARGETS = NAMES | NAMES.map(lambda name: f"/{name}") | st.just("../../outside")
# The function that applies the lowest layer. The fixture both_ways replaces it.
lowest_layer = layers.apply


def apply(layer, root):
    """Applies a layer like the agent does, which treats a layer on an empty tree as the lowest."""
    (layers.apply if any(root.iterdir()) else lowest_layer)(layer, root)


def member(name, content=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    info.mode = 0o755 if fields.get("type") == tarfile.DIRTYPE else 0o644
    info.uid, info.gid = os.getuid(), os.getgid()
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def directory(name, **fields):
    return member(name, type=tarfile.DIRTYPE, **fields)


def symlink(name, to):
    return member(name, type=tarfile.SYMTYPE, linkname=to)


def hard_link(name, to):
    return member(name, type=tarfile.LNKTYPE, linkname=to)


def tar(*members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


BELOW = [
    directory("etc"),
    member("etc/a", b"a"),
    member("etc/b", b"b"),
    directory("etc/sub"),
    member("etc/sub/x", b"x"),
    directory("etc/sub/deep"),
    member("etc/sub/deep/y", b"y"),
    directory("usr"),
    directory("usr/bin"),
    symlink("bin", "usr/bin"),
]


def apply_all(place, *layers):
    """The tree after all layers: names below the root, with contents, links or kinds."""
    for members in layers:
        apply(io.BytesIO(tar(*members)), place / "root")
    return tree(place / "root")


def tree(root):
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file():
            found[name] = path.read_text()
        else:
            found[name] = "directory" if path.is_dir() else stat.filemode(path.stat().st_mode)[0]
    return found


def assert_nothing_outside(place):
    assert sorted(p.name for p in place.iterdir()) == ["outside", "root"]
    assert [p.name for p in (place / "outside").iterdir()] == ["file"]
    assert (place / "outside/file").read_text() == "untouched"
    assert (place / "outside/file").stat().st_mtime == 1
    assert (place / "outside/file").stat().st_nlink == 1
