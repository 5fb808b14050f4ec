"""The drawing of a graph shows every vertex once, who reads whom, and stays readable when the graph is large."""

import re

import jax
import jax.numpy as jnp
from report_page_checks import NASTY, Outline

import vicinal as vc
from vicinal.report import Node, draw_graph, outline


def bound(function, *parameters):
    return jax.tree_util.Partial(function, list(parameters))


def branching(weights, x):
    left = vc.vertex(jnp.tanh(weights[0] @ x), "left")
    right = vc.vertex(jnp.tanh(weights[1] @ x), "right")
    deeper = vc.vertex(jnp.tanh(weights[2] @ left), "deeper")
    return weights[3] @ (deeper + right) + jnp.sum(x)


def drawn(*nodes):
    return draw_graph(list(nodes))


def names(svg):
    return re.findall(r"font-weight: 600[^>]*>([^<]*)<", svg)


def places(svg):
    """Name -> (x, y, width, height) of its box."""
    boxes = re.findall(r'<rect x="([-\d.]+)" y="([-\d.]+)" width="([-\d.]+)" height="([-\d.]+)"', svg)
    return {name.split("  ")[0]: tuple(map(float, box)) for name, box in zip(names(svg), boxes, strict=True)}


def arrows(svg):
    """The points of the arrow heads."""
    return re.findall(r"L([-\d.]+) ([-\d.]+)L", re.findall(r'<path d="([^"]*)"', svg)[1])


def test_outline_holds_shapes_reads_and_parameters():
    graph = vc.capture(bound(branching, *[jnp.ones((4, 4))] * 3, jnp.ones((2, 4))), jnp.ones(4))
    nodes = outline(graph)
    assert [(node.name, node.shape, node.reads) for node in nodes] == [
        ("left", "4", ["input"]),
        ("right", "4", ["input"]),
        ("deeper", "4", ["left"]),
        ("output", "2", ["input", "right", "deeper"]),
    ]
    assert [node.parameters for node in nodes] == [["[0][0]"], ["[0][1]"], ["[0][2]"], ["[0][3]"]]


def test_every_node_and_every_edge_is_drawn_once_from_top_to_bottom():
    nodes = [
        Node("left", "4", ["input"], ["[0]"]),
        Node("right", "4", ["input"]),
        Node("deeper", "2 x 4", ["left"]),
        Node("output", "2", ["input", "right", "deeper"]),
    ]
    svg = drawn(*nodes)
    assert names(svg) == ["input", "left  [4]", "right  [4]", "deeper  [2 x 4]", "output  [2]"]
    found = places(svg)
    assert len(arrows(svg)) == sum(len(node.reads) for node in nodes) == 6
    for node in nodes:
        for read in node.reads:
            assert found[read][1] + found[read][3] < found[node.name][1]  # what is read stands above
    for one in found.values():
        for other in found.values():
            apart = one[0] + one[2] < other[0] or other[0] + other[2] < one[0] or one[1] != other[1]
            assert one == other or apart
    tops = {round(y) for _, y, _, _ in found.values()}
    assert {round(float(y)) for _, y in arrows(svg)} <= {round(top - 0.5) for top in tops} | tops


def test_long_edges_run_beside_the_boxes():
    reads = {"a": ["input"], "b": ["a"], "c": ["b", "a"], "d": ["c", "a"]}
    svg = drawn(*[Node(name, "1", found) for name, found in reads.items()])
    leftmost = min(x for x, *_ in places(svg).values())
    lanes = [float(x) for x in re.findall(r"M([-\d.]+) [-\d.]+q0 5 5 5H", svg)]
    assert len(lanes) == 2
    assert max(lanes) < leftmost


def test_deep_and_wide_graphs_stay_readable():
    deep = [Node(f"h{i}", "8", [f"h{i - 1}" if i else "input"]) for i in range(100)]
    shown = names(drawn(*deep, Node("output", "8", ["h99", "h50"])))
    assert len(shown) <= 22
    assert shown[0] == "input"
    assert shown[-1] == "output  [8]"
    assert "84 more, h11 to h94" in shown
    wide = [Node(f"e{i}", "8", ["input"]) for i in range(20)]
    shown = names(drawn(*wide, Node("output", "8", [node.name for node in wide])))
    assert "15 more, e3 to e17" in shown


def test_names_are_escaped_and_the_drawing_is_plain():
    svg = drawn(Node(NASTY, "1", ["input"], [NASTY]), Node("output", "1", [NASTY]))
    found = Outline(svg)
    assert "<script" not in svg
    assert found.tags <= {"svg", "path", "g", "title", "rect", "text"}
    assert found.identifiers == []


def test_a_graph_draws_itself_in_a_notebook():
    graph = vc.capture(vc.nn.MLP((3, 4, 2), key=jax.random.key(0)), jnp.ones(3))
    html = graph._repr_html_()
    assert draw_graph(graph) in html
    assert "layers[0]: weight, bias" in html
