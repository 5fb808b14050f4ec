"""Tasks on sequences: recall in context, regression in context, and text as bytes."""

from vicinal.data.sequences.base import NOT_COUNTED, Sequences
from vicinal.data.sequences.books import Documents, Texts, books, byte_windows, random_windows, text
from vicinal.data.sequences.metrics import loss_by_position, token_accuracy, value_accuracy
from vicinal.data.sequences.mqar import (
    MQAR_TEST,
    MQAR_TRAIN,
    Segment,
    continuous_mqar,
    forgetting_mqar,
    mqar,
    mqar_segments,
)
from vicinal.data.sequences.recall import basic_recall, positional_recall
from vicinal.data.sequences.regression import Regression, linear_regression, normalized_error, ridge_oracle

__all__ = [
    "MQAR_TEST",
    "MQAR_TRAIN",
    "NOT_COUNTED",
    "Documents",
    "Regression",
    "Segment",
    "Sequences",
    "Texts",
    "basic_recall",
    "books",
    "byte_windows",
    "continuous_mqar",
    "forgetting_mqar",
    "linear_regression",
    "loss_by_position",
    "mqar",
    "mqar_segments",
    "normalized_error",
    "positional_recall",
    "random_windows",
    "ridge_oracle",
    "text",
    "token_accuracy",
    "value_accuracy",
]
