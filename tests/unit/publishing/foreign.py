"""Images in a small registry that others have pushed."""

import gzip
import io
import json
import tarfile
from functools import partial

from ...registry import sha256 as digest_of

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
TAR = "application/vnd.oci.image.layer.v1.tar"
DISK = b"\x01" * 5000 + bytes(1 << 20) + b"\x02" * 5000


class Foreign:
    """Images that others have pushed."""

    def __init__(self, known):
        self.known = known

    def blob(self, data):
        self.known.blobs[digest_of(data)] = data
        return {"digest": f"sha256:{digest_of(data)}", "size": len(data)}

    def put(self, document, tag="1", kind=MANIFEST):
        content = json.dumps(document).encode() if isinstance(document, dict) else document
        digest = f"sha256:{digest_of(content)}"
        self.known.manifests[tag] = self.known.manifests[digest] = (kind, content)
        return {"mediaType": kind, "digest": digest, "size": len(content)}

    def image(self, *layers, tag="1", kind=f"{TAR}+gzip", **more):
        config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers"}}
        described = {"mediaType": CONFIG, **self.blob(json.dumps(config).encode())}
        listed = [{"mediaType": kind, **self.blob(layer)} for layer in layers]
        document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described,
                    "layers": listed, **more}  # fmt: skip
        return self.put(document, tag)

    def attach(self, subject, kind, data, title="x"):
        config = {"mediaType": "application/vnd.oci.empty.v1+json", **self.blob(b"{}")}
        layer = {"mediaType": "x/y", **self.blob(data)}
        document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config,
                    "artifactType": f"application/vnd.particle-os.{kind}.v1",
                    "layers": [layer], "subject": subject}  # fmt: skip
        return self.put(document, f"attached-{len(self.known.manifests)}")


# Without the time of the test.
GZIP = partial(gzip.compress, mtime=0)


def packed(*members, compress=GZIP):
    """An archive; a member is a name and its content, or a TarInfo."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return compress(file.getvalue())


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def artifact(foreign, data=DISK, kind="raw", title="server.raw", **changes):
    config = {"mediaType": "application/vnd.oci.empty.v1+json", **foreign.blob(b"{}")}
    layer = {"mediaType": f"application/vnd.particle-os.disk.v1.{kind}", **foreign.blob(data),
             "annotations": {"org.opencontainers.image.title": title}}  # fmt: skip
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config,
                "artifactType": "application/vnd.particle-os.disk.v1",
                "layers": [layer], **changes}  # fmt: skip
    return foreign.put(document)
