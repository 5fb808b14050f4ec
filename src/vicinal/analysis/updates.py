"""The effect of an update on the weights, the output and the loss."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from vicinal.analysis._parts import matrices, mean_loss, moved, norm, output_change, whole
from vicinal.analysis.angles import CONCATENATED
from vicinal.graph import Graph
from vicinal.losses import Loss
from vicinal.rules import Rule, State


def update(
    rule: Rule,
    optimizer: optax.GradientTransformation,
    graph: Graph,
    model: PyTree,
    x: PyTree,
    y: PyTree,
    *,
    key: PRNGKeyArray | None = None,
    state: State | None = None,
    optimizer_state: optax.OptState | None = None,
) -> PyTree:
    """The change of the stored parameters by one `Rule.step`, `theta+ - theta`.

    To measure a rule's own direction, without the optimiser's memory and scaling, use `optax.sgd(1.0)`: the update is
    then minus the rule's gradient.

    Args:
        rule: The rule.
        optimizer: The optimiser.
        graph: The captured graph.
        model: The model before the step.
        x: Inputs, `[batch, ...]`.
        y: Targets, `[batch, ...]`.
        key: For a rule that draws random numbers. The step gets this key; a fresh state gets
            `jax.random.fold_in(key, 1)`.
        state: The rule's state; a fresh one by default.
        optimizer_state: The optimiser's state; a fresh one by default. Adam's first step is the sign of the gradient.

    Returns:
        The change of each trained array, with the structure of a gradient; None elsewhere.

    Example:
        >>> import jax, jax.numpy as jnp, optax, vicinal as vc
        >>> model = vc.nn.Linear(2, 1, key=jax.random.key(0))
        >>> x, y = jnp.array([[3.0, 4.0]]), jnp.array([[1.0]])
        >>> rule = vc.rules.Backprop(loss=vc.losses.squared_error)
        >>> step = update(rule, optax.sgd(0.1), vc.capture(model, x[0]), model, x, y)
        >>> [round(float(leaf), 3) for leaf in step.weight[0] / step.bias]  # the input
        [3.0, 4.0]
    """
    before = graph.trainable(model)
    if state is None:
        state = rule.init(graph, model, key=None if key is None else jax.random.fold_in(key, 1))
    if optimizer_state is None:
        with jax.numpy_dtype_promotion("standard"):  # as in `Rule.step`
            optimizer_state = optimizer.init(before)
    stepped, *_ = rule.step(graph, optimizer, model, optimizer_state, state, x, y, key=key)
    return jax.tree.map(jnp.subtract, graph.trainable(stepped), before)


def norms(update: PyTree) -> dict[str, Float[Array, ""]]:
    """The Euclidean norms of an update or gradient, for each weight matrix and for the whole.

    Args:
        update: A tree with the model's structure.

    Returns:
        One norm for each array of at least two axes that is not a bias, by its path (`layers[0].weight`), then
        `"concatenated"` over all arrays, biases included; in units of the weights.

    Raises:
        ValueError: If there is no floating-point array.

    Example:
        >>> found = norms({"w": jnp.array([[3.0, 0.0]]), "bias": jnp.array([4.0])})
        >>> {name: float(value) for name, value in found.items()}
        {"['w']": 3.0, 'concatenated': 5.0}
    """
    return {name: norm(leaf) for name, leaf in matrices(update).items()} | {CONCATENATED: norm(whole(update))}


def mean_sizes(update: PyTree) -> dict[str, Float[Array, ""]]:
    """The mean magnitude `mean |dW|` of each weight matrix of an update.

    Unlike the norm, it does not grow with the number of weights, so that matrices are comparable. In inference learning
    it falls from the output to the input; Matrix Update Equalization makes it equal.

    Args:
        update: A tree with the model's structure.

    Returns:
        The mean magnitude for each array of at least two axes that is not a bias, by its path.

    Example:
        >>> mean_sizes({"w": jnp.array([[3.0, -1.0]]), "bias": jnp.array([4.0])})["['w']"].item()
        2.0

    References:
        Alonso, Krichmar and Neftci, Understanding and improving optimization in predictive coding networks,
        AAAI 2024, arXiv 2305.13562.
    """
    return {name: jnp.mean(jnp.abs(leaf)) for name, leaf in matrices(update).items()}


class FunctionChange(eqx.Module):
    """The change of weights, output and loss by an update.

    The ratios are NaN if the weights do not change.

    Attributes:
        output_change: `||h_L(theta + u) - h_L(theta)||` of each example, `[batch]`.
        loss_change: The change of the mean loss; below 0 if the update helps.
        weight_change: `||u||` over all parameters.
    """

    output_change: Float[Array, " batch"]
    loss_change: Float[Array, ""]
    weight_change: Float[Array, ""]

    @property
    def output_ratio(self) -> Float[Array, ""]:
        """The mean change of the output over the examples, per unit of weight change."""
        return jnp.mean(self.output_change) / self.weight_change.astype(self.output_change.dtype)

    @property
    def loss_ratio(self) -> Float[Array, ""]:
        """The decrease of the mean loss per unit of weight change; for a small gradient step, the gradient's norm."""
        return -self.loss_change / self.weight_change.astype(self.loss_change.dtype)


def function_change(graph: Graph, model: PyTree, update: PyTree, x: PyTree, y: PyTree, *, loss: Loss) -> FunctionChange:
    """Measures how far an update moves the output, the loss and the weights.

    Args:
        graph: The captured graph.
        model: The model before the update.
        update: The change of its parameters, with the structure of a gradient.
        x: Inputs, `[batch, ...]`; those of the update or others.
        y: Targets, `[batch, ...]`.
        loss: Loss of one example.

    Returns:
        The changes; their ratios are properties.

    Raises:
        ValueError: If the update does not have the model's structure.

    Example:
        >>> import jax, vicinal as vc
        >>> model = vc.nn.Linear(2, 1, use_bias=False, key=jax.random.key(0))
        >>> x, y, step = jnp.array([[3.0, 4.0]]), jnp.zeros((1, 1)), jax.tree.map(jnp.ones_like, model)
        >>> found = function_change(vc.capture(model, x[0]), model, step, x, y, loss=vc.losses.squared_error)
        >>> round(float(found.output_ratio), 4)  # 7 / sqrt(2)
        4.9497
    """
    after = moved(graph, model, update)
    change = output_change(graph, model, update, x)
    return FunctionChange(
        jax.vmap(norm)(change),
        mean_loss(graph, after, x, y, loss) - mean_loss(graph, model, x, y, loss),
        norm(whole(update)),
    )
