"""Draw a graph: a box for each vertex, level by level, and arrows from a value to its readers."""

import dataclasses
from collections.abc import Sequence
from html import escape
from typing import Any

from vicinal.report.outline import INPUT, Node, outline, parameter_words
from vicinal.report.palette import DARK, INK, MUTED, themed
from vicinal.report.svg import FONT, shorten

__all__ = ["draw_graph"]

_MOST = 22  # nodes; of more, the first and the last are drawn
_HEAD, _TAIL = 12, 6
_WIDE = 6  # boxes beside each other; of more, the first and the last
_LINE, _GAP, _ASIDE, _LANE, _EDGE = 15.0, 36.0, 18.0, 12.0, 6.0
_LETTERS = (7.5, 6.1)  # about the width of a letter of a name, which is bold, and of a parameter
_FILL, _FILL_DARK = "#ffffff", "#1b1f23"
_ENDS, _ENDS_DARK = "#f1efe8", "#262b30"


def draw_graph(graph: Any) -> str:
    """Draw a graph as SVG: vertices with their shapes and parameters, and who reads whom.

    A node stands below all that it reads. A value that is read further down than one level runs along the left side.
    Of a deep or a wide graph the first and the last nodes are drawn, with a box for those in between.

    Args:
        graph: A `vicinal.Graph`, or its `outline`.

    Returns:
        An `<svg>` element, without a script and without identifiers. In a file of its own it is a picture.

    Example:
        >>> import jax, jax.numpy as jnp, vicinal as vc
        >>> model = vc.nn.MLP((3, 4, 2), key=jax.random.key(0))
        >>> drawing = draw_graph(vc.capture(model, jnp.ones(3)))
        >>> drawing[:4], drawing.count("<rect")  # the input, one vertex, the output
        ('<svg', 3)
    """
    nodes = list(graph) if isinstance(graph, list | tuple) else outline(graph)
    boxes = _place(_shortened([Node(INPUT, ""), *nodes]))
    lanes = _lanes(boxes)
    left = _LANE * len(set(lanes.values())) + _EDGE + (_LANE if lanes else 0.0)
    for box in boxes.values():
        box.x += left
    width = max(box.x + box.width for box in boxes.values()) + _EDGE
    height = max(box.y + box.height for box in boxes.values()) + _EDGE
    parts = [_edges(boxes, lanes, left), *map(_box, boxes.values())]
    label = f"Graph of {len(nodes)} nodes: " + "; ".join(
        f"{node.name} reads {', '.join(node.reads) or 'parameters alone'}" for node in nodes[:_MOST]
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img" aria-label="{escape(label)}" '
        f'style="max-width: 100%; height: auto; font-family: {escape(FONT)}">{"".join(parts)}</svg>'
    )


@dataclasses.dataclass
class _Box:
    node: Node
    level: int
    lines: list[str]
    width: float
    x: float = 0.0
    y: float = 0.0

    @property
    def height(self) -> float:
        return _LINE * len(self.lines) + 14.0

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


def _shortened(nodes: list[Node]) -> list[Node]:
    """Join the nodes in the middle of a long list into one."""
    if len(nodes) <= _MOST:
        return nodes
    return _joined(nodes, nodes[_HEAD:-_TAIL])


def _joined(nodes: Sequence[Node], hidden: Sequence[Node]) -> list[Node]:
    """Join some of the nodes into one, at the place of the first."""
    name = f"{len(hidden)} more, {hidden[0].name} to {hidden[-1].name}"
    names = {node.name: name for node in hidden}

    def reads(members: Sequence[Node]) -> list[str]:
        return list(dict.fromkeys(names.get(read, read) for node in members for read in node.reads))

    one = Node(name, "", [read for read in reads(hidden) if read != name])
    first = nodes.index(hidden[0])
    kept = [node for node in nodes if node.name not in names]
    rest = [dataclasses.replace(node, reads=reads([node])) for node in kept]
    return [*rest[:first], one, *rest[first:]]


def _place(nodes: Sequence[Node]) -> dict[str, _Box]:
    """Give each node a level, one below the deepest that it reads, and a place in it."""
    boxes: dict[str, _Box] = {}
    for node in nodes:
        level = 0 if node.name == INPUT else 1 + max((boxes[read].level for read in node.reads), default=0)
        lines = [shorten(node.name, 34)]
        if node.shape:
            lines[0] = f"{lines[0]}  [{node.shape}]"
        if node.parameters:
            lines.append(shorten(parameter_words(node.parameters), 44))
        width = max(*(letter * len(line) for letter, line in zip(_LETTERS, lines, strict=False)), 70.0) + 22.0
        boxes[node.name] = _Box(node, level, lines, width)
    rows: dict[int, list[_Box]] = {}
    for box in boxes.values():
        rows.setdefault(box.level, []).append(box)
    for row in rows.values():
        if len(row) > _WIDE:  # start again, with one box for the middle of this level
            return _place(_joined(nodes, [box.node for box in row[_WIDE // 2 : -(_WIDE // 2 - 1)]]))
    widths = {level: sum(box.width + _ASIDE for box in row) - _ASIDE for level, row in rows.items()}
    y = _EDGE
    for level in sorted(rows):
        x = (max(widths.values()) - widths[level]) / 2
        for box in rows[level]:
            box.x, box.y = x, y
            x += box.width + _ASIDE
        y += max(box.height for box in rows[level]) + _GAP
    return boxes


def _far(boxes: dict[str, _Box], source: str) -> list[_Box]:
    """List the nodes that read a source from more than one level below."""
    return [box for box in boxes.values() if source in box.node.reads and box.level > boxes[source].level + 1]


def _lanes(boxes: dict[str, _Box]) -> dict[str, int]:
    """Give each value that is read far below a lane at the left, counted from the boxes; its spans do not meet."""
    spans = {
        name: (box.level, max(far.level for far in found))
        for name, box in boxes.items()
        if (found := _far(boxes, name))
    }
    lanes: dict[str, int] = {}
    for name in sorted(spans, key=lambda name: spans[name][1] - spans[name][0]):
        start, end = spans[name]
        taken = {lanes[other] for other in lanes if spans[other][0] < end and start < spans[other][1]}
        lanes[name] = next(lane for lane in range(len(spans)) if lane not in taken)
    return lanes


def _edges(boxes: dict[str, _Box], lanes: dict[str, int], left: float) -> str:
    lines, heads = [], []
    bottoms = {box.level: max(b.y + b.height for b in boxes.values() if b.level == box.level) for box in boxes.values()}
    for name, box in boxes.items():
        far = {found.node.name for found in _far(boxes, name)}
        for child in boxes.values():
            if name in child.node.reads and child.node.name not in far:
                start, end = (box.middle, box.y + box.height), (child.middle, child.y)
                bend = (end[1] - start[1]) / 2
                lines.append(
                    f"M{start[0]:g} {start[1]:g}C{start[0]:g} {start[1] + bend:g} {end[0]:g} {end[1] - bend:g} "
                    f"{end[0]:g} {end[1] - 5:g}"
                )
                heads.append(end)
        if name not in lanes:
            continue
        # An outer lane leaves above an inner one and arrives below it, so that lines do not cross.
        turn, lane = lanes[name] % 3, left - _LANE * (lanes[name] + 1) + 2.5
        out, below = box.x + 20.0, bottoms[box.level] + 16.0 - 4.0 * turn
        last = max(found.y for found in _far(boxes, name)) - 23.0 + 4.0 * turn
        lines.append(f"M{out:g} {box.y + box.height:g}V{below - 5:g}q0 5 -5 5H{lane + 5:g}q-5 0 -5 5V{last:g}")
        for found in _far(boxes, name):
            into, above = found.x + 28.0 - 8.0 * turn, found.y - 18.0 + 4.0 * turn
            lines.append(f"M{lane:g} {above - 5:g}q0 5 5 5H{into - 5:g}q5 0 5 5V{found.y - 5:g}")
            heads.append((into, found.y))
    stroke = f"fill: none; {themed('stroke', MUTED, DARK[MUTED])}; stroke-width: 1.3"
    points = "".join(f"M{x - 3.6:g} {y - 7:g}L{x:g} {y - 0.5:g}L{x + 3.6:g} {y - 7:g}z" for x, y in heads)
    fill = themed("fill", MUTED, DARK[MUTED])
    return f'<path d="{"".join(lines)}" style="{stroke}"/><path d="{points}" style="{fill}"/>'


def _box(box: _Box) -> str:
    ends = not box.node.reads or box.node.name == "output"
    fill = (_ENDS, _ENDS_DARK) if ends else (_FILL, _FILL_DARK)
    style = f"{themed('fill', *fill)}; {themed('stroke', MUTED, DARK[MUTED])}; stroke-width: 1"
    texts = []
    for row, line in enumerate(box.lines):
        size, weight, color = (12.5, 600, INK) if row == 0 else (11, 400, MUTED)
        look = f"font-size: {size}px; font-weight: {weight}; {themed('fill', color, DARK[color])}"
        texts.append(
            f'<text x="{box.middle:g}" y="{box.y + 18 + _LINE * row:g}" text-anchor="middle" style="{look}">'
            f"{escape(line)}</text>"
        )
    whole = ", ".join(box.node.parameters)
    hint = f"<title>{escape(f'{box.node.name}: {whole}' if whole else box.node.name)}</title>"
    return (
        f'<g>{hint}<rect x="{box.x:g}" y="{box.y:g}" width="{box.width:g}" height="{box.height:g}" rx="7" '
        f'style="{style}"/>{"".join(texts)}</g>'
    )
