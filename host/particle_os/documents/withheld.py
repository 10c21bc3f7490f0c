"""Removes confidential texts from messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

# WITHHELD replaces a confidential text in messages. A text of fewer than LEAST_WITHHELD characters
# is in many messages by chance.
WITHHELD, LEAST_WITHHELD = "***", 4


class Withheld:
    """A set of confidential texts; short ones are ignored.

    Recipes may have thousands of such texts and of messages, so the texts are found by their
    first characters.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._texts = {text for text in texts if len(text) >= LEAST_WITHHELD}
        self._by_beginning: dict[str, list[str]] = {}
        for text in sorted(self._texts, key=len, reverse=True):
            self._by_beginning.setdefault(text[:LEAST_WITHHELD], []).append(text)

    def and_these(self, texts: Iterable[str]) -> Withheld:
        return Withheld([*self._texts, *texts])

    def removed_from(self, message: str) -> str:
        """`message` with each confidential text in it replaced, and texts that overlap at once."""
        shown: list[str] = []
        hidden = 0
        for start, end in self._found(message):
            if start >= hidden:
                shown += [message[hidden:start], WITHHELD]
            hidden = max(hidden, end)
        return "".join([*shown, message[hidden:]])

    def _found(self, message: str) -> Iterator[tuple[int, int]]:
        """The start and the end of each confidential text in `message`, in their order."""
        for start in range(len(message)):
            for text in self._by_beginning.get(message[start : start + LEAST_WITHHELD], ()):
                if message.startswith(text, start):
                    yield start, start + len(text)
