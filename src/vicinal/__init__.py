"""vicinal trains neural networks by local learning: each synapse changes with what its two ends hold."""

from vicinal import (
    analysis as analysis,
    attention as attention,
    data as data,
    energy as energy,
    feedback as feedback,
    inference as inference,
    losses as losses,
    nn as nn,
    optim as optim,
    recipes as recipes,
    rules as rules,
    testing as testing,
    train as train,
)
from vicinal.credit import Credit as Credit, Info as Info, local_gradient as local_gradient
from vicinal.graph import Graph as Graph, capture as capture, vertex as vertex
from vicinal.marking import mark as mark

__version__ = "0.1.0"
