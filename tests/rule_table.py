"""Every rule with its settings, for the tests that run all of them."""

import vicinal as vc
from vicinal.events import Graded
from vicinal.inference import Adaptive, ErrorBased, Proximal, Sequential, Simultaneous
from vicinal.rules import projectors

RULES = {
    "backpropagation": vc.rules.Backprop(),
    "backpropagation, squared error": vc.rules.Backprop(loss=vc.losses.squared_error),
    "inference learning": vc.rules.InferenceLearning(),
    "inference learning, squared error": vc.rules.InferenceLearning(loss=vc.losses.squared_error),
    "backpropagation, proximal": vc.rules.Backprop(proximal=Proximal(5.0, eps=0.1)),
    "inference learning, proximal": vc.rules.InferenceLearning(proximal=Proximal(5.0, eps=0.1)),
    "inference learning, all options": vc.rules.InferenceLearning(
        inference=Simultaneous(steps=12, step_size=0.2, decay=True, momentum=0.5, pull=0.8, tolerance=1e-2, trace=True),
        loss=vc.losses.sigmoid_cross_entropy,
        nudge=0.9,
        precision=1.5,
        throw=True,
    ),
    "inference learning, averaged": vc.rules.InferenceLearning(Simultaneous(steps=8, step_size=0.2), average=0.5),
    "sequential inference": vc.rules.InferenceLearning(inference=Sequential()),
    "sequential inference, all options": vc.rules.InferenceLearning(
        inference=Sequential(steps=6, step_size=0.3, decay=False, pull=0.8, tolerance=1e-2, trace=True),
        nudge=0.9,
        precision=1.5,
        proximal=Proximal(5.0, eps=0.1),
    ),
    "error-based inference": vc.rules.InferenceLearning(inference=ErrorBased()),
    "error-based inference, all options": vc.rules.InferenceLearning(
        inference=ErrorBased(steps=8, step_size=0.2, decay=True, momentum=0.5, tolerance=1e-2, trace=True),
        nudge=0.9,
        precision=1.5,
    ),
    # Few steps: near equilibrium the next step size is a ratio of roundings.
    "adaptive inference": vc.rules.InferenceLearning(inference=Adaptive(steps=8)),
    "fixed prediction": vc.rules.FixedPrediction(),
    "fixed prediction, simultaneous": vc.rules.FixedPrediction(steps=30, step_size=0.3, order="simultaneous"),
    "Z-IL": vc.rules.ZIL(),
    "activation relaxation": vc.rules.ActivationRelaxation(steps=60, step_size=0.4),
    "activation relaxation, without derivatives": vc.rules.ActivationRelaxation(
        steps=60, step_size=0.4, derivatives=False, frozen="product"
    ),
    "relaxed": vc.rules.RelaxedPC(steps=60, step_size=0.4),
    "relaxed, all options": vc.rules.RelaxedPC(
        steps=60, step_size=0.4, order="sequential", derivatives=False, connections="learned"
    ),
    "incremental": vc.rules.IncrementalPC(),
    "incremental, squared error": vc.rules.IncrementalPC(
        steps=3, step_size=0.2, loss=vc.losses.squared_error, nudge=0.9, precision=1.5
    ),
    "events": vc.rules.EventInferenceLearning(),
    # Thresholds of errors that are relative, or events of one size, send something even where no error is left.
    "events, all options": vc.rules.EventInferenceLearning(
        steps=8,
        step_size=0.2,
        activity=Graded(0.01, relative=True, initial=2.0),
        error=Graded(0.0125, initial=4.0),
        learn="any",
        part=0.4,
        nudge=0.9,
        precision=1.5,
    ),
    "events, the mean": vc.rules.EventInferenceLearning(steps=8, step_size=0.2, learn="mean"),
    "events, every step": vc.rules.EventInferenceLearning(steps=5, step_size=0.2, learn="every"),
    "events, backpropagation": vc.rules.EventBackprop(),
    "direct feedback": vc.rules.DirectFeedback(),
    "direct feedback, all options": vc.rules.DirectFeedback(
        projector=projectors.Sparse(density=0.7, scale=1.5), hybrid=0.6, shared=False, loss=vc.losses.squared_error
    ),
    "dynamic inversion, in chains": vc.rules.DynamicInversion(leak=0.1),
}
