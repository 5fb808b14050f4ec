"""For `Graph`: a traced program that can be cut into parts."""

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
from jax.extend import core
from jaxtyping import Array, Float, PyTree

from vicinal._activations import entered, shape_and_type, without_derivatives
from vicinal._convolutions import canonical
from vicinal._masking import Masked, check_masks, split_masked
from vicinal._primitive import OUTPUT, vertex_p
from vicinal._show import names_text
from vicinal._statistics import is_collective, statistics_of, updates_of
from vicinal._synapses import Synapse, find_synapses
from vicinal._trace import Traced

Values = dict[str, Float[Array, "batch ..."]]
"""The value of each vertex by name, `[batch, ...]`."""


class Program:
    """The flat jaxpr of a function, and the pieces of it that a graph runs.

    Each piece is a function of groups of arrays: the model's leaves, the input's leaves, and what else it reads.
    """

    def __init__(self, traced: Traced):
        spec, closed, self.output_structure, looped = traced
        closed, masked = split_masked(closed)
        self.jaxpr, self.spec = closed.jaxpr, spec
        self._constants = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
        self._producer = {v: i for i, eqn in enumerate(closed.jaxpr.eqns) for v in eqn.outvars}
        split = len(spec.leaf_types)
        self._x = list(closed.jaxpr.invars[split:])
        self._model = list(closed.jaxpr.invars[:split])
        self._statistics = statistics_of(closed.jaxpr)
        self._given = self._model + self._statistics + self._x
        self._updates = updates_of(
            closed.jaxpr, dict(zip(self._model, spec.paths, strict=True)), self._x, self._statistics
        )
        spec.declare_state(i for i, v in enumerate(self._model) if v in self._updates)
        self._outputs = list(closed.jaxpr.outvars)
        self._laid_out = {i: eqns for i, eqn in enumerate(closed.jaxpr.eqns) if (eqns := canonical(eqn)) is not None}
        self._rests: dict[tuple[str, bool], Callable] = {}
        self._vertex_in: dict[str, Any] = {}
        self._vertex_out: dict[str, core.Var] = {}  # what a vertex holds
        self._masked: dict[str, Masked] = {}
        seen: Counter[str] = Counter()
        for eqn in closed.jaxpr.eqns:
            if eqn.primitive is vertex_p:
                name = eqn.params["name"]
                unique = f"{name}[{seen[name]}]" if name in looped else name
                seen[name] += 1
                if unique in self._vertex_out:
                    raise ValueError(
                        f"expected one vertex per name, got {unique!r} twice; rename the one outside the loop"
                    )
                self._vertex_in[unique], self._vertex_out[unique] = eqn.invars[0], eqn.outvars[0]
                if eqn.outvars[0] in masked:
                    self._masked[unique] = masked[eqn.outvars[0]]
        self.names = tuple(self._vertex_out)
        self._held = list(self._vertex_out.values())
        # Where a vertex has a mask, what reads it sees another variable, and what it shows and is compared with too.
        of_masked = self._masked
        self._seen = {name: of_masked[name].seen if name in of_masked else v for name, v in self._vertex_out.items()}
        self._shown = [of_masked[name].shown if name in of_masked else v for name, v in self._vertex_out.items()]
        check_masks({name: item.mask for name, item in of_masked.items()}, lambda mask: self._equations([mask], []))
        reached = {v for eqn in self._equations(self._outputs, []) for v in eqn.outvars}
        for name, variable in self._vertex_out.items():
            if variable not in reached:
                raise ValueError(
                    f"expected vertex {name!r} to influence the output, got one that does not; "
                    f"go on with what vertex returns: h = vertex(h, {name!r})"
                )

    @property
    def closed(self) -> core.ClosedJaxpr:
        """The whole program, from the arrays of the model and of the input, with its constants."""
        return core.ClosedJaxpr(self.jaxpr, [self._constants[v] for v in self.jaxpr.constvars])

    def feedforward(self) -> Callable:
        """`(model, x) -> outputs + values`; with statistics, of examples that are mapped over the batch."""
        return self._part(self._model + self._x, self._outputs + self._shown, whole=True)

    @functools.cached_property
    def statistics(self) -> Callable | None:
        """`(model, x) -> statistics` of examples that are mapped over the batch; None if there are none.

        All parts but those of the feedforward pass are given them as the last arrays of the model.
        """
        return self._part(self._model + self._x, self._statistics, whole=True) if self._statistics else None

    @property
    def model_types(self) -> list[Any]:
        """Shapes and dtypes of the arrays of the model, and of the statistics after them."""
        return [*self.spec.leaf_types, *map(shape_and_type, self._statistics)]

    @functools.cached_property
    def updated(self) -> tuple[tuple[int, ...], Callable]:
        """Which arrays of the model change as it runs, and `(model, x) -> what they become`."""
        places = tuple(i for i, v in enumerate(self._model) if v in self._updates)
        new = [self._updates[self._model[i]] for i in places]
        return places, self._part(self._model + self._x, new, whole=True)

    @functools.cached_property
    def masks(self) -> tuple[tuple[str, ...], Callable]:
        """The vertices with a mask, and `(model, x) -> masks`."""
        return tuple(self._masked), self._part(self._given, [item.mask for item in self._masked.values()])

    def predict(self) -> Callable:
        """`(model, x, values) -> outputs + predictions`."""
        return self._part(self._given + self._held, self._predicted())

    @functools.cached_property
    def parents(self) -> Mapping[str, tuple[str, ...]]:
        """For each vertex, and for the output, the vertices that its prediction reads directly."""
        reads = {node: self._prediction(node)[2] for node in (*self.names, OUTPUT)}
        return MappingProxyType(
            {node: tuple(name for name in self.names if self._seen[name] in read) for node, read in reads.items()}
        )

    def prediction(self, node: str) -> Callable:
        """`(model, x, values of the parents) -> prediction` of one node."""
        below = [self._seen[name] for name in self.parents[node]]
        return self._part(self._given + below, self._prediction(node)[0])

    def reads(self, node: str) -> tuple[tuple[str, ...], bool]:
        """The parameters that the prediction of a node reads, by path, and whether it reads the input."""
        _, _, read = self._prediction(node)
        paths = tuple(path for path, v in zip(self.spec.paths, self._given, strict=False) if v in read)
        return paths, any(v in read for v in (self._x[:-1] if self.spec.keyed else self._x))  # a key is no input

    def synapses(self, node: str | None = None) -> tuple[list[Synapse], Callable]:
        """The synapses (of the prediction of one node), and `(model, x, values) -> presynaptic activities`."""
        parameters = dict(zip(self._given, self.spec.paths, strict=False))
        found = find_synapses(self.jaxpr, parameters)
        if node is not None:
            own = set(self._prediction(node)[1])
            found = [synapse for synapse in found if synapse.equation in own]
        return found, self._part(self._given + self._held, [synapse.presynaptic for synapse in found])

    def split(self, node: str) -> list[tuple[Callable, ...]] | None:
        """A node's prediction at each synapse that carries what vertices hold: below it, its product, and above it.

        The three are `(model, x, values) -> activity`, `(model, x, activity) -> product` and
        `(model, x, product) -> prediction`. None if vertices reach the prediction by another way as well.
        """
        outputs, held = self._prediction(node)[0], set(self._held)

        def reach(wanted: list[Any], available: list[Any]) -> bool:
            return not held.isdisjoint(self._read(self._equations(wanted, available), wanted))

        found = [s for s in self.synapses(node)[0] if reach([s.presynaptic], self._held)]
        if any(s.product is None for s in found) or reach(outputs, [s.product for s in found]):
            return None
        cuts = [(self._held, [s.presynaptic], [s.product], outputs) for s in found]
        return [tuple(self._part(self._given + a, b) for a, b in itertools.pairwise(cut)) for cut in cuts]

    @functools.cached_property
    def connections(self) -> tuple[list[Synapse], list[bool], Callable, Callable]:
        """The synapses of all predictions, and whether they read what vertices hold.

        With them `(model, x, values) -> presynaptic activities`, and `(model, x, values, deviations) -> outputs +
        predictions`, where each product is what it was plus a deviation.

        Raises:
            ValueError: If a product is inside a call from which it does not come out.
        """
        predicted, held = self._predicted(), set(self._held)
        used = set(self._needed(predicted, self._held))
        found = [synapse for synapse in self.synapses()[0] if synapse.equation in used]
        reads = [
            not held.isdisjoint(self._read(self._equations([s.presynaptic], held), [s.presynaptic])) for s in found
        ]
        inside = [synapse.weight for synapse in found if synapse.product is None]
        if inside:
            raise ValueError(
                f"expected a product with {inside[0]} that is the result of its own call, got one inside a function "
                "under jax.jit that returns something else; leave out that jax.jit"
            )
        products = [synapse.product for synapse in found]
        own, deviations, sums = self._sums(products)
        changed: dict[int, list[core.JaxprEqn]] = {}
        for product, before, addition in zip(products, own, sums, strict=True):
            index = self._producer[product]
            eqns = changed.setdefault(index, [self.jaxpr.eqns[index]])
            eqns[0] = eqns[0].replace(outvars=[before if v is product else v for v in eqns[0].outvars])
            eqns.append(addition.replace(outvars=[product]))
        presynaptic = self._part(self._given + self._held, [synapse.presynaptic for synapse in found])
        return found, reads, presynaptic, self._part(self._given + self._held + deviations, predicted, changed)

    def shapes(self) -> dict[str, PyTree]:
        """What one example of each vertex, and of the output, looks like."""
        found = {name: shape_and_type(v) for name, v in self._vertex_out.items()}
        outputs = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in self._outputs]
        return found | {OUTPUT: jax.tree.unflatten(self.output_structure, outputs)}

    def ordered(self, values: Values) -> list[Array]:
        """The values of all vertices, in the order of `names`.

        Raises:
            ValueError: If a vertex is missing or unknown.
        """
        if set(values) != set(self.names):
            missing, unknown = set(self.names) - set(values), set(values) - set(self.names)
            raise ValueError(
                f"expected a value for each of {names_text(self.names)}, got missing {sorted(missing)} "
                f"and unknown {sorted(unknown)}; start from the values that feedforward returns"
            )
        return [values[name] for name in self.names]

    def unpack(self, results: list[Array]) -> tuple[PyTree, Values]:
        """`(output, values)` from the flat list that a part of the program returns."""
        split = len(results) - len(self.names)
        output = jax.tree.unflatten(self.output_structure, results[:split])
        return output, dict(zip(self.names, results[split:], strict=True))

    @functools.cached_property
    def activations(self) -> tuple[tuple[str, ...], Callable]:
        """The vertices that are read only through one activation; `(model, x, their values) -> activations`."""
        seen, incoming = list(self._seen.values()), self._outputs + list(self._vertex_in.values())
        found = entered(self.jaxpr, self._needed(incoming, seen), seen, incoming)
        names = tuple(name for name in self.names if self._seen[name] in found)
        held = [self._seen[name] for name in names]
        return names, self._part(self._given + held, [found[v] for v in held])

    @functools.cached_property
    def constant(self) -> Callable:
        """`(model, x) -> constants`: what the input fixes, whatever the vertices hold."""
        return self._part(self._given, self._constant)

    @functools.cached_property
    def varying(self) -> Callable:
        """`(model, x, constants, values) -> outputs + predictions`: the rest of `predict`."""
        return self._part(self._given + self._constant + self._held, self._predicted())

    @functools.cached_property
    def propagated(self) -> Callable:
        """`(model, x, constants, deviations) -> outputs + values`: each vertex is its prediction plus a deviation."""
        deviations, changed = self._deviated
        return self._part(self._given + self._constant + deviations, self._outputs + self._shown, changed)

    @functools.cached_property
    def deviated(self) -> Callable:
        """`(model, x, deviations) -> outputs`, the statistics being those of the deviations too."""
        deviations, changed = self._deviated
        return self._part(self._model + self._x + deviations, self._outputs, changed, whole=True)

    @functools.cached_property
    def _deviated(self) -> tuple[list[core.Var], dict[int, list[core.JaxprEqn]]]:
        """A variable for the deviation of each vertex, and the equations that add it."""
        marks = [(i, eqn) for i, eqn in enumerate(self.jaxpr.eqns) if eqn.primitive is vertex_p]
        _, deviations, sums = self._sums([eqn.outvars[0] for _, eqn in marks])
        changed = {
            i: [addition.replace(invars=[eqn.invars[0], deviation], outvars=list(eqn.outvars))]
            for (i, eqn), addition, deviation in zip(marks, sums, deviations, strict=True)
        }
        return deviations, changed

    @staticmethod
    def _sums(like: Sequence[core.Var]) -> tuple[list[core.Var], list[core.Var], list[core.JaxprEqn]]:
        """New variables in pairs, and the equations that add up each pair."""
        avals = [v.aval for v in like]
        # One trace for all, so that each is a variable of its own.
        sums = jax.make_jaxpr(lambda a, b: [x + y for x, y in zip(a, b, strict=True)])(avals, avals).jaxpr
        return list(sums.invars[: len(like)]), list(sums.invars[len(like) :]), list(sums.eqns)

    def prediction_rest(self, node: str, derivatives: bool) -> Callable:
        """`(model, x, constants, values of the parents) -> prediction`, with or without activations' derivatives."""
        if (node, derivatives) not in self._rests:
            self._rests[node, derivatives] = self._local_rest(node, derivatives)
        return self._rests[node, derivatives]

    def _local_rest(self, node: str, derivatives: bool) -> Callable:
        outputs, needed, _ = self._prediction(node)
        parents = [self._seen[name] for name in self.parents[node]]
        changed = {} if derivatives else without_derivatives(self.jaxpr, needed, parents, outputs)
        return self._part(self._given + self._constant + parents, outputs, changed)

    @functools.cached_property
    def _constant(self) -> list[core.Var]:
        """What depends on the input, and on no vertex, and is read by what does.

        What depends on the parameters alone is left where it is: it has no batch axis, and XLA moves it out of loops
        by itself where that pays (a transposed weight, for one, is better not stored).
        """
        of_input, of_vertices = set(self._x), set(self._held)
        for eqn in self.jaxpr.eqns:
            read = self._read([eqn])
            if eqn.primitive is vertex_p or is_collective(eqn):
                continue
            if read & of_vertices:
                of_vertices.update(eqn.outvars)
            elif read & of_input:
                of_input.update(eqn.outvars)
        outputs = self._predicted()
        varying = [eqn for eqn in self._equations(outputs, self._held) if of_vertices.intersection(eqn.outvars)]
        wanted = self._read(varying, outputs) & of_input - set(self._x)
        return sorted(wanted, key=self._producer.__getitem__)

    def _prediction(self, node: str) -> tuple[list[Any], list[int], set[core.Var]]:
        """A node's prediction, the indices of the equations that make it from what is held, and all that these read."""
        outputs = self._outputs if node == OUTPUT else [self._vertex_in[node]]
        indices = self._needed(outputs, self._seen.values())
        return outputs, indices, self._read([self.jaxpr.eqns[i] for i in indices], outputs)

    def _predicted(self) -> list[Any]:
        masked = self._masked
        sides = [masked[name].predicted if name in masked else v for name, v in self._vertex_in.items()]
        return self._outputs + sides

    def _part(
        self,
        inputs: Sequence[core.Var],
        outputs: Sequence[Any],
        changed: Mapping[int, list[core.JaxprEqn]] = MappingProxyType({}),
        whole: bool = False,
    ) -> Callable:
        """A function from `inputs` to `outputs`, with the equations at some indices replaced by others.

        `whole` says that statistics are computed, not given.
        """
        indices = self._needed(outputs, inputs, whole)
        eqns = [eqn for i in indices for eqn in changed.get(i) or self._laid_out.get(i) or [self.jaxpr.eqns[i]]]
        read = self._read(eqns, outputs)
        constants = [v for v in self._constants if v in read]
        jaxpr = self.jaxpr.replace(
            constvars=constants,
            invars=list(inputs),
            outvars=list(outputs),
            eqns=eqns,
            debug_info=self.jaxpr.debug_info.with_unknown_names(),
        )
        run = core.jaxpr_as_fun(core.ClosedJaxpr(jaxpr, [self._constants[v] for v in constants]))
        return lambda *groups: run(*(leaf for group in groups for leaf in group))

    def _needed(self, outputs: Sequence[Any], available: Iterable[core.Var], whole: bool = False) -> list[int]:
        """The indices of the equations that lead from `available`, and the program's inputs, to `outputs`."""
        known, indices = {*available, *(() if whole else self._statistics)}, set()
        pending = [v for v in outputs if not isinstance(v, core.Literal)]
        while pending:
            v = pending.pop()
            index = self._producer.get(v)
            if v not in known and index is not None and index not in indices:
                indices.add(index)
                pending.extend(self._read([self.jaxpr.eqns[index]]))
        return sorted(indices)

    def _equations(self, outputs: Sequence[Any], available: Iterable[core.Var]) -> list[core.JaxprEqn]:
        return [self.jaxpr.eqns[i] for i in self._needed(outputs, available)]

    @staticmethod
    def _read(eqns: Sequence[core.JaxprEqn], outputs: Sequence[Any] = ()) -> set[core.Var]:
        atoms = [v for eqn in eqns for v in eqn.invars] + list(outputs)
        return {v for v in atoms if not isinstance(v, core.Literal)}
