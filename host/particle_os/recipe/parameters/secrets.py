"""Secrets of stages: read on the host when a build starts, and sent to the VM beside the recipe.

A keyed hash represents each secret in requests and in the keys of checkpoints. A stage runs again
when its secret changes, and a reader of the cache learns nothing about the value.
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from particle_agent.stages import RecipeStage
from particle_agent.stages.base import Secret

from particle_os.documents.document import Mark
from particle_os.documents.words import unlike_a_path
from particle_os.errors import UsageError
from particle_os.recipe.files.inside import outside
from particle_os.system.deadline import Deadline
from particle_os.system.regular_file import open_regular, read_regular
from particle_os.system.secret_forms import LEAST
from particle_os.system.workspace import locked, remove

# Bytes. The gate could not hide a shorter secret without hiding unrelated text.
MOST = 65536
KEY, KEY_BYTES, KEY_SECONDS = "secret-key", 32, 60.0


@dataclass(frozen=True)
class SecretSources:
    """The variables and the files that a recipe may take secrets from.

    The recipe can come from a stranger, and its stages can send away what they read. With
    `directory` None, the files may be anywhere.
    """

    environment: Mapping[str, str]
    variables: Collection[str]
    directory: Path | None


def resolve(
    stages: Sequence[RecipeStage],
    places: Sequence[Mark],
    sources: SecretSources,
    cache: Path,
) -> tuple[tuple[RecipeStage, ...], dict[str, bytes]]:
    """The stages with each secret replaced by its hash, and the values by their hashes.

    `places` are those of the stages. Raises UsageError that names every secret
    without a value.
    """
    values: dict[str, bytes] = {}
    made = []
    failures: list[UsageError] = []
    for stage, place in zip(stages, places, strict=True):
        named = []
        for secret in stage.secrets:
            try:
                value = _value(secret, place.path.parent, sources)
            except UsageError as error:
                error.where = f"{place.path}:{place.line}"
                failures.append(error)
                continue
            digest = hmac.digest(_key(cache), value, "sha256").hex()
            values[digest] = value
            named.append(Secret(name=secret.name, file=digest))
        # The options of a stage may require a secret that has just failed.
        if not failures:
            made.append(replace(stage, secrets=tuple(named)))
    if len(failures) > 1:
        reasons = [f"{error.where}: {error.brief}" for error in failures]
        hint = failures[0].hint
        message = f"{len(failures)} secrets have no value"
        raise UsageError(message, tail=reasons, hint=hint) from failures[0]
    if failures:
        raise failures[0]
    return tuple(made), values


class _Unfit(Exception):
    """A value that is no secret, or a file without one; the text says why."""


def fault_of_file(file: str, relative_to: Path, directory: Path | None) -> tuple[str, bool] | None:
    """The reason why a file holds no secret, and whether it may hold one elsewhere.

    The user who validates a recipe need not have its secrets. The text names neither the file nor
    the secret: both names may be the secret itself. `directory` is that of `SecretSources`.
    """
    try:
        _checked(_content(relative_to / file, directory))
    except _Unfit as unfit:
        return str(unfit), isinstance(unfit.__cause__, FileNotFoundError | PermissionError)
    return None


def _value(secret: Secret, relative_to: Path, sources: SecretSources) -> bytes:
    """The bytes of a secret, without the final newline that editors add."""
    if secret.env is not None:
        source = f"the environment variable {secret.env}"
    else:
        assert secret.file is not None
        source = unlike_a_path(secret.file) or str(relative_to / secret.file)
    try:
        if secret.env is not None:
            return _checked(_variable(secret.env, source, secret, sources))
        return _checked(_content(relative_to / str(secret.file), sources.directory))
    except _Unfit as unfit:
        raise UsageError(f"secret '{secret.name}': {source} {unfit}") from unfit


def _checked(value: bytes) -> bytes:
    value = value.removesuffix(b"\n")
    # Blanks and line breaks around a secret stand everywhere, so they hide nothing.
    if len(value) > MOST or len(value.strip()) < LEAST:
        raise _Unfit(f"holds {len(value.strip())} bytes; a secret needs from {LEAST} to {MOST}")
    return value


def _variable(name: str, source: str, secret: Secret, sources: SecretSources) -> bytes:
    if name not in sources.variables:
        raise UsageError(
            f"secret '{secret.name}': the recipe asks for {source}",
            hint=f"If you trust the recipe, permit it with --allow-env {name}.",
        )
    if (text := sources.environment.get(name)) is None:
        raise UsageError(
            f"secret '{secret.name}': {source} is not set",
            hint=f"Set it for this command: {name}=... particle-os build --allow-env {name} ...",
        )
    return os.fsencode(text)


def _content(path: Path, directory: Path | None) -> bytes:
    try:
        if fault := outside(path, directory):
            raise _Unfit(fault)
        with open_regular(path) as file:
            return file.read(MOST + 1)
    except OSError as error:
        raise _Unfit(f"cannot be read: {error.strerror}") from error


def _key(cache: Path) -> bytes:
    """The key of this user's hashes. It is made at its first use, and again if it is damaged."""
    path = cache / KEY
    with locked(cache / f"{KEY}.lock", Deadline.after(KEY_SECONDS, "the key of the secrets")):
        with suppress(OSError):
            if len(key := read_regular(path, MOST, follow=False)) == KEY_BYTES:
                return key
        remove(path)
        key = secrets.token_bytes(KEY_BYTES)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
        return key
