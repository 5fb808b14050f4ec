"""The recipes of rules whose units send events."""

from vicinal.recipes.builders import adam
from vicinal.recipes.recipe import Recipe
from vicinal.rules import EventBackprop, EventInferenceLearning, SpikingInferenceLearning

BY_EVENTS: tuple[Recipe, ...] = (
    Recipe(
        name="il-events",
        label="inference learning by events, Adam",
        build=adam(lambda loss: EventInferenceLearning(steps=20, step_size=0.1, loss=loss)),
        learning_rate=1e-3,
        settings="of this library, for a first look: changes of values by .05 and of errors by .0125 are sent",
        references=("oconnor2019", "alonso2022", "boerlin2013", "kingma2015"),
        transport="the forward weights, transposed, at events alone",
        cost="T + 2 forward, T transposed, 1 outer",
        paper="of this library, after O'Connor et al. 2019",
        link="https://proceedings.mlr.press/v89/o-connor19a.html",
    ),
    Recipe(
        name="bp-events",
        label="backpropagation by events, Adam",
        build=adam(lambda loss: EventBackprop(loss=loss)),
        learning_rate=1e-3,
        settings="of this library, for a first look: multiples of .05 and .0125, as il-events sends, to compare them",
        references=("rumelhart1986", "oconnor2019", "kingma2015"),
        transport="the forward weights, transposed, where an error was sent",
        cost="1 forward, 1 transposed, 1 outer",
        paper="Rumelhart, Hinton and Williams 1986",
        link="https://doi.org/10.1038/323533a0",
    ),
    Recipe(
        name="il-spikes",
        label="inference learning in spikes, Adam",
        build=adam(lambda loss: SpikingInferenceLearning(learn="mean", loss=loss)),
        learning_rate=1e-3,
        settings="of this library, for a first look: 120 steps, up to 8 spikes of area 1 in each, the mean over the "
        "last half",
        references=("alonso2022", "ororbia2019", "kingma2015"),
        transport="the forward weights, transposed, at spikes alone",
        cost="T + 1 forward, T transposed, T/2 outer",
        paper="of this library, after Alonso et al. 2022",
        link="https://arxiv.org/abs/2206.00164",
    ),
)
