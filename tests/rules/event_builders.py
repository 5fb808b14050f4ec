"""Networks whose units send events, and a loop in NumPy that takes their events one after another."""

import dataclasses

import equinox as eqx
import jax
import numpy as np
from inference_learning_builders import network
from precision import on_host

import vicinal as vc
from vicinal.events import Graded, Ternary
from vicinal.inference import Simultaneous
from vicinal.rules import EventInferenceLearning, InferenceLearning

__all__ = ["assigned", "chain", "chip", "events_of", "flat", "graded", "layers_of", "network", "recorded", "settled"]

SQUARED = vc.losses.squared_error


def graded(threshold, ratio=0.25, **settings):
    """The rule with graded events; the threshold of errors is `ratio` times that of values."""
    codes = {"activity": Graded(threshold), "error": Graded(ratio * threshold)}
    return EventInferenceLearning(**{"loss": SQUARED} | codes | settings)


def ternary(threshold, ratio=0.25, **settings):
    codes = {"activity": Ternary(threshold), "error": Ternary(ratio * threshold)}
    return EventInferenceLearning(**{"loss": SQUARED} | codes | settings)


def settled(steps, step_size, loss=SQUARED, nudge=1.0, precision=None, **settings):
    settle = Simultaneous(steps=steps, step_size=step_size, **settings)
    return InferenceLearning(settle, loss=loss, nudge=nudge, precision=precision)


@eqx.filter_jit
def assigned(rule, graph, model, x, y, state=(), key=None):
    """Gradient, credit and state."""
    return rule.assign(graph, model, state, x, y, key=key)


@eqx.filter_jit
def recorded(rule, graph, model, x, y, state=()):
    return rule.record(graph, model, state, x, y)


def chain(sizes=(4, 6, 5, 3), **settings):
    """A perceptron with vertices at potentials, in which a synapse reads the rate of one value sent."""
    return network(sizes, vertex_at="pre", **settings)


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def events_of(info):
    """Numbers of events per example, as one dictionary of dictionaries."""
    return {field.name: on_host(getattr(info.events, field.name)) for field in dataclasses.fields(info.events)}


def layers_of(model):
    return [(np.asarray(layer.weight), np.asarray(layer.bias)) for layer in model.layers]


def _graded(held, sent, threshold):
    r = held - sent
    return np.where(np.abs(r) >= threshold, threshold * np.round(r / threshold), 0.0)


class chip:
    """The units of a chain, which hold potentials to which each event adds; tanh, squared error.

    A synapse keeps what it has heard, so that events may be lost on the way (`loss`, a part of all).
    """

    def __init__(self, model, x, y, *, gamma, threshold, ratio=0.25, loss=0.0, seed=0):
        self.layers, self.y, self.gamma = layers_of(model), np.asarray(y), gamma
        self.thresholds, self.loss, self.rng = (threshold, ratio * threshold), loss, np.random.default_rng(seed)
        batch, sizes = len(x), [len(b) for _, b in self.layers]
        self.clamp(x)
        self.v = [np.zeros((batch, n)) for n in sizes[:-1]]
        self.sent, self.heard = [np.zeros_like(v) for v in self.v], [np.zeros_like(v) for v in self.v]
        self.e = [np.zeros((batch, n)) for n in sizes]  # sent; errors of the output are last
        self.e_heard = [np.zeros_like(e) for e in self.e]
        self.p = [np.broadcast_to(b, (batch, len(b))).copy() for _, b in self.layers[1:]]  # but for the first
        self.q = [np.zeros_like(v) for v in self.v]  # what errors sent add to, below
        self.value_events, self.error_events = [0] * len(sizes), [0] * len(sizes)

    def clamp(self, x, y=None):
        (w, b), self.x = self.layers[0], np.asarray(x)
        self.first = self.x @ w.T + b[None]
        self.y = self.y if y is None else np.asarray(y)

    def arrived(self, events):
        return np.where(self.rng.random(events.shape) < self.loss, 0.0, events)

    def send_value(self, l):  # noqa: E741
        d = _graded(self.v[l], self.sent[l], self.thresholds[0])
        self.sent[l] = self.sent[l] + d
        self.value_events[l] += np.sum(d != 0, axis=1)
        self.hear(l, self.arrived(d))

    def hear(self, l, d):  # noqa: E741
        before, self.heard[l] = self.heard[l], self.heard[l] + d
        change, weight = np.tanh(self.heard[l]) - np.tanh(before), self.layers[l + 1][0]
        for unit in range(weight.shape[1]):  # each event adds a column of the weights to the potentials above
            self.p[l] += np.outer(change[:, unit], weight[:, unit])

    def errors(self):
        predictions = [self.first, *self.p]
        return [v - p for v, p in zip(self.v, predictions, strict=False)] + [self.y - predictions[-1]]

    def send_errors(self):
        for l, e in enumerate(self.errors()):  # noqa: E741
            d = _graded(e, self.e[l], self.thresholds[1])
            self.e[l] = self.e[l] + d
            self.error_events[l] += np.sum(d != 0, axis=1)
            self.hear_error(l, self.arrived(d))

    def hear_error(self, l, d):  # noqa: E741
        self.e_heard[l] = self.e_heard[l] + d
        if l:
            weight = self.layers[l][0]
            for unit in range(weight.shape[0]):
                self.q[l - 1] += np.outer(d[:, unit], weight[unit])

    def sweep(self):
        for l in range(len(self.v)):  # noqa: E741
            self.v[l] = ([self.first, *self.p][l]).copy()
            self.send_value(l)
        return self

    def step(self):
        own = self.errors()
        self.send_errors()
        for l, e in enumerate(own[:-1]):  # noqa: E741
            self.v[l] = self.v[l] + self.gamma * ((1 - np.tanh(self.sent[l]) ** 2) * self.q[l] - e)
        for l in range(len(self.v)):  # noqa: E741
            self.send_value(l)

    def run(self, steps):
        for _ in range(steps):
            self.step()
        return self

    def refresh(self):
        """Everybody hears the whole of what was sent, in place of changes."""
        for l in range(len(self.v)):  # noqa: E741
            self.hear(l, self.sent[l] - self.heard[l])
        for l in range(len(self.e)):  # noqa: E741
            self.hear_error(l, self.e[l] - self.e_heard[l])
        return self

    def learn(self, rate):
        """Every synapse changes by what its two ends hold; the potentials are those of the new weights."""
        batch, below = len(self.x), [self.x, *map(np.tanh, self.heard)]
        self.layers = [
            (w + rate / batch * e.T @ r, b + rate * e.mean(0))
            for (w, b), e, r in zip(self.layers, self.e_heard, below, strict=True)
        ]
        self.clamp(self.x)
        for l, (w, b) in enumerate(self.layers[1:]):  # noqa: E741
            self.p[l] = below[l + 1] @ w.T + b[None]
            self.q[l] = self.e_heard[l + 1] @ w
        return self

    def gradient(self):
        batch, below = len(self.x), [self.x, *map(np.tanh, self.heard)]
        return [-e.T @ r / batch for e, r in zip(self.e_heard, below, strict=True)]
