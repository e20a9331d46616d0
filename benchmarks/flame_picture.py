"""Draws stacks as a flame graph: a box for each function, as wide as its share of the time; plain SVG, no script."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from xml.sax.saxutils import escape

from benchmarks.flame_stacks import PARTS, Frame, Stack, part_of

__all__ = ["draw_flame"]

WIDTH: Final = 1600
ROW: Final = 16
MARGIN: Final = 10
LEGEND_ROW: Final = 18
# Of a monospaced font of 10 pixels.
CHARACTER: Final = 6.05
# Narrower boxes are left out, more of them while the picture is too large.
NARROWEST: Final = 0.8
SIZE_MAX_BYTES: Final = 280_000
_COLOURS: Final = (
    "#c0504d", "#e39a3b", "#e8c95a", "#4f81bd", "#7ba3d6", "#a6c4e8", "#3f9c8f", "#8fd0c4", "#c3d9ef",
    "#9b8bbf", "#76933c", "#b0a08a", "#d98cb3", "#bfbfbf", "#d9d9d9",
)  # fmt: skip
_COLOUR_OF: Final[Mapping[str, str]] = dict(zip(PARTS, _COLOURS, strict=True))


@dataclass(slots=True)
class _Node:
    """A function below those that called it."""

    frames: tuple[Frame, ...]
    count: int = 0
    callees: dict[Frame, "_Node"] = field(default_factory=dict)

    def add(self, stack: Stack) -> None:
        node = self
        node.count += stack.count
        for depth, frame in enumerate(stack.frames, 1):
            node = node.callees.setdefault(frame, _Node(stack.frames[:depth]))
            node.count += stack.count


def draw_flame(stacks: Sequence[Stack], *, title: str) -> str:
    """Return a flame graph as SVG of at most 280 kB.

    Args:
        stacks: What was seen.
        title: Its heading.
    """
    root = _Node(())
    for stack in stacks:
        root.add(stack)
    narrowest = NARROWEST
    while True:
        picture = _picture(root, narrowest, title)
        if len(picture.encode()) <= SIZE_MAX_BYTES:
            return picture
        narrowest *= 1.5


def _picture(root: _Node, narrowest: float, title: str) -> str:
    boxes = list(_boxes(root, 0.0, float(WIDTH - 2 * MARGIN), root.count, narrowest))
    parts = sorted({part_of(node.frames) for node, *_ in boxes}, key=PARTS.index)
    per_row = 5
    top = 30 + LEGEND_ROW * (-(-len(parts) // per_row)) + 8
    height = top + ROW * max((len(node.frames) for node, *_ in boxes), default=0) + MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">',
        "<style>text{font:10px monospace;pointer-events:none}rect{stroke:#fff;stroke-width:.5}</style>",
        f'<path fill="#fff" d="M0 0H{WIDTH}V{height}H0z"/>',
        f'<text x="{MARGIN}" y="18" style="font-size:14px">{escape(title)}</text>',
    ]
    for number, part in enumerate(parts):
        left, line = MARGIN + number % per_row * 310, 30 + number // per_row * LEGEND_ROW
        lines.append(f'<rect x="{left}" y="{line}" width="12" height="12" fill="{_COLOUR_OF[part]}"/>')
        lines.append(f'<text x="{left + 17}" y="{line + 10}">{escape(part)}</text>')
    for node, x, width in boxes:
        lines += _box(node, MARGIN + x, height - MARGIN - ROW * len(node.frames), width, node.count / root.count)
    return "\n".join([*lines, "</svg>"]) + "\n"


def _boxes(node: _Node, x: float, width: float, total: int, narrowest: float) -> Iterator[tuple[_Node, float, float]]:
    """Yield each box that is wide enough, with its place, from the root upwards."""
    unit = (WIDTH - 2 * MARGIN) / total if total else 0.0
    if node.frames:
        yield node, x, width
    for _, callee in sorted(node.callees.items(), key=lambda item: str(item[0])):
        callee_width = callee.count * unit
        if callee_width >= narrowest:
            yield from _boxes(callee, x, callee_width, total, narrowest)
        x += callee_width


def _box(node: _Node, x: float, y: float, width: float, share: float) -> list[str]:
    name = str(node.frames[-1])
    colour = _COLOUR_OF[part_of(node.frames)]
    box = f'<rect x="{x:.1f}" y="{y:.0f}" width="{width:.1f}" height="{ROW - 1}" fill="{colour}">'
    lines = [f"<g>{box}<title>{escape(name)}: {share:.1%}</title></rect>"]
    room = int((width - 4) / CHARACTER)
    if room >= 3:
        shown = name if len(name) <= room else f"{name[: room - 1]}…"
        lines.append(f'<text x="{x + 2:.1f}" y="{y + 11:.0f}">{escape(shown)}</text>')
    return ["".join(lines) + "</g>"]
