"""Command lines that ask for more than memory holds end in one sentence and exit code 2, before anything is made."""

import pytest

from vicinal import _memory
from vicinal.cli.main import main

DIGITS = "the largest array is layers[0].weight, float32[{}, 64]"
CASES = {
    "train --model.sizes 64,1000000000000,10": DIGITS.format(10**12),
    "train --model.sizes 64,2147483648,10 --rule fa": DIGITS.format(2**31),
    "train --model.sizes 64,10000000000000000000000,64": DIGITS.format(10**22),
    "train --model.sizes 64,1000000000000,1000000000000,10": "layers[1].weight, float32[1000000000000, 1000000000000]",
    "train --model.kind convolutional --model.channels 1000000000": "layers[0].weight, float32[10, 9000000000]",
    "train --model.kind convolutional --model.channels 1000000,1000000": "float32[1000000, 1000000, 3, 3]",
    "train --model.kind convolutional --model.kernel-size 1000000000": "an image that the convolutions fit",
    "train --model.kind transformer --model.sizes 1000000": "hidden_layer.weight, float32[4000000, 1000000]",
    "train --model.kind recurrent --model.sizes 10000000": "recurrent_layer.weight, float32[10000000, 10000000]",
    "train --model.kind residual --model.sizes 10000000": "float32[10000000, 10000000]",
    "train --model.kind residual --model.depth 10000000000": "at least 100 TB for 10000000000 layers",
    "train --model.kind autoencoder --model.sizes 64,100000000000,64": "float32[100000000000, 64]",
    "train --model.feedback random --model.sizes 64,100000000000,10": "float32[100000000000, 64]",
    "draw --model.sizes 64,1000000000000,10": "for the model (" + DIGITS.format(10**12),
    "compare --rules bp,fa --model.sizes 64,1000000000000,10": DIGITS.format(10**12),
    "compare --seeds 1000000000": "for 2000000000 models at the end",
    "sweep --learning-rates 0.1,0.2 --model.sizes 64,1000000000000,10": DIGITS.format(10**12),
    "sweep --learning-rates 0.1 --seeds 1000000000": "for 1000000000 members",
    "sweep --rules bp,fa --model.sizes 64,1000000000000,10": DIGITS.format(10**12),
    "train --rule relaxed-pc --model.sizes 64,50000,10": "['rule_state']['hidden1'], float32[50000, 50000]",
    "train --epochs 1000000000000000000": "steps of at most 2147483647, which 32 bits can count, got 44",
    "train --rule il --inference.steps 1000000000000": "steps of at most 2147483647, which 32 bits can count, got 10",
    "train --rule ipc --inference.steps 10000000000000000000000": "steps of at most 2147483647, which 32 bits",
    "train --batch-size 1000000000": "a batch size from 1 to 1437, the number of examples, got 1000000000",
}


@pytest.mark.parametrize("line", CASES)
def test_what_memory_cannot_hold_is_one_sentence(line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_memory, "free_host_bytes", lambda *, swap=False: 8 * 10**9)
    with pytest.raises(SystemExit) as end:
        main(line.split())
    said = capsys.readouterr()
    assert end.value.code == 2
    assert said.out == ""
    assert said.err.startswith("vicinal: expected ")
    assert said.err.count("\n") == 1
    assert CASES[line] in said.err
    assert "got " in said.err
