"""Finds ordinary words, unlike secrets, in a document whose types say nothing about its values.

A misspelt key, a wrong container or a syntax error leaves values without a type. Any of them may be
a password, so a value is shown only if it consists of ordinary words and no key above it has a name
of keys that hold secrets.
"""

from __future__ import annotations

import difflib
import functools
import re

# Parts of the names of keys that hold secrets, or public keys and variables of programs, in which
# people put secrets.
_OF_SECRETS = re.compile(
    r"pas+w|passphrase|(?:^|[-_])pas+$|(?:^|[-_])pw|pw$|pwd|secret|token|credential|auth|hash|private|login|bearer|"
    r"(?:^|[-_ ])(?:api)?keys?(?:$|[-_ ])|apikey|^pin$|cert|environment|^env$|debconf|^value$|"
    r"cookie|session|salt|crypt|signature",
    re.IGNORECASE,
)
# Words that a misspelt key may mean.
_MEANT = ("password", "passphrase", "secret", "token", "credentials", "password-hash")
_KEY = re.compile(r"[\w.-]+(?=[\"']?\s*[:=])")
# A reference to a variable stands for a word.
_VARIABLE = re.compile(r"\$\{[\w-]*\}|\$\w+")
_SEPARATOR = re.compile(r"[^\w]+|_")
# Of a word that is divided by "-", "." and the like: letters, with two digits behind, or digits.
_PART = re.compile(r"[A-Z]?[a-z]{0,24}\d{0,2}|[A-Z]{1,8}\d{0,2}|\d{1,6}")
# A word alone: "x86" and "hunter2" look alike. Units follow numbers.
_ALONE = re.compile(r"[A-Z]?[a-z]{0,24}|[A-Z]{1,16}|[A-Za-z]\d?|\d{1,6}[A-Za-z]{0,3}")
# The characters of paths, options, commands and templates.
_USUAL = re.compile(r"[A-Za-z0-9_\s./,:;@%+=<>()\[\]{}|&$\"'*?!~^#\\-]*")
# What precedes a secret in a text.
_SPOKEN = re.compile(r"pas+wor?d|passphrase|secret|token|bearer|private", re.IGNORECASE)
_NAMED_SECRET = re.compile(r"://[^/\s]*@|[A-Za-z0-9+/=]{24,}")


@functools.lru_cache(maxsize=4096)
def holds_secrets(key: str) -> bool:
    """Whether a key has the name of one that holds secrets, perhaps misspelt."""
    spelled = key[:40].lower()
    near = difflib.get_close_matches(spelled, _MEANT, n=1, cutoff=0.75)
    return bool(near) or _OF_SECRETS.search(key) is not None


def names_secret(text: str) -> bool:
    """Whether a text has something like a key, as in `password: x` or `--token=x`, of a secret."""
    return any(holds_secrets(key) for key in _KEY.findall(text))


def is_ordinary(text: str) -> bool:
    """Whether a text consists of ordinary words and has nothing like a password or a key."""
    bare = _VARIABLE.sub("", text)
    if not _USUAL.fullmatch(bare) or _NAMED_SECRET.search(bare) or names_secret(bare):
        return False
    return all(map(_is_word, bare.split())) and not _SPOKEN.search(bare)


def _is_word(word: str) -> bool:
    parts = [part for part in _SEPARATOR.split(word) if part]
    pattern = _ALONE if len(parts) == 1 else _PART
    return all(map(pattern.fullmatch, parts))
