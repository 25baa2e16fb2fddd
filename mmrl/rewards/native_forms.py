r"""Boxes and points as model families write them by themselves.

| form | a box | a point | numbers |
|---|---|---|---|
| own | any below that counts in the family's own space, or `[x1, y1, x2, y2]` | the same | own |
| qwen | `{"bbox_2d": [x1, y1, x2, y2]}` | `{"point_2d": [x, y]}` | own: pixels or 0-1000 |
| qwen2 | `<|box_start|>(x1,y1),(x2,y2)<|box_end|>` | `<|box_start|>(x,y)<|box_end|>` | own |
| internvl | `<box>[[x1, y1, x2, y2]]</box>` | `<point>[[x, y]]</point>` | 0-1000 |
| glm | `<|begin_of_box|>[[x1, y1, x2, y2]]<|end_of_box|>` | the same with `[[x, y]]` | 0-1000 |
| deepseek | `<|det|>[[x1, y1, x2, y2]]<|/det|>` | the same with `[[x, y]]` | 0-1000 |
| kimi | `<|box_start|>[x1, y1, x2, y2]<|box_end|>` | the same with `[x, y]` | 0-1 |
| gemini | `{"box_2d": [y1, x1, y2, x2]}` | `{"point": [y, x]}` | 0-1000 |
| molmo | `<box x1="" y1="" x2="" y2=""/>` | `<point x="" y="" alt="">name</point>` | 0-100 |
| paligemma | `<loc0012>` of y1, x1, y2, x2 | of y, x | 0-1024 |
| florence | `<loc_12>` of x1, y1, x2, y2 | of x, y | 0-1000 |
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mmrl.frame import Space
from mmrl.rewards.boxes import Box
from mmrl.rewards.json_text import is_number, parse_json
from mmrl.rewards.numbers import NumberPolicy, parse_number, write_number
from mmrl.rewards.parsed import Parsed, malformed, ok
from mmrl.rewards.points import Point

Form = Literal[
    "own", "qwen", "qwen2", "internvl", "glm", "deepseek", "kimi", "gemini", "molmo", "paligemma",
    "florence",
]  # fmt: skip

_POLICY = NumberPolicy(
    commas=False, exponent=False, dress=False, max_characters=24, max_magnitude=9
)
_LONGEST = 1_024
_NAMES = (
    r"(?:<\|object_ref_start\|>[^<]*<\|object_ref_end\|>|<ref>[^<]*</ref>"
    r"|<\|ref\|>[^<]*<\|/ref\|>)?"
)
_WRAPS = {
    "qwen2": (r"<\|box_start\|>", r"<\|box_end\|>"), "internvl": ("<box>", "</box>"),
    "glm": (r"<\|begin_of_box\|>", r"<\|end_of_box\|>"), "deepseek": (r"<\|det\|>", r"<\|/det\|>"),
    "kimi": (r"<\|box_start\|>", r"<\|box_end\|>"),
}  # fmt: skip
_POINT_WRAPS = {**_WRAPS, "internvl": ("<point>", "</point>")}
_PAIRS = re.compile(r"\(([^()]*)\)\s*,\s*\(([^()]*)\)")
_SQUARE = r"\[\s*([^()\[\]]*)\]|\[\s*\[([^()\[\]]*)\]\s*\]"
_BRACKETS = {4: re.compile(_SQUARE), 2: re.compile(rf"{_SQUARE}|\(([^()\[\]]*)\)")}
_LOCS = re.compile(r"<loc(_?)([0-9]{1,4})>")
_ATTRIBUTE = re.compile(r"\b(x|y)([0-9]*)\s*=\s*\"\s*([^\"]*?)\s*\"")
_ELEMENT = re.compile(r"<(?:points?|box)\s[^<>]*?(?:/>|>(?:[^<]*</(?:points?|box)>)?)")


@dataclass(frozen=True, slots=True)
class _Scale:
    """The space that a form's numbers become, what they are divided by, and whether y is first."""

    space: Space | None = None
    divisor: float = 1.0
    y_first: bool = False


_SCALES: dict[Form, _Scale] = {
    "internvl": _Scale("thousand"), "glm": _Scale("thousand"), "deepseek": _Scale("thousand"),
    "kimi": _Scale("unit"), "gemini": _Scale("thousand", y_first=True),
    "molmo": _Scale("unit", 100.0), "paligemma": _Scale("unit", 1024.0, y_first=True),
    "florence": _Scale("thousand"),
}  # fmt: skip


def space_of(form: Form, own: Space) -> Space:
    """The space of a form's boxes and points as `parse_native_box` returns them."""
    return _SCALES.get(form, _Scale()).space or own


def parse_native_box(text: str, form: Form = "own") -> Parsed[Box]:
    """Read exactly one box; more than one is `multiple`, an inverted or empty one malformed."""
    return _numbers(text, form, 4).then(lambda n: _box(_placed(n, form), text))


def parse_native_point(text: str, form: Form = "own") -> Parsed[Point]:
    """Read exactly one point; more than one is `multiple`."""
    return _numbers(text, form, 2).then(lambda n: ok(Point(*_placed(n, form))))


def write_form(values: Sequence[float], form: Form, space: Space) -> str:
    """Write a box (4 values) or a point (2) of `space_of` so that it is read back."""
    scale = _SCALES.get(form, _Scale())
    raw = [value * scale.divisor for value in values]
    if scale.y_first:
        raw = [raw[i ^ 1] for i in range(len(raw))]
    digits = 4 if scale.divisor == 1 and space == "unit" else 2
    said = [write_number(value, digits) for value in raw]
    listed = ", ".join(said)
    point = len(raw) == 2
    match form:
        case "own":
            return f"({listed})" if point else f"[{listed}]"
        case "qwen":
            return f'{{"{"point_2d" if point else "bbox_2d"}": [{listed}]}}'
        case "gemini":
            return f'{{"{"point" if point else "box_2d"}": [{listed}]}}'
        case "qwen2":
            pairs = ",".join(f"({x},{y})" for x, y in zip(said[::2], said[1::2], strict=True))
            return f"<|box_start|>{pairs}<|box_end|>"
        case "kimi":
            return f"<|box_start|>[{listed}]<|box_end|>"
        case "molmo":
            names = ("x", "y") if point else ("x1", "y1", "x2", "y2")
            put = " ".join(f'{n}="{v}"' for n, v in zip(names, said, strict=True))
            return f"<{'point' if point else 'box'} {put}/>"
        case "paligemma":
            return "".join(f"<loc{min(1023, round(value)):04d}>" for value in raw)
        case "florence":
            return "".join(f"<loc_{min(999, round(value))}>" for value in raw)
        case _:
            opening, closing = (_POINT_WRAPS if point else _WRAPS)[form]
            return f"{opening}[[{listed}]]{closing}".replace("\\", "")


def hint_of(form: Form, what: Literal["box", "point"]) -> str:
    """Tell the model the form; "" for its own."""
    if form == "own":
        return ""
    shown = write_form((0.1, 0.2, 0.3, 0.4) if what == "box" else (0.1, 0.2), form, "unit")
    return f"Write the {what} in the form {re.sub('[0-9.]+(?=[^a-z_0-9]|$)', '...', shown)}."


def _placed(numbers: Sequence[float], form: Form) -> list[float]:
    scale = _SCALES.get(form, _Scale())
    order = [i ^ 1 for i in range(len(numbers))] if scale.y_first else range(len(numbers))
    return [numbers[i] / scale.divisor for i in order]


def _numbers(text: str, form: Form, count: int) -> Parsed[list[float]]:
    """The `count` numbers of the one box or point that the text is."""
    text = text.strip()
    if not text:
        return Parsed("missing", None, "empty answer")
    if len(text) > _LONGEST:
        return malformed("longer than a box or a point")
    match form:
        case "gemini":
            return _of_json(text, ("box_2d",) if count == 4 else ("point",), count)
        case "molmo":
            return _of_attributes(text, count)
        case "paligemma" | "florence":
            return _of_locations(text, form, count)
        case "qwen":
            return _of_json(text, _KEYS[count], count)
        case "own":
            if "_2d" in text:
                return _of_json(text, _KEYS[count], count)
            return _of_wrapped(text, (*_WRAPS.values(), *_POINT_WRAPS.values(), ("", "")), count)
        case _:
            return _of_wrapped(text, [(_POINT_WRAPS if count == 2 else _WRAPS)[form]], count)


_KEYS = {4: ("bbox_2d", "bbox"), 2: ("point_2d", "point")}


def _of_json(text: str, keys: Sequence[str], count: int) -> Parsed[list[float]]:
    parsed = parse_json(text, max_depth=4, max_nodes=64)
    if parsed.value is None:
        return Parsed(parsed.status, None, parsed.reason)
    items = parsed.value if isinstance(parsed.value, list) else [parsed.value]
    if len(items) > 1 and all(isinstance(item, dict) for item in items):
        return Parsed("multiple", None, f"{len(items)} of them")
    item = items[0] if items else None
    found = [item[key] for key in keys if key in item] if isinstance(item, dict) else []
    value = found[0] if found else None
    if isinstance(value, list) and len(value) == count and all(map(is_number, value)):
        return ok([float(number) for number in value])
    return malformed(f"no {keys[0]} of {count} numbers: '{text:.40}'")


def _of_wrapped(text: str, wraps: Sequence[tuple[str, str]], count: int) -> Parsed[list[float]]:
    for opening, closing in wraps:
        match = re.fullmatch(rf"{_NAMES}\s*{opening}(.*){closing}", text, re.DOTALL)
        if match is None:
            continue
        inner = match[1].strip()
        if opening and re.search(opening, inner):
            return Parsed("multiple", None, f"more than one: '{text:.40}'")
        pair = _PAIRS.fullmatch(inner) if count == 4 else None
        one = _BRACKETS[count].fullmatch(inner)
        if pair or one:
            groups = pair.groups() if pair else one.groups() if one else ()
            return _list(",".join(filter(None, groups)), count)
        if len(_BRACKETS[count].findall(inner)) > 1:
            return Parsed("multiple", None, f"more than one: '{text:.40}'")
        return malformed(f"no box and no point: '{text:.40}'")
    return malformed(f"not in the form asked for: '{text:.40}'")


def _list(text: str, count: int) -> Parsed[list[float]]:
    read = [parse_number(word, _POLICY).value for word in text.split(",", count)]
    numbers = [float(number) for number in read if number is not None]
    if len(numbers) != len(read) or len(numbers) != count:
        return malformed(f"not {count} numbers: '{text:.40}'")
    return ok(numbers)


def _of_attributes(text: str, count: int) -> Parsed[list[float]]:
    if len(_ELEMENT.findall(text)) > 1:
        return Parsed("multiple", None, "more than one element")
    element = _ELEMENT.fullmatch(text)
    found = {axis + index: value for axis, index, value in _ATTRIBUTE.findall(text)}
    names = ("x1", "y1", "x2", "y2") if count == 4 else ("x", "y")
    if element is None or set(found) != set(names):
        several = element is not None and len(found) > count
        reason = f"not one element with {', '.join(names)}: '{text:.40}'"
        return Parsed("multiple", None, reason) if several else malformed(reason)
    return _list(",".join(found[name] for name in names), count)


def _of_locations(text: str, form: Form, count: int) -> Parsed[list[float]]:
    found = _LOCS.findall(text)
    rest = _LOCS.sub("", text).strip()
    under = "_" if form == "florence" else ""
    named = re.fullmatch(r"[^<>;]{0,80}", rest)  # the name that detections carry
    if named is None or not found or any(mark != under for mark, _ in found):
        return malformed(f"not locations: '{text:.40}'")
    if len(found) != count:
        status = len(found) % count == 0
        reason = f"{len(found)} locations, {count} are one"
        return Parsed("multiple", None, reason) if status else malformed(reason)
    return ok([float(value) for _, value in found])


def _box(values: Sequence[float], text: str) -> Parsed[Box]:
    box = Box(*values)
    if box.x1 >= box.x2 or box.y1 >= box.y2:
        return malformed(f"inverted or empty box: '{text:.40}'")
    return ok(box)
