"""Dynamic inversion: a controller finds what the layer below would have to do for the error to vanish."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from vicinal._numbers import check, number, optional_number
from vicinal.credit import Credit, Info
from vicinal.graph import OUTPUT, Graph, Values
from vicinal.losses import Loss, check_loss, loss_and_error, softmax_cross_entropy
from vicinal.rules.base import Rule, State
from vicinal.rules.inversion import Dynamic, Inversion, LoopFeedback, MinusTranspose, Refuse, Stability
from vicinal.rules.inversion._chain import Chain, Loop, loops, name_of
from vicinal.rules.inversion._eigenvalues import LoopMatrices, checked


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
    transpose and is not learned; the way down reads `W` only forwards. Which loops are stable is said in
    `vicinal.rules.inversion.Stability`.

    The graph must be a chain: each vertex reaches one child, which reads it alone, through one product with a weight.
    Where that is a product with a vector, it is inverted; what is below and above it (activations, pooling) errors pass
    transposed. Convolutions are not inverted: errors come back through their transposed maps, weights included.

    `Info.result` is the worst over all loops: converged where the units below rest, diverged where a loop moves faster
    at the end than at the beginning. Only `init` refuses unstable loops. Where training makes one unstable, the example
    is a failure of inference, and training continues with what the loop came to;
    `vicinal.analysis.loop_stability(rule, graph, model, state)` names the loop.

    Args:
        inversion: How a loop is inverted (`vicinal.rules.inversion`): `Dynamic(...)`, by the equations above; or, as
            references that no neuron could compute, `ClosedForm()` (NDI), where the controller comes to rest, and
            `PseudoInverse()` (PBP), `v = W^+ e`, without feedback.
        feedback: What `B` is at first, as the rule's state: `MinusTranspose()` of the first weights, or `Uniform(...)`.
        stability: What is done about loops that are unstable: `Refuse()` them, `Allow()` them, or `Stabilise(...)`
            them by a change of `B`.
        single_loop: False for one controller in each layer. True (SDI) for one controller over all dense layers that
            follow each other: the error drives the uppermost controller alone, `B` goes down to the lowest vertex, and
            the vertices between hold what the forward copy makes of `f(v)` there.
        leak: Of the controller, at least 0.
        step_size: Of Euler's method, in time constants of the units below.
        clip: The largest norm of a vertex's error in an example, and so of what is passed to the loops below; the
            output's error is not clipped. None for no limit.
        loss: Loss of one example, `loss(output, target) -> scalar`.

    Raises:
        TypeError: If a strategy is of another kind.
        ValueError: If a setting is out of its range, the graph is no chain, a loop is unstable, or has no closed form.

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

    *Differs from the paper*: `tolerance` stops before 1000 steps. Repair takes Euler's steps into account, too. The
    single loop's forward copy settles at once, and does not divide by derivatives. It agrees with the layers' own
    loops, without a leak and at linear vertices, where every weight of the loop is square, or its `B` is
    `B1 (W1 B1)^-1 B2` of theirs; elsewhere both invert, but not alike, as a wide layer has many right inverses. An
    error is multiplied by a derivative once (the published code does so twice in places).
    """

    local: ClassVar[bool] = True
    holds_errors: ClassVar[bool] = True

    inversion: Inversion = eqx.field(default_factory=Dynamic)
    feedback: LoopFeedback = MinusTranspose()
    stability: Stability = Refuse()
    single_loop: bool = eqx.field(static=True, default=False)
    leak: Float[Array, ""] = eqx.field(converter=number, default=0.01)
    step_size: Float[Array, ""] = eqx.field(converter=number, default=0.5)
    clip: Float[Array, ""] | None = eqx.field(converter=optional_number, default=None)
    loss: Loss = eqx.field(static=True, default=softmax_cross_entropy)

    def __check_init__(self):
        kinds = {"inversion": Inversion, "feedback": LoopFeedback, "stability": Stability}
        for name, kind in kinds.items():
            if not isinstance(given := getattr(self, name), kind):
                raise TypeError(f"expected {name} as a strategy of vicinal.rules.inversion, got {given!r}")
        if not isinstance(self.single_loop, bool):
            raise ValueError(f"expected single_loop as True or False, got {self.single_loop!r}")
        check("the leak", self.leak, lambda v: v >= 0, "of at least 0")
        check("the step size", self.step_size, lambda v: v > 0, "above 0")
        check("clip", self.clip, lambda v: v > 0, "above 0")
        check_loss(self.loss)

    def init(self, graph: Graph, model: PyTree, *, key: PRNGKeyArray | None = None) -> State:
        """Returns `B` of each loop, `[units below, units above]`, by its lowest vertex; `()` without feedback.

        Raises:
            ValueError: If the graph is no chain, feedback is to be drawn and there is no key, or a loop is unstable,
                not finite or without its closed form (loops of traced weights are not checked).
        """
        found = loops(graph, self.single_loop)
        if not self.inversion.has_feedback:
            return ()
        chain, state = Chain.of_weights(graph, model), {}
        for i, links in enumerate(found):
            own_key = None if key is None else jax.random.fold_in(key, i)
            loop = Loop(
                chain, links, self.feedback.initial(chain.matrix(links), key=own_key), self.leak, self.step_size
            )
            loop = loop.with_feedback(self.stability.at_first(loop))
            self._check(loop)
            state[loop.name] = loop.feedback
        return state

    def credit(
        self, graph: Graph, model: PyTree, state: State, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None
    ) -> tuple[Credit, State]:
        output, values = graph.feedforward(model, x)
        loss, output_error = loss_and_error(self.loss, output, y)
        chain, linear = Chain(graph, model, x), graph.clamp(model, x).linearize(values)
        below = {loop.links[0].vertex: loop for loop in self._loops(graph, chain, state)}
        errors: Values = {OUTPUT: output_error}
        info = Info(output)
        for name in reversed(graph.vertices):
            (child,) = graph.children[name]
            if name in below:
                loop = below[name]
                found = self.inversion.invert(loop, chain.to_product(loop.links[0], values, errors[child]))
                info = _worst(info, found.result, found.steps)
                entering = loop.forward(found.rates, self.inversion.activated)
                for link, rates in zip(reversed(loop.links), entering, strict=False):
                    errors[link.vertex] = self._clipped(chain.to_vertex(link, values, rates))
            elif name not in errors:
                errors[name] = self._clipped(linear.back(child, errors[child])[name])
        if self.inversion.has_feedback:
            state = {loop.name: loop.feedback for loop in below.values()}
        return Credit(loss, values, {name: errors[name] for name in values}, output_error, info), state

    def _loops(self, graph: Graph, chain: Chain, state: State) -> list[Loop]:
        """The loops, with their feedback for an update.

        Raises:
            ValueError: If the state is not that of these loops.
        """
        found = loops(graph, self.single_loop)
        if not self.inversion.has_feedback:
            return [Loop(chain, links, None, self.leak, self.step_size) for links in found]
        names = sorted(map(name_of, found))
        if not isinstance(state, dict) or sorted(state) != names:
            got = f"that of {', '.join(sorted(state)) or 'none'}" if isinstance(state, dict) else repr(state)
            raise ValueError(
                f"expected the feedback of {', '.join(names)} as state, got {got}; "
                "take what rule.init returns for this graph"
            )
        held = [Loop(chain, links, state[name_of(links)], self.leak, self.step_size) for links in found]
        return [loop.with_feedback(self.stability.before_update(loop)) for loop in held]

    def _check(self, loop: Loop) -> None:
        """Raises ValueError where a loop cannot do what it is for; a loop of traced numbers is not checked."""
        weight, feedback, leak, step_size = loop.matrix(), loop.feedback, self.leak, self.step_size
        if any(isinstance(item, jax.core.Tracer) for item in (weight, feedback, leak, step_size)):
            return
        matrices = checked(weight, feedback, name=loop.name)
        self.inversion.check(LoopMatrices(loop.name, *matrices, float(leak), float(step_size)), self.stability)

    def _clipped(self, error: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        if self.clip is None:
            return error
        flat = error.reshape(error.shape[0], -1)
        norm = jnp.sqrt(jnp.sum(jnp.square(flat), axis=1, keepdims=True))
        largest = self.clip.astype(error.dtype)
        return (flat * jnp.where(norm > largest, largest / norm, jnp.ones_like(norm))).reshape(error.shape)


def _worst(info: Info, result: Array | None, steps: Array | None) -> Info:
    """What the rule saw, with one more loop: the worst result, which has the largest code, and the sum of steps."""
    if result is None or steps is None:
        return info
    if info.result is not None and info.steps is not None:
        result, steps = jnp.maximum(info.result, result), info.steps + steps
    return Info(info.output, result, steps)
