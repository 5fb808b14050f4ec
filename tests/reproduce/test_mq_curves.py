"""Learning curves of matrix update equalisation and of incremental predictive coding, in their quick form."""

import numpy as np
import pytest

from vicinal.reproduce import ipc, mq
from vicinal.reproduce.runs import Scale

QUICK = Scale(quick=True, asked=1, progress=False)
pytestmark = pytest.mark.slow


def last(member, quantity):
    return member["records"][-1][quantity]


def spread(member):
    sizes = [list(record["sizes"].values()) for record in member["records"][1:]]
    means = np.mean(sizes, axis=0)
    return means.max() / means.min()


@pytest.mark.parametrize("run", [mq.classification, mq.convolution])
def test_equalised_updates_are_alike(run):
    """Plain descent scales an update by its gradient; equalisation divides that out, but for the floor of its step."""
    study = run(QUICK)
    (found,) = study.numbers.values()
    assert spread(found["SeqIL-MQ"][0]) < 2 < 5 < spread(found["SeqIL"][0])
    for name, members in found.items():
        assert last(members[0], "test_loss") < members[0]["records"][0]["test_loss"], name


def test_autoencoder():
    (found,) = mq.autoencoder(QUICK).numbers.values()
    for name, members in found.items():
        assert last(members[0], "test_loss") < members[0]["records"][0]["test_loss"], name
        assert last(members[0], "test_loss") < 64 * np.log(2), name  # the loss of an output that knows nothing


def test_incremental():
    """With a small learning rate, eight updates per batch go further than one; and rates differ by more than noise."""
    (found,) = ipc.classification(QUICK).numbers.values()
    for optimizer in ("SGD", "Adam"):
        slowest = {rule: found[f"{rule}-{optimizer}"][0] for rule in ("IL", "iPC")}
        assert last(slowest["iPC"], "path_length") > 2 * last(slowest["IL"], "path_length")
        assert last(slowest["iPC"], "train_loss") < last(slowest["IL"], "train_loss")
    assert max(last(member, "test_accuracy") for member in found["iPC-Adam"]) > 0.8
