"""What is a read, and how often it is taken: loops, branches, calls, merging, and all ways to write a product."""

import jax
import jax.numpy as jnp
import pytest
from ledger_builders import counted
from matrix import full

from vicinal import _flow
from vicinal._counting import UnknownTurns, count, forward_pass

W = {"u": jnp.ones((4, 3)), "w": jnp.ones((4, 4))}
X, H = jnp.ones(3), jnp.ones(4)


def unrolled(steps):
    def run(weights, x, h):
        for _ in range(steps):
            h = jnp.tanh(weights["w"] @ h + weights["u"] @ x)
        return h

    return run


def scanned(steps, unroll=1):
    def run(weights, x, h):
        def step(h, _):
            return jnp.tanh(weights["w"] @ h + weights["u"] @ x), None

        return jax.lax.scan(step, h, length=steps, unroll=unroll)[0]

    return run


@pytest.mark.parametrize("steps", [1, 3, full(7), full(30)])
def test_a_scan_is_its_steps_one_after_another(steps):
    """The input's read is the same in every step, and taken once unless products are not merged."""
    expected = {"u": (1, 0), "w": (steps, 0)}, steps
    assert counted(unrolled(steps), W, X, H) == counted(scanned(steps), W, X, H) == expected
    each = {"u": (steps, 0), "w": (steps, 0)}, steps
    assert counted(unrolled(steps), W, X, H, merge=False) == counted(scanned(steps), W, X, H, merge=False) == each


def test_a_scan_may_be_written_in_other_ways():
    expected = counted(scanned(6), W, X, H)
    assert counted(scanned(6, unroll=4), W, X, H) == expected
    assert counted(jax.jit(scanned(6)), W, X, H) == expected
    assert counted(jax.checkpoint(scanned(6)), W, X, H) == expected

    def nested(weights, x, h):
        inner = scanned(2)
        return jax.lax.scan(lambda h, _: (inner(weights, x, h), None), h, length=3)[0]

    assert counted(nested, W, X, H) == expected


@pytest.mark.parametrize("longest", [4, 9])
def test_a_long_loop_is_counted_by_some_of_its_turns(longest, monkeypatch):
    exact = counted(scanned(40), W, X, H), counted(scanned(40), W, X, H, merge=False)
    monkeypatch.setattr(_flow, "LONGEST", longest)
    assert (counted(scanned(40), W, X, H), counted(scanned(40), W, X, H, merge=False)) == exact


def test_sequences_are_read_step_by_step():
    def network(weights, x, h):
        def step(h, row):
            h = jnp.tanh(weights["w"] @ h + weights["u"] @ row)
            return h, h

        return jnp.sum(jax.lax.scan(step, h, x, reverse=True)[1], axis=0)

    assert counted(network, W, jnp.ones((5, 3)), H) == ({"u": (5, 0), "w": (5, 0)}, 5)


def test_what_the_result_does_not_need_costs_nothing():
    """A loop carries a record of energies and the activities; only the latter lead to the result."""

    def network(weights, x, h):
        def step(carry, _):
            h, energy = carry
            energy = energy + jnp.sum(jnp.square(h - weights["u"] @ (x + energy)))
            return (jnp.tanh(weights["w"] @ h), energy), jnp.sum(weights["u"] @ h[:3])

        (h, energy), trace = jax.lax.scan(step, (h, 0.0), length=5)
        return h, energy, trace

    assert counted(network, W, X, H) == ({"w": (5, 0)}, 5)


def test_a_carry_is_needed_through_other_carries():
    """The result is the third carry, which is the second of the turn before, which is the first of the one before."""

    def network(weights, x, h):
        def step(carry, _):
            a, b, _ = carry
            return (jnp.tanh(weights["w"] @ a), a, b), None

        return jax.lax.scan(step, (h, h, h), length=6)[0][2] + weights["u"] @ x

    # The whole body runs in every turn, but the chain to the result passes only four.
    assert counted(network, W, X, H) == ({"u": (1, 0), "w": (6, 0)}, 4)


def test_the_same_product_is_read_once():
    def network(weights, x, h):
        first = jax.jit(lambda w, v: w @ v)(weights["u"], x)
        second = jax.lax.scan(lambda c, _: (c + weights["u"] @ x, None), h, length=3)[0]
        return first + second + jax.vmap(lambda v: weights["u"] @ v)(x[None])[0] + weights["u"] @ (2 * x)

    reads, depth = counted(network, W, X, H)
    assert (reads, depth) == ({"u": (3, 0)}, 1)  # x, x as a batch of one, and 2x
    assert counted(network, W, X, H, merge=False) == ({"u": (1 + 3 + 1 + 1, 0)}, 1)


@pytest.mark.parametrize(
    "product",
    [
        lambda w, x: w @ x,
        lambda w, x: x @ w.T,
        lambda w, x: jnp.einsum("oi,i->o", w, x),
        lambda w, x: jnp.tensordot(x, 0.5 * w, axes=(0, 1)),
        lambda w, x: jnp.sum(w * x[None], axis=1),
        lambda w, x: 3.0 * (w / 3.0) @ x,
        lambda w, x: (w.reshape(2, 2, 3) @ x).reshape(-1),
        lambda w, x: jnp.flip(jnp.flip(w, 0) @ x),
        lambda w, x: (w.astype(jnp.float16) @ x.astype(jnp.float16)).astype(jnp.float32),
        lambda w, x: jnp.concatenate([w[:2] @ x, w[2:] @ x]),
        lambda w, x: jnp.where(jnp.arange(4)[:, None] > 1, w, 0.0) @ x,
        lambda w, x: jax.lax.cond(x[0] > 0, lambda: w @ x, lambda: jnp.zeros(4)),
        lambda w, x: jax.lax.dot_general(w, x, (((1,), (0,)), ((), ()))),
    ],
)
def test_a_product_is_found_however_it_is_written(product):
    def network(weights, x):
        return product(weights["u"], x)

    (read, transposed), depth = counted(network, W, X)[0]["u"], counted(network, W, X)[1]
    halves = 2 if "concatenate" in product.__code__.co_names else 1
    assert (read, transposed, depth) == (halves, 0, 1)


def test_the_other_direction_is_transposed():
    """Whatever the model sums over is forward: here the first axis."""

    def network(weights, x):
        h = x @ weights["m"] + jnp.tanh(x) @ weights["m"]
        return weights["m"] @ h

    assert counted(network, {"m": jnp.ones((3, 5))}, X) == ({"m": (2, 1)}, 2)


@pytest.mark.parametrize("batch", [1, 6])
def test_an_example_of_a_batch_is_one_vector(batch):
    def network(weights, x):
        return jax.vmap(lambda v: weights["w"] @ jnp.tanh(weights["u"] @ v))(x)

    assert counted(network, W, jnp.ones((batch, 3))) == ({"u": (batch, 0), "w": (batch, 0)}, 2)


def test_stacked_weights_are_arrays_of_their_own():
    def network(weights, x):
        return jax.lax.scan(lambda h, w: (jnp.tanh(w @ h), None), x, weights["stack"])[0]

    closed = jax.make_jaxpr(network)({"stack": jnp.ones((5, 3, 3))}, X)
    forward, macs = forward_pass(closed, ["stack", None])
    found = count(closed, ["stack", None], ["result"], forward)
    assert [(use.name, use.forward) for use in found.uses] == [(f"stack[{i}]", 1) for i in range(5)]
    assert (found.depth, macs) == (5, 5 * 9)


def test_a_branch_counts_as_the_dearer_one():
    def network(weights, x, h):
        cheap, dear = lambda: weights["w"] @ h, lambda: jnp.tanh(weights["w"] @ (weights["w"] @ h))
        return jax.lax.cond(x[0] > 0, cheap, dear) + jax.lax.cond(x[1] > 0, dear, cheap)

    assert counted(network, W, X, H) == ({"w": (2, 0)}, 2)
    assert counted(network, W, X, H, merge=False) == ({"w": (4, 0)}, 2)


def test_a_weight_that_a_loop_changes_is_still_that_array():
    """Also in a branch, which is tried and taken back before the dearer one is taken: its products count once."""

    def learn(weights, x, h):
        def step(carry, _):
            w, h = carry
            h = jnp.tanh(w @ h)
            return (0.9 * w + jnp.outer(h, h), h), None

        return jax.lax.scan(step, (weights["w"], h), length=3)[0]

    def network(weights, x, h):
        w, h = jax.lax.cond(x[0] > 0, lambda: learn(weights, x, h), lambda: (weights["w"], h))
        return w @ h

    closed = jax.make_jaxpr(network)(W, X, H)
    names = ["u", "w", None, None]
    (use,) = count(closed, names, ["result"], forward_pass(closed, names)[0]).uses
    assert (use.path, use.forward, use.transposed, use.outer) == ("w", 3 + 1, 0, 3)


def test_a_loop_of_unknown_length_is_refused_or_weighed():
    def network(weights, x, h):
        return jax.lax.while_loop(lambda h: jnp.sum(h) < x[0], lambda h: jnp.tanh(weights["w"] @ h), h)

    with pytest.raises(UnknownTurns, match=r"expected loops of known length, got a while.*; give the turns"):
        counted(network, W, X, H)
    assert counted(network, W, X, H, turns=4) == ({"w": (4, 0)}, 4)


def test_a_loop_without_products_may_be_of_any_length():
    def network(weights, x, h):
        grown = jax.lax.while_loop(lambda h: jnp.sum(h) < x[0], lambda h: 2 * h, weights["w"] @ h)
        return weights["w"] @ grown

    assert counted(network, W, X, H) == ({"w": (2, 0)}, 2)


def test_custom_derivatives_are_followed():
    @jax.custom_vjp
    def layer(w, x):
        return w @ x

    layer.defvjp(lambda w, x: (w @ x, (w, x)), lambda kept, e: (jnp.outer(e, kept[1]), kept[0].T @ e))

    def errors(weights, x):
        return jax.grad(lambda x: jnp.sum(jnp.tanh(layer(weights["u"], x))))(x)

    assert counted(errors, W, X) == ({"u": (1, 1)}, 2)
    assert counted(lambda weights, x: layer(weights["u"], x), W, X) == ({"u": (1, 0)}, 1)


@pytest.mark.parametrize(
    ("stride", "padding", "out"), [(1, "VALID", 4 * 4), (2, "VALID", 2 * 2), (1, "SAME", 6 * 6), (2, "SAME", 3 * 3)]
)
def test_a_convolution_reads_once_for_each_position_of_its_result(stride, padding, out):
    """Forward a patch for each, transposed the errors of each."""

    def convolve(weights, x):
        return jax.lax.conv_general_dilated(x, weights["k"], (stride, stride), padding)

    def errors(weights, x):
        return jax.grad(lambda x: jnp.sum(jnp.tanh(convolve(weights, x))))(x)

    kernel, x = {"k": jnp.ones((5, 2, 3, 3))}, jnp.ones((7, 2, 6, 6))
    assert counted(convolve, kernel, x) == ({"k": (7 * out, 0)}, 1)
    assert counted(errors, kernel, x) == ({"k": (7 * out, 7 * out)}, 2)
