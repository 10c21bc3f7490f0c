"""Files to publish, and the check of what is published."""

import hashlib
import subprocess

from particle_os.system.publication import (
    SUMS,
    Change,
    publish,
)

STAGING = ".staging"


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def stage(directory, texts, staging=STAGING):
    """Makes a staging directory with files of these texts."""
    place = directory / staging
    for name, text in texts.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    return place


def put(directory, texts, staging=STAGING, **change):
    """Publishes files with these texts; the names with a '/' are in folders."""
    place = stage(directory, texts, staging)
    folders = sorted({name.partition("/")[0] for name in texts if "/" in name})
    files = [name for name in texts if "/" not in name]
    sums = {name: sha256(texts[name]) for name in files if not name.endswith(".log")}
    publish(place, directory, Change(files, folders, sums=sums, **change))


def content(directory):
    """The text of each file that is no part of a transaction or a staging directory."""
    paths = [path for path in directory.rglob("*") if path.is_file()]
    names = {path: str(path.relative_to(directory)) for path in paths}
    return {name: path.read_text() for path, name in names.items() if name[0] != "."}


def wrong_sums(directory):
    """The names whose content differs from their line in SHA256SUMS."""
    if not (directory / SUMS).exists():
        return []
    lines = [line.split("  ") for line in (directory / SUMS).read_text().splitlines()]
    pairs = [line for line in lines if not line[0].startswith("#")]
    return [name for digest, name in pairs if sha256((directory / name).read_text()) != digest]


def check_sums(directory):
    argv = ["sha256sum", "--check", "--strict", "--quiet", SUMS]
    subprocess.run(argv, cwd=directory, check=True)
