"""The recipes by name."""

from vicinal.feedback import kolen_pollack, random, sign_symmetric, weight_mirror
from vicinal.inference import ErrorBased, Simultaneous
from vicinal.recipes.builders import (
    adam,
    bp,
    fed,
    fed_adam,
    il,
    matrix_equalised,
    normalised,
    normalised_adam,
    seqil,
    settled,
    sgd,
)
from vicinal.recipes.recipe import Recipe
from vicinal.rules import (
    ZIL,
    ActivationRelaxation,
    DirectFeedback,
    DynamicInversion,
    FixedPrediction,
    IncrementalPC,
    PhaselessAlignment,
    RelaxedPC,
    TimeConstants,
)

_BP = {
    "transport": "the forward weights, transposed",
    "cost": "1 forward, 1 transposed, 1 outer",
}
_IL = {"transport": "the forward weights, transposed", "cost": "T + 2 forward, T transposed, 1 outer"}
_BP_PAPER = {"paper": "Rumelhart, Hinton and Williams 1986", "link": "https://doi.org/10.1038/323533a0"}
_IL_PAPER = {"paper": "Alonso et al. 2022, arXiv 2206.00164", "link": "https://arxiv.org/abs/2206.00164"}
_OURS = "of this library, for a first look"
_MNIST = "of arXiv 2206.00164, MNIST at batch size 1"

_MQ_PAPER = {"paper": "Alonso et al. 2024, arXiv 2305.13562", "link": "https://arxiv.org/abs/2305.13562"}
_SEQUENTIAL = {"transport": "the forward weights, transposed", "cost": "T + 1 forward, T transposed, 1 outer"}
_CIFAR = "of arXiv 2305.13562, CIFAR-10 MLP at batch size 64 (3 sweeps of .05/(1+t), beta 100)"

_AKROUT_PAPER = {"paper": "Akrout et al. 2019, arXiv 1904.05391", "link": "https://arxiv.org/abs/1904.05391"}
_AKROUT = "of the code of arXiv 1904.05391, MNIST at batch size 128, sigmoid, vertices at rates"

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="bp",
            label="backpropagation, Adam",
            build=adam(bp),
            learning_rate=1e-3,
            settings=_OURS,
            references=("rumelhart1986", "kingma2015"),
            **_BP,
            **_BP_PAPER,
        ),
        Recipe(
            name="il",
            label="inference learning, Adam",
            build=adam(il(steps=20, step_size=0.02)),
            learning_rate=1e-3,
            settings=_OURS,
            references=("rao1999", "whittington2017", "alonso2022", "kingma2015"),
            **_IL,
            **_IL_PAPER,
        ),
        Recipe(
            name="bp-sgd",
            label="backpropagation, gradient descent",
            build=sgd(bp),
            learning_rate=0.015,
            settings=_MNIST,
            references=("rumelhart1986",),
            **_BP,
            **_BP_PAPER,
        ),
        Recipe(
            name="bp-adam",
            label="backpropagation, Adam",
            build=adam(bp),
            learning_rate=1e-4,
            settings=_MNIST,
            references=("rumelhart1986", "kingma2015"),
            **_BP,
            **_BP_PAPER,
        ),
        Recipe(
            name="il-sgd",
            label="inference learning, gradient descent",
            build=sgd(il(steps=25, step_size=0.02, pull=0.75)),
            learning_rate=0.05,
            settings=_MNIST + " (step sizes .02 bottom-up, .015 top-down)",
            references=("whittington2017", "alonso2022"),
            **_IL,
            **_IL_PAPER,
        ),
        Recipe(
            name="il-adam",
            label="inference learning, Adam",
            build=adam(il(steps=20, step_size=0.02, pull=0.5)),
            learning_rate=1e-5,
            settings="of arXiv 2206.00164, CIFAR-10 at batch size 1, but fully clamped (the paper nudges by .95)",
            references=("whittington2017", "alonso2022", "kingma2015"),
            **_IL,
            **_IL_PAPER,
        ),
        Recipe(
            name="il-prox",
            label="inference learning, proximal",
            build=normalised(il(steps=25, step_size=0.015), eps=0.25),
            learning_rate=5.0,
            settings=_MNIST + " (step size .015); the learning rate is the proximal one, of the output",
            references=("alonso2022",),
            **_IL,
            **_IL_PAPER,
        ),
        Recipe(
            name="il-prox-fast",
            label="inference learning, proximal, fast",
            build=normalised(il(steps=12, step_size=0.025, pull=0.0), eps=0.25),
            learning_rate=3.0,
            settings=_MNIST + " (step size .025 bottom-up, 0 top-down); the learning rate is the proximal one",
            references=("alonso2022",),
            **_IL,
            **_IL_PAPER,
        ),
        Recipe(
            name="il-prox-adam",
            label="inference learning, proximal, Adam",
            build=normalised_adam(il(steps=20, step_size=0.02, pull=0.75), output_learning_rate=100.0, eps=5.0),
            learning_rate=3e-5,
            settings="of arXiv 2206.00164, CIFAR-10 at batch size 64; Adam's learning rate is its code's default",
            references=("alonso2022", "kingma2015"),
            **_IL,
            **_IL_PAPER,
        ),
        Recipe(
            name="bp-prox",
            label="backpropagation, proximal",
            build=normalised(bp, eps=0.0),
            learning_rate=1.0,
            settings="of arXiv 2206.00164's study of stability (eps 0), at one of its learning rates, .01 to 100",
            references=("rumelhart1986", "alonso2022"),
            **_BP,
            **_IL_PAPER,
        ),
        Recipe(
            name="bp-mq",
            label="backpropagation, matrix update equalisation",
            build=matrix_equalised(bp),
            learning_rate=3e-5,
            settings="the step of arXiv 2305.13562, at its learning rate for sequential inference learning",
            references=("rumelhart1986", "alonso2024"),
            **_BP,
            **_MQ_PAPER,
        ),
        Recipe(
            name="seqil",
            label="sequential inference learning, gradient descent",
            build=sgd(seqil),
            learning_rate=0.75,
            settings=_CIFAR,
            references=("alonso2024",),
            **_SEQUENTIAL,
            **_MQ_PAPER,
        ),
        Recipe(
            name="seqil-mq",
            label="sequential inference learning, matrix update equalisation",
            build=matrix_equalised(seqil),
            learning_rate=3e-5,
            settings=_CIFAR,
            references=("alonso2024",),
            **_SEQUENTIAL,
            **_MQ_PAPER,
        ),
        Recipe(
            name="seqil-adam",
            label="sequential inference learning, Adam",
            build=adam(seqil),
            learning_rate=3e-5,
            settings=_CIFAR,
            references=("alonso2024", "kingma2015"),
            **_SEQUENTIAL,
            **_MQ_PAPER,
        ),
        Recipe(
            name="epc",
            label="inference learning by errors, Adam",
            build=adam(settled(lambda: ErrorBased(steps=5, step_size=0.1))),
            learning_rate=1e-3,
            settings=_OURS,
            references=("goemaere2025", "kingma2015"),
            transport="the forward weights, transposed, from the output to every layer at once",
            cost="T + 2 forward, T transposed, 1 outer",
            paper="Goemaere et al. 2025, arXiv 2505.20137",
            link="https://arxiv.org/abs/2505.20137",
        ),
        Recipe(
            name="ipc",
            label="incremental predictive coding, Adam",
            build=adam(lambda loss: IncrementalPC(steps=5, step_size=0.1, loss=loss)),
            learning_rate=2e-4,
            settings=_OURS + "; the optimiser is called at every inference step",
            references=("salvatori2024", "kingma2015"),
            transport="the forward weights, transposed",
            cost="T + 2 forward, T transposed, T outer",
            paper="Salvatori et al. 2024, arXiv 2212.00720",
            link="https://arxiv.org/abs/2212.00720",
        ),
        Recipe(
            name="z-il",
            label="zero-divergence inference learning, Adam",
            build=adam(lambda loss: ZIL(loss=loss)),
            learning_rate=1e-3,
            settings=_OURS,
            references=("song2020", "salvatori2021", "kingma2015"),
            transport="the forward weights, transposed",
            cost="1 forward, 1 transposed, 1 outer",
            paper="Song et al. 2020; Salvatori et al. 2021, arXiv 2103.03725",
            link="https://arxiv.org/abs/2103.03725",
        ),
        Recipe(
            name="fixed-prediction",
            label="fixed prediction, Adam",
            build=adam(lambda loss: FixedPrediction(loss=loss)),
            learning_rate=1e-3,
            settings=_OURS + ": one sweep with a unit step (the paper takes 100 steps of .1, to the same end)",
            references=("millidge2022", "rosenbaum2022", "kingma2015"),
            transport="the forward weights, transposed",
            cost="1 forward, T transposed, 1 outer",
            paper="Millidge et al. 2022, arXiv 2006.04182",
            link="https://arxiv.org/abs/2006.04182",
        ),
        Recipe(
            name="ar",
            label="activation relaxation, gradient descent",
            build=sgd(lambda loss: ActivationRelaxation(loss=loss)),
            learning_rate=0.032,
            settings="of arXiv 2009.05359, MNIST: 100 steps of .1, 5e-4 for the sum over a batch of 64",
            references=("millidge2020relaxation", "millidge2020scalability"),
            transport="the forward weights, transposed (or a model's own feedback weights)",
            cost="1 forward, T transposed, 1 outer",
            paper="Millidge et al. 2020, arXiv 2009.05359",
            link="https://arxiv.org/abs/2009.05359",
        ),
        Recipe(
            name="dfa",
            label="direct feedback alignment, Adam",
            build=adam(lambda loss: DirectFeedback(loss=loss)),
            learning_rate=1e-3,
            settings=_OURS,
            references=("nokland2016", "han2020", "kingma2015"),
            transport="fixed random projections of the output's error",
            cost="1 forward, 1 projection, 1 outer",
            paper="Nøkland 2016, arXiv 1609.01596",
            link="https://arxiv.org/abs/1609.01596",
        ),
        Recipe(
            name="di",
            label="dynamic inversion, gradient descent",
            build=sgd(lambda loss: DynamicInversion(repair=True, clip=10, loss=loss)),
            learning_rate=0.01,
            settings="of the code of arXiv 2007.05112: leak .01, Euler's step .5, errors of norm 10 at most",
            references=("podlaski2020",),
            transport="a controller that inverts the forward weights",
            cost="T forward, T feedback, 1 outer",
            paper="Podlaski and Machens 2020, arXiv 2007.05112",
            link="https://arxiv.org/abs/2007.05112",
        ),
        Recipe(
            name="pal",
            label="phaseless alignment learning, gradient descent",
            build=sgd(lambda loss: PhaselessAlignment(times=TimeConstants(low_pass=200.0), loss=loss)),
            learning_rate=0.2,
            settings="times, noise and rate of feedback of the code of arXiv 2212.10249, but a low-pass of 200 ms; "
            "feedback's decay and the learning rate are ours. Plain gradient descent, since the optimiser is called in "
            "each of the 100 steps of an update: schedules and weight decay count each, Adam moves 100 times as far",
            references=("max2024", "haider2021"),
            transport="weights learned from noise, while all else learns",
            cost="T forward, T transposed, 2 T outer",
            paper="Max et al. 2024, arXiv 2212.10249",
            link="https://arxiv.org/abs/2212.10249",
            options="--model.vertex-at pre",
        ),
        Recipe(
            name="fa",
            label="feedback alignment, gradient descent",
            build=fed(bp),
            learning_rate=0.2,
            settings=_AKROUT,
            references=("lillicrap2016", "akrout2019"),
            transport="fixed random weights",
            cost=_BP["cost"],
            paper="Lillicrap et al. 2016",
            link="https://doi.org/10.1038/ncomms13276",
            options="--model.activation sigmoid --batch-size 128",
            feedback=random(),
        ),
        Recipe(
            name="sign-symmetric",
            label="uniform sign-symmetric feedback, momentum",
            build=fed(bp, decay=1e-4, momentum=0.9),
            learning_rate=0.1,
            settings="of BioTorch (arXiv 2108.13446): momentum .9, weight decay 1e-4, batch size 128",
            references=("liao2016", "sanfiz2021"),
            transport="the signs of the forward weights, transposed",
            cost=_BP["cost"],
            paper="Liao, Leibo and Poggio 2016, arXiv 1510.05067",
            link="https://arxiv.org/abs/1510.05067",
            feedback=sign_symmetric(),
        ),
        Recipe(
            name="kolen-pollack",
            label="Kolen and Pollack's feedback, gradient descent",
            build=fed(bp),
            learning_rate=0.3,
            settings=_AKROUT + "; no weight decay",
            references=("kolen1994", "akrout2019"),
            transport="weights that receive the forward weights' changes",
            cost=_BP["cost"],
            **_AKROUT_PAPER,
            options="--model.activation sigmoid --batch-size 128",
            feedback=kolen_pollack(),
        ),
        Recipe(
            name="weight-mirror",
            label="weight mirrors, gradient descent",
            build=fed(bp, mirror=0.01),
            learning_rate=0.05,
            settings=_AKROUT + "; the mirror is ours: white noise of deviation 1, no activation, rate .01, decay .5",
            references=("akrout2019", "kunin2020"),
            transport="weights learned from noise",
            cost="2 forward, 1 mirrored, 1 transposed, 2 outer",
            **_AKROUT_PAPER,
            options="--model.activation sigmoid --batch-size 128",
            feedback=weight_mirror(decay=0.5, amplify=1.0),
        ),
        Recipe(
            name="constrained-pc",
            label="positive rates, one-directional synapses, Adam",
            build=fed_adam(settled(lambda: Simultaneous(steps=20, step_size=0.1, positive=True)), decay=0.01),
            learning_rate=1e-3,
            settings="of arXiv 2104.15137, MNIST at batch size 64 (sigmoid, vertices at rates, sigmoid_squared_error)",
            references=("alonso2021", "kolen1994", "kingma2015"),
            transport="weights that receive the forward weights' changes",
            cost=_IL["cost"],
            paper="Alonso and Neftci 2021, arXiv 2104.15137",
            link="https://arxiv.org/abs/2104.15137",
            options="--model.activation sigmoid --loss sigmoid_squared_error --batch-size 64",
            feedback=kolen_pollack(),
        ),
        Recipe(
            name="relaxed-pc",
            label="learned backward weights, no derivatives, learned error connections",
            build=fed(
                lambda loss: RelaxedPC(derivatives=False, connections="learned", connection_rate=0.032, loss=loss)
            ),
            learning_rate=0.064,
            settings="of arXiv 2010.01047, MNIST: 5e-4 for twice the sum over a batch of 64 (connections: for the "
            "sum); here 100 steps of .1",
            references=("millidge2020relaxing", "kolen1994"),
            transport="weights that receive the forward weights' changes",
            cost="1 forward, T transposed, 1 outer",
            paper="Millidge et al. 2020, arXiv 2010.01047",
            link="https://arxiv.org/abs/2010.01047",
            feedback=kolen_pollack(),
        ),
    )
}
"""All recipes by name."""


def recipe(name: str) -> Recipe:
    """The recipe of this name.

    Raises:
        ValueError: If there is none.

    Example:
        >>> rule, optimizer = recipe("il").make()
        >>> int(rule.inference.steps)
        20
    """
    if name not in RECIPES:
        raise ValueError(f"expected a recipe of {', '.join(RECIPES)}, got {name!r}; `vicinal rules` lists them")
    return RECIPES[name]
