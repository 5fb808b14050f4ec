"""Tasks on sequences: recall in context, regression in context, and text as bytes."""

from vicinal.data.sequences.base import NOT_COUNTED as NOT_COUNTED, Sequences as Sequences
from vicinal.data.sequences.books import (
    Documents as Documents,
    Texts as Texts,
    books as books,
    byte_windows as byte_windows,
    random_windows as random_windows,
    text as text,
)
from vicinal.data.sequences.metrics import (
    loss_by_position as loss_by_position,
    token_accuracy as token_accuracy,
    value_accuracy as value_accuracy,
)
from vicinal.data.sequences.mqar import (
    MQAR_TEST as MQAR_TEST,
    MQAR_TRAIN as MQAR_TRAIN,
    Segment as Segment,
    continuous_mqar as continuous_mqar,
    forgetting_mqar as forgetting_mqar,
    mqar as mqar,
    mqar_segments as mqar_segments,
)
from vicinal.data.sequences.recall import basic_recall as basic_recall, positional_recall as positional_recall
from vicinal.data.sequences.regression import (
    Regression as Regression,
    linear_regression as linear_regression,
    normalized_error as normalized_error,
    ridge_oracle as ridge_oracle,
)
