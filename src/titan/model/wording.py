"""What the decoder says of a value it cannot take, in words that do not presume to know a type system."""

import re

TEXT_CHARS_MAX = 1_000
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
    "None": "null",
}
_PLACE = re.compile(r"(.*?)(?: - at `\$(.*)`)?", re.DOTALL)
_EXPECTED = re.compile(r"Expected `(.+)`, got `(.+)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`")
_BOUND = re.compile(r"Expected `(?:int|float)` ([<>]=?) (\S+)")
_NO_WORD = re.compile(r"Invalid (?:enum )?value (.*)", re.DOTALL)


def reworded(text: str, what: str, got: str = "") -> str:
    """Return a decoder's `text` about `what`: what is wrong, why, and what to give instead.

    `got` is the value as it may be shown, left out where what is wrong lies inside it. Example:
    ``reworded("Expected `int`, got `str`", "priority", "'high'") == "priority is 'high': give a whole number"``.
    """
    if len(text) > TEXT_CHARS_MAX:  # it may repeat a value of any size
        text = text[: TEXT_CHARS_MAX // 2] + text[-TEXT_CHARS_MAX // 2 :]
    placed = _PLACE.fullmatch(text)
    said, inside = (placed[1], placed[2] or "") if placed else (text, "")
    where = what + inside.replace("[...]", ", one value of it,")
    if found := _EXPECTED.fullmatch(said):
        wanted = " or ".join(_TYPES.get(word, word) for word in found[1].split(" | "))
        kind = "a number with a fraction" if found[2] == "float" else _TYPES.get(found[2], found[2])
        return f"{where} is {got if got and not inside else kind}: give {wanted}"
    if found := _UNKNOWN.fullmatch(said):
        return f"{where} has the field '{found[1]}', which is unknown here: leave it out"
    if found := _MISSING.fullmatch(said):
        return f"{where} lacks the field '{found[1]}': give it"
    if found := _NO_WORD.fullmatch(said):
        return f"{where} is {found[1]}, which is none of its words: use one of them"
    if found := _BOUND.fullmatch(said):
        least = found[1].startswith(">")
        return f"{where} is out of range: give {found[2]} {'or more' if least else 'at most'}"
    if "out of range" in said:
        return f"{where} is a number out of range: give a smaller one"
    if said == "Input data was truncated":
        return f"{where} ends too early, or holds a lone surrogate: send it whole"
    if "codec can't decode" in said:
        return f"{where} holds bytes that are no UTF-8: send JSON in UTF-8"
    return f"{where} cannot be read, correct it: {said}"
