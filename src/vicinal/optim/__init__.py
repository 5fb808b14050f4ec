"""How the local product becomes a change of the weights: optax transformations."""

from vicinal.optim.mq import MQState as MQState, mq as mq
from vicinal.optim.nlms import nlms as nlms, scale_by_presynaptic_norm as scale_by_presynaptic_norm
