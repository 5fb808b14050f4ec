"""`vicinal draw`."""

from pathlib import Path

from vicinal.files import write_atomically
from vicinal.report import draw_graph
from vicinal.settings import ModelSettings, TaskSettings
from vicinal.task import Task

_MODEL = ModelSettings()


def draw(model: ModelSettings = _MODEL, data: str = "digits", file: Path = Path("graph.svg")) -> None:
    """Draw a network: its vertices, their shapes and parameters, and who reads whom.

    Args:
        model: Which network.
        data: What it reads: a data set, as for train.
        file: The picture, an SVG.
    """
    if file.suffix != ".svg":
        raise ValueError(f"expected a file that ends in .svg, got {str(file)!r}")
    graph = Task(TaskSettings(data=data, model=model, batch_size=1), trains=False).graph
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, draw_graph(graph).encode())
    print(graph)
    print(f"drawing: {file}")
