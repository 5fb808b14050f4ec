"""Dynamic inversion during training: stability of its loops, angles of feedback and errors to their references."""

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, PyTree

from vicinal.analysis.angles import angle
from vicinal.analysis.feedback import error_angles
from vicinal.graph import Graph, Values
from vicinal.rules import DynamicInversion
from vicinal.rules.base import State
from vicinal.rules.inversion import ClosedForm, Inversion, PseudoInverse, Refuse
from vicinal.rules.inversion._abscissa import (
    Smoothed as Smoothed,
    Stabilised as Stabilised,
    smoothed_abscissa as smoothed_abscissa,
    stabilise as stabilise,
)
from vicinal.rules.inversion._chain import weights
from vicinal.rules.inversion._eigenvalues import checked, eigenvalues, longest_step, worst


class LoopStability(NamedTuple):
    """How stable a loop is.

    Attributes:
        abscissa: The largest real part of its eigenvalues, per time constant; below 0 if it is stable.
        amplification: The largest of `|1 + step_size eigenvalue|`; below 1 if Euler's method is stable.
        longest_step: Euler's method is stable with steps shorter than this: the minimum of `-2 Re(m) / |m|^2` over the
            nonzero eigenvalues `m`; 0 if no step size is stable.
    """

    abscissa: float
    amplification: float
    longest_step: float


class InversionAngles(eqx.Module):
    """The angles between dynamic inversion and its references, in degrees, by the names of loops and vertices.

    Attributes:
        feedback: The angle between `B` and `-W^T` of each loop.
        closed_form: The angle between the error of each vertex and the rest state of the controllers; the mean over
            examples.
        pseudo: The angle between the error of each vertex and that of pseudo-backpropagation; the mean over examples.
    """

    feedback: dict[str, Float[Array, ""]]
    closed_form: dict[str, Float[Array, ""]]
    pseudo: dict[str, Float[Array, ""]]


def loop_eigenvalues(
    rule: DynamicInversion, graph: Graph, model: PyTree, state: State
) -> dict[str, Complex[np.ndarray, " units"]]:
    """The eigenvalues of each loop, those of `[[-1, B], [W, -leak]]`, in no particular order.

    Args:
        rule: The rule.
        graph: The captured graph, a chain.
        model: The model.
        state: The rule's state, with `B` of each loop.

    Returns:
        One eigenvalue per unit of each loop, by the loop's lowest vertex.

    Raises:
        ValueError: If the state has no feedback for this graph, or a loop has a non-finite number.

    Example:
        >>> import jax, jax.numpy as jnp, vicinal as vc
        >>> model, rule = vc.nn.MLP((3, 5, 2), key=jax.random.key(0)), vc.rules.DynamicInversion()
        >>> graph = vc.capture(model, jnp.ones(3))
        >>> found = loop_eigenvalues(rule, graph, model, rule.init(graph, model))
        >>> found["hidden1"].shape, bool(found["hidden1"].real.max() < 0)
        ((7,), True)
    """
    return {
        name: eigenvalues(*checked(weight, back, name=name), float(rule.leak))
        for name, (weight, back) in _pairs(rule, graph, model, state).items()
    }


def loop_stability(rule: DynamicInversion, graph: Graph, model: PyTree, state: State) -> dict[str, LoopStability]:
    """The stability of each loop of a rule; the arguments are those of `loop_eigenvalues`.

    Example:
        >>> import jax, jax.numpy as jnp, vicinal as vc
        >>> model, rule = vc.nn.MLP((3, 5, 2), key=jax.random.key(0)), vc.rules.DynamicInversion(leak=0.0)
        >>> graph = vc.capture(model, jnp.ones(3))
        >>> state = {"hidden1": jnp.zeros((5, 2))}  # without feedback or leak, a controller only integrates
        >>> loop_stability(rule, graph, model, state)["hidden1"]
        LoopStability(abscissa=0.0, amplification=1.0, longest_step=2.0)
    """
    step_size = float(rule.step_size)
    return {
        name: LoopStability(float(np.max(found.real)), 1 + step_size * worst(found, step_size)[1], longest_step(found))
        for name, found in loop_eigenvalues(rule, graph, model, state).items()
    }


def inversion_angles(
    rule: DynamicInversion, graph: Graph, model: PyTree, state: State, x: PyTree, y: PyTree
) -> InversionAngles:
    """The angles of a rule's feedback and errors to their references; works under `jax.jit`.

    Args:
        rule: The rule.
        graph: The captured graph, a chain.
        model: The model.
        state: The rule's state, with `B` of each loop.
        x: Inputs, `[batch, ...]`.
        y: Targets, `[batch, ...]`.

    Returns:
        The angles; NaN where an error is zero or not finite.

    Raises:
        ValueError: If the state has no feedback for this graph.

    Example:
        >>> import jax, jax.numpy as jnp, vicinal as vc
        >>> model, rule = vc.nn.MLP((3, 5, 2), key=jax.random.key(0)), vc.rules.DynamicInversion(leak=0.1)
        >>> graph, x = vc.capture(model, jnp.ones(3)), jax.random.normal(jax.random.key(1), (4, 3))
        >>> found = inversion_angles(rule, graph, model, rule.init(graph, model), x, jnp.zeros(4, int))
        >>> float(found.feedback["hidden1"]), float(found.closed_form["hidden1"]) < 0.1
        (0.0, True)
        >>> bool(0 < found.pseudo["hidden1"] < 20)
        True

    References:
        Podlaski and Machens, Biological credit assignment through dynamic inversion of feedforward networks, NeurIPS
        2020, arXiv 2007.05112.
    """
    feedback = {name: angle(back, -weight.T) for name, (weight, back) in _pairs(rule, graph, model, state).items()}

    def errors(inversion: Inversion) -> Values:
        unrepaired = dataclasses.replace(rule, inversion=inversion, stability=Refuse())  # keeps the feedback
        return unrepaired.credit(graph, model, state, x, y)[0].errors

    ours = errors(rule.inversion)
    return InversionAngles(
        feedback, error_angles(ours, errors(ClosedForm())), error_angles(ours, errors(PseudoInverse()))
    )


def _pairs(rule: DynamicInversion, graph: Graph, model: PyTree, state: State) -> dict[str, tuple[Array, Array]]:
    """`W` and `B` of each loop."""
    forward = weights(graph, model, rule.single_loop)
    if not isinstance(state, dict) or set(state) != set(forward):
        raise ValueError(
            f"expected a state with the feedback of {', '.join(forward)}, got {type(state).__name__}; "
            "take what rule.init returns for this graph, with an inversion that has feedback"
        )
    return {name: (weight, jnp.asarray(state[name])) for name, weight in forward.items()}
