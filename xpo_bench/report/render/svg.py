"""Matplotlib figures as SVG that stands inside an HTML page.

Several stand in one page, so identifiers are unique; a page without inline styles can refuse them all, so
styles become attributes; text stays text; and black ink follows the page's own, light or dark.
"""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

from xpo_bench.report.format import clean

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SERIES = "series-"
"""How the gid of an artist begins that belongs to a numbered entry of the legend."""
ATTRIBUTES = frozenset(
    {
        *(
            "fill",
            "fill-opacity",
            "fill-rule",
            "opacity",
            "stroke",
            "stroke-dasharray",
            "stroke-dashoffset",
            "stroke-linecap",
        ),
        *("stroke-linejoin", "stroke-miterlimit", "stroke-opacity", "stroke-width"),
        *("text-anchor", "font-size", "font-weight", "font-style"),
    }
)
SCALE = 106
"""Pixels of the page per inch of a figure: text of 9 points looks like the tables'."""
INK = {"#000000": "currentColor", "#ffffff": "none", "#e4e4e4": "currentColor"}
GRID = "#e4e4e4"
XLINK = "{http://www.w3.org/1999/xlink}href"
_NUMBER = re.compile(r"-?\d+\.\d+")
_URL = re.compile(r"url\(#([^)]+)\)")
_FONT = re.compile(r"(?:(bold|italic)\s+)*(\d[\d.]*)px")


def inline(figure: Figure, prefix: str, label: str) -> str:
    """The figure as an `<svg>` element; its identifiers begin with `prefix`, `label` is what a screen reader
    says.

    Coordinates are kept to a tenth of a point.
    """
    sink = io.BytesIO()
    figure.savefig(sink, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    root = ET.fromstring(sink.getvalue())  # XML that matplotlib has just written
    # of matplotlib's many identifiers only those that something points at are kept
    used = {m for e in root.iter() for m in _references(e)}
    _convert(root, prefix, used)
    box = root.get("viewBox") or ""
    root.attrib.clear()
    width = round(figure.get_figwidth() * SCALE)
    root.attrib.update({"viewBox": box, "width": str(width), "role": "img", "aria-label": clean(label)})
    root.attrib.update({"stroke-linejoin": "round", "stroke-linecap": "butt"})
    return ET.tostring(root, encoding="unicode")


def _references(element: ET.Element) -> list[str]:
    """The identifiers that an element points at."""
    found = [m for value in element.attrib.values() for m in _URL.findall(value)]
    target = element.get(XLINK, "")
    return [*found, target[1:]] if target.startswith("#") else found


def _convert(element: ET.Element, prefix: str, used: set[str]) -> None:
    element.tag = element.tag.rpartition("}")[2]  # within HTML, SVG has no namespace prefix
    element.attrib = _attributes(element, prefix, used)
    for child in list(element):
        name = child.tag.rpartition("}")[2]
        if name in ("metadata", "style"):
            element.remove(child)
        else:
            _convert(child, prefix, used)
            if name in ("g", "defs") and not len(child) and not child.attrib:
                element.remove(child)
    if element.tag != "text" and element.tag != "tspan":
        element.text = None
    element.tail = None


def _attributes(element: ET.Element, prefix: str, used: set[str]) -> dict[str, str]:
    out: dict[str, str] = {}
    for name, value in element.attrib.items():
        if name == "id":
            if value.startswith(SERIES):
                out["data-s"] = value.removeprefix(SERIES)
            elif value in used:
                out["id"] = prefix + value
        elif name == XLINK:
            out["href"] = f"#{prefix}{value[1:]}"
        elif name == "style":
            out |= _styles(value)
        elif name == "transform" and value.startswith("rotate(-0 "):
            continue
        else:
            out[name] = _round(value)
    if not set(out.get("d", "C")) & set("CQ"):
        out["d"] = out["d"].replace(" L ", " ")  # a move goes on as lines
    if out.get("stroke") == GRID:
        out["stroke-opacity"] = "0.13"
    for name in ("fill", "stroke"):
        if name in out:
            out[name] = INK.get(out[name], out[name])
    return {name: _URL.sub(lambda m: f"url(#{prefix}{m[1]})", value) for name, value in out.items()}


def _styles(style: str) -> dict[str, str]:
    """Declarations as presentation attributes; the font's family is the page's affair."""
    out = {}
    for declaration in style.split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name == "font" and (found := _FONT.search(value)):
            out["font-size"] = found[2]
        elif name in ATTRIBUTES:
            out[name] = _round(value.removesuffix("px"))
    return out


def _round(value: str) -> str:
    return _NUMBER.sub(lambda m: f"{float(m[0]):.1f}".removesuffix(".0"), " ".join(value.split()))
