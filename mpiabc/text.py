"""Texts of others, as they may be shown: what is in a file or comes from a process steers no terminal."""

import unicodedata

_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # controls, marks of direction, halves of pairs, separators


def shown(text: str, keep: str = "") -> str:
    r"""The text with what steers a terminal, or is not seen, written out: `\x1b`; but for those in `keep`."""
    if text.isprintable():
        return text
    return "".join(char if char in keep else _shown(char) for char in text)


def shown_lines(text: str) -> str:
    """The same for a text of several lines."""
    return shown(text, keep="\n\t")


def _shown(char: str) -> str:
    is_unseen = unicodedata.category(char) in _UNSEEN
    return char.encode("unicode_escape").decode() if is_unseen else char
