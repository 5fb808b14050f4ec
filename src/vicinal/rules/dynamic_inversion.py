"""Dynamic inversion: a controller finds what the layer below would have to do for the error to vanish."""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from vicinal._numbers import check, check_count, number, optional_number
from vicinal.credit import Credit, Info
from vicinal.graph import OUTPUT, Graph, Values
from vicinal.inference import Result
from vicinal.losses import Loss, check_loss, loss_and_error, softmax_cross_entropy
from vicinal.rules._inversion import Chain, Loop, loops, name_of, weights
from vicinal.rules._stability import checked, closed_form, eigenvalues, grows, longest_step, repaired, worst
from vicinal.rules.base import Rule, State

_BENDS: dict[str, Callable[[Array], Array]] = {"identity": lambda rate: rate, "tanh": jnp.tanh}
_CHOICES = {
    "method": ("dynamic", "closed-form", "pseudo"),
    "loop": ("layer", "single"),
    "feedback": ("transpose", "random", "stabilised"),
    "nonlinearity": tuple(_BENDS),
}


class DynamicInversion(Rule):
    """Dynamic inversion (DI): the forward weights, in a loop with fixed feedback, invert themselves.

        value_l = prediction_l                                       (feedforward)
        error_L = -dLoss/d output

    and from the output down, with `e` the error at a layer's product `W a` of the weight and the activity `a` below:

        du/dt = W f(v) - leak u - e                                  controller, beside the units above; from 0
        dv/dt = -v + B u                                             the units below; from 0
        error of the vertex = (da/dvalue)^T v                        `phi'(value) v` at a potential, `v` at a rate

    by Euler's method. Where this comes to rest with `f` the identity and `W B` invertible,

        v = B (W B - leak)^-1 e

    so that without a leak `W v = e` for any `B` with which the loop is stable: the right inverse. For `B = -W^T` it is
    `W^T (W W^T + leak)^-1 e`, what Levenberg and Marquardt's method asks of the layer below. `B` need not resemble the
    transpose and is not learned; the way down reads `W` only forwards.

    The loop is stable if all eigenvalues of `[[-1, B], [W, -leak]]` have real parts below 0, and Euler's method if
    `|1 + step_size eigenvalue| < 1` for all. `B = -W^T` is stable if there is a leak or `W` has full row rank; a random
    `B` seldom is. Where a layer has more units above than below, and no leak, `u` drifts without end and `v` does not;
    nor where the layers of a single loop narrow between, of which the closed form then needs a leak.

    The graph must be a chain: each vertex reaches one child, which reads it alone, through one product with a weight.
    Where that is a product with a vector, it is inverted; what is below and above it (activations, pooling) errors pass
    transposed. Convolutions are not inverted: errors come back through their transposed maps, weights included.

    `Info.result` is the worst over all loops: converged where the units below rest, diverged where a loop moves faster
    at the end than at the beginning. Only `init` refuses unstable loops. Where training makes one unstable, the example
    is a failure of inference, and training goes on with what the loop came to;
    `vicinal.analysis.loop_stability(rule, graph, model, state)` names the loop.

    Args:
        method: `"dynamic"`; or, as references that no neuron could compute, `"closed-form"` (NDI), where the controller
            comes to rest, and `"pseudo"` (PBP), `v = W^+ e`, without feedback.
        loop: `"layer"`, one controller for each layer; or `"single"` (SDI), one for all dense layers that follow each
            other: the error drives the uppermost controller alone, `B` goes down to the lowest vertex, and the vertices
            between hold what the forward copy makes of `f(v)` there.
        leak: Of the controller, at least 0.
        step_size: Of Euler's method, in time constants of the units below.
        steps: Steps at most.
        tolerance: An example stops when `dv/dt` and `B du/dt`, what may yet move `v`, are together below this part of
            `B e`; None takes all steps.
        nonlinearity: `f`, `"identity"` or `"tanh"`.
        feedback: What `B` is at first, as the rule's state: `"transpose"`, `-W^T` of the first weights; `"random"`,
            uniform in `±feedback_scale`; `"stabilised"`, that and then changed until the loop is stable.
        feedback_scale: Of feedback that is drawn; None for .5.
        repair: Whether `B` is changed, by `vicinal.analysis.stabilise`, whenever weights have made a loop unstable, or
            nearly so. It is looked at, on the host, at first and before every update; for small loops, as the
            eigenvalues of one with 400 units on both sides take some tenths of a second. Else `B` is fixed.
        clip: The largest norm of a vertex's error in an example, and so of what goes on to the loops below; the
            output's is left as it is. None for any.
        allow_unstable: Whether `init` lets a loop pass that is not stable.
        loss: Loss of one example, `loss(output, target) -> scalar`.

    Raises:
        ValueError: If a setting is unknown, out of its range or not read, the graph is no chain, a loop is unstable, or
            has no closed form.

    Example:
        >>> import jax, jax.numpy as jnp, vicinal as vc
        >>> model, x, y = vc.nn.MLP((3, 5, 4, 2), key=jax.random.key(0)), jnp.ones((5, 3)), jnp.zeros(5, int)
        >>> graph, rule = vc.capture(model, x[0]), vc.rules.DynamicInversion()
        >>> state = rule.init(graph, model)
        >>> {name: feedback.shape for name, feedback in state.items()}
        {'hidden2': (4, 2), 'hidden1': (5, 4)}
        >>> _, gradient, _, info = rule.value_and_grad(graph, model, state, x, y)
        >>> vc.inference.Result(int(info.result[0])).name
        'CONVERGED'

    References:
        Podlaski and Machens, Biological credit assignment through dynamic inversion of feedforward networks, NeurIPS
        2020, arXiv 2007.05112.

    *Differs from the paper*: `tolerance` stops before 1000 steps. Repair sees to Euler's steps, too. The single loop's
    forward copy settles at once, and does not divide by derivatives. It agrees with the layers' own loops, without a
    leak and at linear vertices, where every weight of the loop is square, or its `B` is `B1 (W1 B1)^-1 B2` of theirs;
    elsewhere both invert, but not alike, as a wide layer has many right inverses. An error is multiplied by a
    derivative once (the published code does so twice in places).
    """

    local: ClassVar[bool] = True
    holds_errors: ClassVar[bool] = True

    method: Literal["dynamic", "closed-form", "pseudo"] = eqx.field(static=True, default="dynamic")
    loop: Literal["layer", "single"] = eqx.field(static=True, default="layer")
    leak: Float[Array, ""] = eqx.field(converter=number, default=0.01)
    step_size: Float[Array, ""] = eqx.field(converter=number, default=0.5)
    steps: int = eqx.field(static=True, default=1000)
    tolerance: Float[Array, ""] | None = eqx.field(converter=optional_number, default=1e-4)
    nonlinearity: Literal["identity", "tanh"] = eqx.field(static=True, default="identity")
    feedback: Literal["transpose", "random", "stabilised"] = eqx.field(static=True, default="transpose")
    feedback_scale: Float[Array, ""] | None = eqx.field(converter=optional_number, default=None)
    repair: bool = eqx.field(static=True, default=False)
    clip: Float[Array, ""] | None = eqx.field(converter=optional_number, default=None)
    allow_unstable: bool = eqx.field(static=True, default=False)
    loss: Loss = eqx.field(static=True, default=softmax_cross_entropy)

    def __check_init__(self):
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"expected {name} as one of {', '.join(choices)}, got {getattr(self, name)!r}")
        for name in ("repair", "allow_unstable"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"expected {name} as True or False, got {getattr(self, name)!r}")
        if self.method != "dynamic" and self.nonlinearity != "identity":
            raise ValueError(f"expected the nonlinearity 'identity' with method {self.method!r}, which is linear")
        check_count("steps", self.steps, 1)
        check("the leak", self.leak, lambda v: v >= 0, "of at least 0")
        check("the step size", self.step_size, lambda v: v > 0, "above 0")
        check("the tolerance", self.tolerance, lambda v: v > 0, "above 0")
        check("the scale of the feedback", self.feedback_scale, lambda v: v >= 0, "of at least 0")
        if self.feedback_scale is not None and self.feedback == "transpose":
            raise ValueError("expected no feedback_scale with feedback 'transpose', which is not drawn; leave it out")
        check("clip", self.clip, lambda v: v > 0, "above 0")
        check_loss(self.loss)

    def init(self, graph: Graph, model: PyTree, *, key: PRNGKeyArray | None = None) -> State:
        """Returns `B` of each loop, `[units below, units above]`, by its lowest vertex; `()` with method `"pseudo"`.

        Raises:
            ValueError: If the graph is no chain, feedback is to be drawn and there is no key, or a loop is unstable,
                not finite or without its closed form (which cannot be seen, and passes, where weights are traced).
        """
        forward = weights(graph, model, self.loop == "single")
        if self.method == "pseudo":
            return ()
        if self.feedback != "transpose" and key is None:
            raise ValueError("expected a key to draw the feedback with, got none; rule.init(graph, model, key=key)")
        state, scale = {}, number(0.5) if self.feedback_scale is None else self.feedback_scale
        for i, (name, weight) in enumerate(forward.items()):
            back = -weight.T
            if self.feedback != "transpose" and key is not None:
                drawn = jax.random.uniform(jax.random.fold_in(key, i), back.shape, back.dtype, -1.0)
                back = scale.astype(back.dtype) * drawn
            state[name] = self._repaired(weight, back) if self.repair or self.feedback == "stabilised" else back
            self._check_loop(name, weight, state[name])
        return state

    def credit(
        self, graph: Graph, model: PyTree, state: State, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None
    ) -> tuple[Credit, State]:
        output, values = graph.feedforward(model, x)
        loss, output_error = loss_and_error(self.loss, output, y)
        chain, linear = Chain(graph, model, x), graph.clamp(model, x).linearize(values)
        below = {loop[0].vertex: loop for loop in loops(graph, self.loop == "single")}
        state = self._kept(state, {name_of(loop): loop for loop in below.values()}, chain)
        errors: Values = {OUTPUT: output_error}
        info = Info(output)
        for name in reversed(graph.vertices):
            (child,) = graph.children[name]
            if name in below:
                loop = below[name]
                rates, info = self._invert(chain, loop, state, chain.to_product(loop[0], values, errors[child]), info)
                for link, rate in zip(reversed(loop), chain.forward(loop, rates, self._bend), strict=False):
                    errors[link.vertex] = self._clipped(chain.to_vertex(link, values, rate))
            elif name not in errors:
                errors[name] = self._clipped(linear.back(child, errors[child])[name])
        return Credit(loss, values, {name: errors[name] for name in values}, output_error, info), state

    # --------------------------------------------------------------------------------------------------- one loop

    @property
    def _bend(self) -> Callable[[Array], Array]:
        return _BENDS[self.nonlinearity]

    def _invert(
        self, chain: Chain, loop: Loop, state: State, error: Float[Array, "batch up"], info: Info
    ) -> tuple[Float[Array, "batch down"], Info]:
        """What the units below come to hold; and how that went, beside the loops before."""
        if self.method == "pseudo":
            return error @ jnp.linalg.pinv(chain.matrix(loop)).T, info
        back = state[name_of(loop)]
        if self.method == "closed-form":
            return closed_form(chain.matrix(loop), back, self.leak.astype(error.dtype), error), info
        rates, result, steps = self._settle(lambda v: chain.forward(loop, v, self._bend)[-1], back, error)
        if info.result is not None and info.steps is not None:
            result, steps = jnp.maximum(info.result, result), info.steps + steps  # the worst code is the largest
        return rates, Info(info.output, result, steps)

    def _settle(
        self, forward: Callable[[Array], Array], back: Float[Array, "down up"], error: Float[Array, "batch up"]
    ) -> tuple[Float[Array, "batch down"], Int[Array, " batch"], Int[Array, " batch"]]:
        leak, step_size = self.leak.astype(error.dtype), self.step_size.astype(error.dtype)

        def velocity(u: Array, v: Array) -> tuple[Array, Array]:
            return forward(v) - leak * u - error, u @ back.T - v

        def speed(du: Array, dv: Array) -> Float[Array, " batch"]:
            return jnp.sqrt(jnp.sum(jnp.square(du), axis=1) + jnp.sum(jnp.square(dv), axis=1))

        def restless(du: Array, dv: Array) -> Float[Array, " batch"]:
            return speed(du @ back.T, dv)  # a controller that drifts beside what `B` sends down moves nothing below

        nothing = jnp.zeros((error.shape[0], 0), error.dtype)
        start = speed(error, nothing)
        tolerance = None if self.tolerance is None else self.tolerance.astype(error.dtype) * restless(error, nothing)

        def step(carry: Any) -> Any:
            t, u, v, moving, steps = carry
            du, dv = velocity(u, v)
            now = restless(du, dv)
            if tolerance is not None:
                moving = moving & (now > tolerance) & jnp.isfinite(now)
            u, v = (jnp.where(moving[:, None], held + step_size * change, held) for held, change in ((u, du), (v, dv)))
            return t + 1, u, v, moving, steps + moving.astype(jnp.int32)

        batch, (down, up) = error.shape[0], back.shape
        zeros = jnp.zeros((batch, up), error.dtype), jnp.zeros((batch, down), error.dtype)
        carry = (jnp.int32(0), *zeros, jnp.ones(batch, bool), jnp.zeros(batch, jnp.int32))
        _, u, v, _, steps = jax.lax.while_loop(lambda carry: (carry[0] < self.steps) & jnp.any(carry[3]), step, carry)
        du, dv = velocity(u, v)
        end = speed(du, dv)
        code = jnp.full(batch, Result.STEP_LIMIT, jnp.int32)
        if tolerance is not None:
            code = jnp.where(restless(du, dv) <= tolerance, jnp.int32(Result.CONVERGED), code)
        rounding = 1 + 64 * jnp.finfo(end.dtype).eps
        code = jnp.where(end > rounding * start, jnp.int32(Result.DIVERGED), code)
        return v, jnp.where(jnp.isfinite(end), code, jnp.int32(Result.NON_FINITE)), steps

    def _clipped(self, error: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        if self.clip is None:
            return error
        flat = error.reshape(error.shape[0], -1)
        norm = jnp.sqrt(jnp.sum(jnp.square(flat), axis=1, keepdims=True))
        largest = self.clip.astype(error.dtype)
        return (flat * jnp.where(norm > largest, largest / norm, jnp.ones_like(norm))).reshape(error.shape)

    # --------------------------------------------------------------------------------------------------- feedback

    def _kept(self, state: State, named: dict[str, Loop], chain: Chain) -> State:
        """The feedback, repaired if it is to be."""
        if self.method == "pseudo":
            return state
        if not isinstance(state, dict) or set(state) != set(named):
            got = f"that of {', '.join(sorted(state)) or 'none'}" if isinstance(state, dict) else repr(state)
            raise ValueError(
                f"expected the feedback of {', '.join(sorted(named))} as state, got {got}; "
                "take what rule.init returns for this graph"
            )
        if not self.repair:
            return state
        return {name: self._repaired(chain.matrix(named[name]), back) for name, back in state.items()}

    def _repaired(self, weight: Float[Array, "up down"], back: Float[Array, "down up"]) -> Float[Array, "down up"]:
        return repaired(weight, back, self.leak, self.step_size)

    def _check_loop(self, name: str, weight: Array, back: Array) -> None:
        """Raises ValueError where a loop cannot do what it is for; what is traced cannot be looked at, and passes."""
        if any(isinstance(item, jax.core.Tracer) for item in (weight, back, self.leak, self.step_size)):
            return
        leak, step_size, (matrix, feedback) = float(self.leak), float(self.step_size), checked(weight, back, name=name)
        if self.method == "closed-form":
            least = min(matrix.shape)
            if leak == 0 and np.linalg.matrix_rank(matrix @ feedback) < least:
                raise ValueError(
                    f"expected a leak above 0 at vertex {name!r} with method 'closed-form', got 0: the product of its "
                    f"weights and feedback has a rank below {least}, and no inverse"
                )
            return
        found = eigenvalues(matrix, feedback, leak)
        if self.allow_unstable or not grows(found, step_size):
            return
        value, growth = worst(found, step_size)
        if (longest := longest_step(found)) > 0:
            advice = f"a step_size below {longest:.3g}"
        elif self.feedback == "stabilised" or self.repair:
            advice = "a larger leak (its feedback was changed already, and to no avail)"
        else:
            advice = "feedback='stabilised' or 'transpose'"
        raise ValueError(
            f"expected a stable loop at vertex {name!r}, got the eigenvalue {value:.3g}, by which what is wrong grows "
            f"by {100 * step_size * growth:.2g} % in each step of {step_size:g}; take {advice}, or allow_unstable=True"
        )
