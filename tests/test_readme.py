"""The code, commands and links of the README and the guide work."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
GUIDE = sorted((ROOT / "docs" / "guide").glob("*.md"))
COMMANDS = [
    command
    for page in (README, *(page.read_text() for page in GUIDE))
    for command in re.findall(r"^vicinal [^#\n]*", page, flags=re.MULTILINE)
]


def test_the_code_runs_in_order(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 7
    blocks[-1] = blocks[-1].replace("mqar(2048,", "mqar(256,")  # a page shows real sizes, a test need not train long
    namespace: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    printed = capsys.readouterr().out.splitlines()
    assert float(printed[0]) > 0.8  # test accuracy after five epochs
    accuracies = {line.split("}")[0]: float(line.split()[-1]) for line in printed[1:7]}
    assert len(accuracies) == 3  # learning rates from 0.1 to 1000: all of them learn
    assert min(accuracies.values()) > 0.15
    assert printed[7].startswith("took all its steps")
    assert all(float(line.split()[-1]) > 0 for line in printed[-10:-5])  # gradients of five rules
    assert [line.split()[0] for line in printed[-5:-2]] == ["Backprop", "InferenceLearning", "DirectFeedback"]
    assert printed[-2] == "('layers[0]', 'layers[1]')"
    assert printed[-1].startswith("(5,) ")


@pytest.mark.parametrize("page", GUIDE, ids=lambda page: page.stem)
def test_the_code_of_the_guide_runs_in_order(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # what the page writes
    namespace: dict = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL):
        block = block.replace("epochs=2,", "epochs=1,").replace("steps=100,", "steps=20,")  # see above
        exec(compile(block, page.name, "exec"), namespace)
    assert capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_parse(command, capsys):
    from vicinal.cli import main

    main([*command.split()[1:], "--help"])
    assert "usage: vicinal" in capsys.readouterr().out


def test_links_lead_somewhere():
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *GUIDE):
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert link.startswith("http") or (page.parent / link).exists(), f"{page.name}: {link}"
