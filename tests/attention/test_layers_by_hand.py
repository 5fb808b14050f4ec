"""Sequence layers against their equations in NumPy, one step after the other."""

import numpy as np
import pytest
from operator_checks import same
from test_mixers import HEADS, call, made

pytestmark = pytest.mark.usefixtures("x64")


def exponential_linear(x):
    return np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def softplus(x):
    return np.log(1 + np.exp(x))


def unit(x):
    return x / (np.linalg.norm(x, axis=-1, keepdims=True) + 1e-5)


def root_mean_square(x):
    return np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-5)


def weight_of(layer):
    return np.asarray(layer.weight)


def in_heads(x):
    return x.reshape(len(x), HEADS, -1)


def projected(projections, x):
    """Queries, keys and values side by side, `[time, 3 channels]`."""
    layers = projections.query_layer, projections.key_layer, projections.value_layer
    return np.concatenate([x @ weight_of(layer).T for layer in layers], axis=1)


def heads_of(projections, x):
    return [in_heads(part) for part in np.split(projected(projections, x), 3, axis=1)]


def put_together(projections, heads):
    return heads.reshape(len(heads), -1) @ weight_of(projections.output_layer).T


def convolved(convolution, x):
    """Each channel over the last steps; the last weight is that of the present step."""
    weight = weight_of(convolution)
    padded = np.concatenate([np.zeros((len(weight) - 1, x.shape[1])), x])
    return silu(np.stack([np.sum(weight * padded[t : t + len(weight)], axis=0) for t in range(len(x))]))


def gates(decay, x):
    """The step and the logarithm of the decay, `[time, heads]`."""
    step = softplus(x @ weight_of(decay.layer).T + np.asarray(decay.bias))
    return step, -np.exp(np.asarray(decay.log_speed)) * step


def mamba2(layer, x):
    n = layer.state_features
    joint = convolved(layer.convolution, x @ weight_of(layer.input_layer).T)
    inputs, writing, reading = in_heads(joint[:, : -2 * n]), joint[:, -2 * n : -n], joint[:, -n:]
    step, log_decay = gates(layer.decay, x)
    outputs = np.zeros_like(inputs)
    for h in range(HEADS):
        state = np.zeros((n, inputs.shape[2]))
        for t in range(len(x)):
            state = np.exp(log_decay[t, h]) * state + np.outer(writing[t], step[t, h] * inputs[t, h])
            outputs[t, h] = reading[t] @ state + np.asarray(layer.skip)[h] * inputs[t, h]
    gated = silu(x @ weight_of(layer.norm.gate_layer).T) * outputs.reshape(len(x), -1)
    return np.asarray(layer.norm.gain) * gated / root_mean_square(gated) @ weight_of(layer.output_layer).T


def gated(heads, x, remember):
    """A layer with a gated memory; `remember(memory, k, v, decay, rate)` and `read(memory, q)` are what differs."""
    joint = convolved(heads.convolution, projected(heads.projections, x))
    q, k, v = (in_heads(part) for part in np.split(joint, 3, axis=1))
    q, k, decay = unit(q), unit(k), np.exp(gates(heads.decay, x)[1])
    rate = sigmoid(x @ weight_of(heads.rate_layer).T)
    outputs = np.stack([remember(h, q[:, h], k[:, h], v[:, h], decay[:, h], rate[:, h]) for h in range(HEADS)], axis=1)
    normed = np.asarray(heads.norm.gain) * outputs / root_mean_square(outputs)
    return put_together(heads.projections, in_heads(silu(x @ weight_of(heads.norm.gate_layer).T)) * normed)


def gated_delta(layer, x):
    def remember(h, q, k, v, decay, rate):
        memory, outputs = np.zeros((q.shape[1], v.shape[1])), []
        for t in range(len(q)):
            memory = decay[t] * memory
            memory = memory + rate[t] * np.outer(k[t], v[t] - k[t] @ memory)
            outputs.append(q[t] @ memory)
        return np.stack(outputs)

    return gated(layer.heads, x, remember)


def mesa(layer, x):
    """Ridge regression of the values on the keys, solved at every step."""

    def remember(h, q, k, v, decay, rate):
        ridge = np.diag(0.25 + softplus(np.asarray(layer.ridge_parameter)[h]))
        outputs = []
        for t in range(len(q)):
            # What step s weighs at t: its rate, and all decays since.
            weights = np.array([rate[s] * np.prod(decay[s + 1 : t + 1]) for s in range(t + 1)])
            squares = (weights[:, None] * k[: t + 1]).T @ k[: t + 1]
            products = (weights[:, None] * k[: t + 1]).T @ v[: t + 1]
            outputs.append(np.linalg.solve(squares + ridge, q[t]) @ products)
        return np.stack(outputs)

    return gated(layer.heads, x, remember)


def linear(layer, x):
    q, k, v = heads_of(layer.projections, x)
    q, k = exponential_linear(q) + 1, exponential_linear(k) + 1
    outputs = np.zeros_like(v)
    for h in range(HEADS):
        for t in range(len(x)):
            scores = k[: t + 1, h] @ q[t, h]
            outputs[t, h] = scores @ v[: t + 1, h] / np.sum(scores)
    return put_together(layer.projections, outputs)


def rotated(x):
    """Each pair of features turned by an angle that grows with the step, as a complex number."""
    half = x.shape[2] // 2
    angle = np.arange(len(x))[:, None, None] * 10_000.0 ** (-np.arange(half) / half)
    turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angle)
    return np.concatenate([turned.real, turned.imag], axis=-1)


def attended(layer, x, sees):
    """Softmax attention; `sees(t)` are the steps that step `t` reads."""
    q, k, v = heads_of(layer.projections, x)
    q, k = unit(q), unit(k)
    if layer.rotary:
        q, k = rotated(q), rotated(k)
    beta, outputs = np.exp(np.asarray(layer.log_temperature)) * np.sqrt(q.shape[2]), np.zeros_like(v)
    for h in range(HEADS):
        for t in range(len(x)):
            scores = np.exp(beta[h] * k[sees(t), h] @ q[t, h])
            outputs[t, h] = scores @ v[sees(t), h] / np.sum(scores)
    return put_together(layer.projections, outputs)


def softmax(layer, x):
    return attended(layer, x, lambda t: slice(0, t + 1))


def sliding_window(layer, x):
    return attended(layer, x, lambda t: slice(max(0, t + 1 - layer.window), t + 1))


def vq(layer, x):
    """Softmax attention in which the keys of finished chunks are their nearest codes."""
    q, k, v = heads_of(layer.projections, x)
    q, k, size, codebook = unit(q), unit(k), layer.chunk_size, np.asarray(layer.codebook)
    beta, outputs = np.exp(np.asarray(layer.log_temperature)) * np.sqrt(q.shape[2]), np.zeros_like(v)
    for h in range(HEADS):
        distances = np.linalg.norm(k[:, h, None] - codebook[h][None], axis=-1)
        coded = codebook[h][np.argmin(distances, axis=1)]
        for t in range(len(x)):
            begun = t // size * size
            keys = np.concatenate([coded[:begun], k[begun : t + 1, h]])
            scores = np.exp(beta[h] * keys @ q[t, h])
            outputs[t, h] = scores @ v[: t + 1, h] / np.sum(scores)
    return put_together(layer.projections, outputs)


BY_HAND = {
    "softmax": softmax,
    "rotary softmax": softmax,
    "sliding window": sliding_window,
    "linear": linear,
    "mamba2": mamba2,
    "gated delta": gated_delta,
    "mesa": mesa,
    "vq": vq,
}


@pytest.mark.parametrize("name", BY_HAND)
def test_a_layer_is_its_equations(name):
    layer, x = made(name)
    same(call(layer, x)[0], BY_HAND[name](layer, np.asarray(x)))
