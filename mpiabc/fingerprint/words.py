"""Differences in words: what kind of thing differs; where digests alone are known, that its content does."""

import re
from collections.abc import Sequence

_KINDS = {  # of names of code that has a digest
    "function ": "the code of {}",
    "class ": "the bases or attributes of the class {}",
    "library ": "the compiled library {}",
}
_DIGEST = r" ([0-9a-f]{16})\b"
_SCRIPT = re.compile(r"\bscript\.(?=[^\s:]+$)")  # how names begin that are of the script itself


def in_words(differences: Sequence[str]) -> list[str]:
    """What `differences` and `code_differences` give, as users read it."""
    return list(map(_described, differences))


def _described(difference: str) -> str:
    for kind, words in _KINDS.items():
        if difference.startswith(kind):
            return words.format(_of_script(difference.removeprefix(kind)))
    name, _, values = difference.partition(": ")
    if found := re.fullmatch(r"(.*) there, (.*) here", values, re.DOTALL):
        return f"{_of_script(name)}: {there_and_here(*found.groups())}"
    return difference


def _of_script(name: str) -> str:
    """`script.K` as a name that users know."""
    found, n = _SCRIPT.subn("", name)
    return f"{found} of the script" if n else name


def there_and_here(there: str, here: str) -> str:
    """Two texts of one thing; where nothing but digests tells them apart, they are named as that."""
    digests = [", ".join(re.findall(_DIGEST, text)) for text in (there, here)]
    one, other = (re.sub(_DIGEST, "", text) for text in (there, here))
    if one == other and all(digests):
        return f"{one}, the content of which differs (digest {digests[0]} there, {digests[1]} here)"
    return f"{one} there, {other} here" if one != other else f"{there} there, {here} here"
