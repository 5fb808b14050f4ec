"""What carries errors back, in place of the transposed forward weights, and how it learns."""

from vicinal.feedback.activations import without_derivative as without_derivative
from vicinal.feedback.alignment import (
    Aligned as Aligned,
    Alignment as Alignment,
    Noise as Noise,
    activation_alignment as activation_alignment,
    aligned as aligned,
    information_alignment as information_alignment,
    symmetric_alignment as symmetric_alignment,
    weight_mirror as weight_mirror,
)
from vicinal.feedback.attach import Fed as Fed, attach as attach, detach as detach
from vicinal.feedback.paths import (
    KolenPollack as KolenPollack,
    Path as Path,
    Route as Route,
    Separate as Separate,
    SignSymmetric as SignSymmetric,
    Tied as Tied,
    given as given,
    kolen_pollack as kolen_pollack,
    random as random,
    sign_symmetric as sign_symmetric,
    tied as tied,
)
from vicinal.feedback.steps import alternating as alternating, labels as labels, optimizers as optimizers
