"""Checks of commands in recipes: no shell reads them, which people forget."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

# Words of POSIX shells that are no programs, and what to use instead in a recipe.
WORDS = ("cd", "export", "source", ".", "set", "ulimit", "umask", "alias", "exec", "eval", "trap")
OPERATORS = ("|", "||", "&&", ">", ">>", "<", "<<", "2>", "2>&1", "&>", "&", ">/dev/null",
             "2>/dev/null")  # fmt: skip
# Programs whose own arguments look like a shell's operators.
WITH_OPERATORS = ("test", "[", "expr", "find", "awk", "sed", "grep", "bc", "dc", "jq")
# A redirection with its file, a variable or home directory, and a pattern of files.
REDIRECTION = re.compile(r"[0-9]?(>>?[^\s>=<]|<[^\s>=<0-9])\S*|&>>?\S+")
EXPANSION = re.compile(r"\$([A-Za-z_]\w*|\{[A-Za-z_]\w*\})([/.:]\S*)?|\$\(.*\)|`.*`|~/\S*")
PATTERN = re.compile(r"[\w./~+-]*[*?][\w./*?+-]*")
# Programs that read variables themselves, and programs that read patterns themselves.
WITH_VARIABLES = ("sh", "bash", "dash", "ash", "busybox", "awk", "mawk", "gawk", "perl", "python3",
                  "sed", "grep", "envsubst", "su", "runuser", "make", "find", "xargs")  # fmt: skip
WITH_PATTERNS = (*WITH_VARIABLES, "apt", "apt-get", "apt-mark", "apt-cache", "dpkg", "dpkg-query",
                 "systemctl", "journalctl", "tar", "rsync", "zip", "unzip", "git", "jq", "expr",
                 "bc", "dc", "test", "[", "systemd-tmpfiles", "update-rc.d", "echo", "printf",
                 "nft", "iptables", "crontab", "systemd-analyze")  # fmt: skip
SYNTAX = re.compile(r"[|&;<>`]|\$\(|\$\{|\$[A-Za-z_]")
ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")


def faults(command: Sequence[str]) -> Iterator[tuple[int, str]]:
    """The position and fault of an item that cannot be the name of a program."""
    for index, word in enumerate(command):
        if ASSIGNMENT.match(word):
            continue
        if re.search(r"\s", word.strip()):
            message = f"'{word[:80]}' would be the name of one program: {as_script(word)}"
            yield index, message
        elif word in WORDS:
            yield index, f"'{word}' is a word of shells and no program: write a script"
        return


def shell_words(command: Sequence[str]) -> Iterator[tuple[int, str]]:
    """The position and text of each item that looks as if a shell read it.

    These are operators, redirections, variables, and patterns of files.
    """
    names = [index for index, word in enumerate(command) if not ASSIGNMENT.match(word)]
    first = names[0] if names else 0
    program = command[first].rpartition("/")[2] if names else ""
    for index, word in enumerate(command):
        if index > first and _is_for_shell(program, word):
            yield index, word


def _is_for_shell(program: str, word: str) -> bool:
    if program not in WITH_OPERATORS and (word in OPERATORS or REDIRECTION.fullmatch(word)):
        return True
    if program not in WITH_VARIABLES and EXPANSION.fullmatch(word):
        return True
    # Without a slash or a dot, a pattern may be one of another kind.
    looks_like_files = (
        PATTERN.fullmatch(word) and not word.startswith("-") and set("/.") & set(word)
    )
    return program not in WITH_PATTERNS and bool(looks_like_files)


def needs_shell(text: str) -> bool:
    """Whether only a shell understands a text."""
    return SYNTAX.search(text) is not None or text.split()[:1] in [[word] for word in WORDS]


def as_script(text: str) -> str:
    """The hint that lets a shell read a text."""
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'write [sh, -c, "{quoted[:200]}"], or one item for each word'
