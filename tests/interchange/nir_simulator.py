"""A small simulator of chains of NIR, written from the equations of its nodes alone.

    Affine, Linear, Conv2d    W I + b          AvgPool2d    means of patches          Flatten    the same numbers
    LI     tau v' = v_leak - v + R I
    IF     v' = R I                     spike where v passes v_threshold, then v = v_reset
    LIF    tau v' = v_leak - v + R I    the same

Time goes in steps, during which currents are constant and the equations are solved exactly. A signal is a pair of
arrays: the mean of the current during a step, and the sum of the pulses (spikes, whose integral is 1) in it.
"""

import numpy as np


def simulate(graph, x, steps, step=1.0, subtracts=False):
    """Presents an input. Returns the spikes of each node that fires, the mean of Output, and the largest trace.

    With `subtracts` a charge that a pulse lifts above the threshold loses the threshold, in place of being reset.
    """
    after, name, chain = dict(graph.edges), "input", []
    while after[name] != "output":
        name = after[name]
        chain.append((name, graph.nodes[name]))
    state = {name: np.zeros_like(node.r, dtype=float) for name, node in chain if hasattr(node, "r")}
    spikes = {name: np.zeros_like(node.r, dtype=int) for name, node in chain if hasattr(node, "v_threshold")}
    total, peak = 0.0, 0.0
    for _ in range(steps):
        flow, pulses = np.asarray(x, float), np.zeros(np.shape(x))
        for name, node in chain:
            kind = type(node).__name__
            if name in spikes:
                state[name], fired = fire(node, kind, state[name], flow, pulses, step, subtracts)
                spikes[name] += fired
                flow, pulses = np.zeros(fired.shape), fired.astype(float)
            elif kind == "LI":
                state[name], flow = leaky(node, state[name], flow, pulses, step)
                pulses, peak = np.zeros(flow.shape), max(peak, np.max(state[name]))
            else:
                flow, pulses = linear(node, kind, flow, True), linear(node, kind, pulses, False)
        total = total + flow + pulses / step
    return spikes, total / steps, peak


def fire(node, kind, v, flow, pulses, step, subtracts):
    reset = getattr(node, "v_reset", 0)  # nir before 1.0.6 has none
    drop = node.v_threshold - reset
    v = v + (node.r if kind == "IF" else node.r / node.tau) * pulses
    above = v > node.v_threshold
    fired = above.astype(int)
    if subtracts:
        fired = np.maximum(np.ceil((v - node.v_threshold) / drop), 0).astype(int)
        v = v - fired * drop
    else:
        v = np.where(above, reset, v)
    if kind == "IF":  # a charge that rises steadily and is reset at the threshold
        v = v + node.r * flow * step
        more = np.maximum(np.ceil((v - node.v_threshold) / drop), 0).astype(int)
        return v - more * drop, fired + more
    left, goal = np.full(v.shape, step), node.v_leak + node.r * flow
    while True:
        hits = goal > node.v_threshold
        ratio = np.where(hits, goal - v, 1) / np.where(hits, goal - node.v_threshold, 1)
        until = np.where(hits, node.tau * np.log(ratio), np.inf)
        hits &= until < left
        if not hits.any():
            return goal + (v - goal) * np.exp(-left / node.tau), fired
        v, left, fired = np.where(hits, reset, v), np.where(hits, left - until, left), fired + hits


def leaky(node, v, flow, pulses, step):
    """Returns the state at the end of a step whose pulses come at its start, and its mean during the step."""
    v, goal = v + node.r / node.tau * pulses, node.v_leak + node.r * flow
    kept = np.exp(-step / node.tau)
    return goal + (v - goal) * kept, goal + (v - goal) * (1 - kept) * node.tau / step


def linear(node, kind, signal, biased):
    if kind == "Flatten":
        return signal.reshape(-1)
    if kind == "AvgPool2d":
        return patches(signal, node.kernel_size, node.stride, (1, 1)).mean((-2, -1))
    if kind == "Conv2d":
        sides = [(0, 0)] + [(int(side), int(side)) for side in node.padding]
        seen = patches(np.pad(signal, sides), node.weight.shape[2:], node.stride, node.dilation)
        product = np.einsum("ocij,chwij->ohw", node.weight, seen)
        return product + node.bias[:, None, None] if biased else product
    return node.weight @ signal + (node.bias if biased and kind == "Affine" else 0)


def patches(image, kernel, stride, dilation):
    """The patches of an image `[channels, height, width]` under a kernel, `[channels, row, column, i, j]`."""
    rows, columns = (np.arange(side) * d for side, d in zip(kernel, dilation, strict=True))
    starts = [range(0, image.shape[1 + k] - int(at[-1]), int(stride[k])) for k, at in enumerate((rows, columns))]
    taken = [[image[:, r + rows[:, None], c + columns] for c in starts[1]] for r in starts[0]]
    return np.moveaxis(np.array(taken), 2, 0)
