"""Images of containers for the tests."""

import io
import tarfile
from pathlib import Path

from particle_agent.unpack.unpack import unpack_image
from particle_os.base import container, layers
from particle_os.system.workspace import cache_directory


def tar(**files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


LOWER, UPPER = tar(etc__a=b"a", etc__b=b"b"), tar(**{"etc__.wh.a": b"", "etc__c": b"c"})


def describe(reference, relative_to=Path()):
    return container.describe(reference, relative_to, "amd64", cache_directory())


def unpacked(image, place):
    place.mkdir()
    with layers.opened(image, cache_directory()) as stream:
        unpack_image(stream, place)
    return {str(p.relative_to(place)) for p in place.rglob("*") if p.is_file()}
