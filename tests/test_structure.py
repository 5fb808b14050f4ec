"""Imports go one way, public names are documented, modules stay small."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import vicinal as vc

SOURCE = Path(vc.__file__).resolve().parent

# Each module may import from its own level and below; a folder is named by its first part.
LEVELS = [
    {
        "files",
        "interruption",
        "_assignment",
        "_counted",
        "_foreign",
        "_given",
        "_json",
        "_plain",
        "_archives",
        "_reading",
        "_memory",
        "_lock",
        "_nearest",
        "_optional",
        "report",  # draws plain data, and needs no other part
        "_primitive",
        "_masking",
        "_trace",
        "_program",
        "_records",
        "_synapses",
        "_counting",
        "_flow",
        "_products",
        "_slicing",
        "_stored",
        "_activations",
        "activations",
        "_convolutions",
        "_numbers",
        "_show",
        "clamped",
        "graph",
        "marking",
        "roles",
        "keys",
        "state",
        "_statistics",
        "_captured",
        "losses",
        "energy",
        "credit",
        "events",
        "spikes",
    },
    {"nn", "inference", "attention", "data", "references", "_minimise"},
    {"rules", "optim", "feedback"},
    {"analysis", "hardware", "train", "testing", "interchange"},
    {
        "recipes",
        "settings",
        "hardware_settings",
        "inference_settings",
        "event_settings",
        "config",
        "environment",
        "task",
        "ledgers",
        "presentations",
        "compare",
        "sweeping",
    },
    {"reproduce"},
    {"cli", "__main__"},
]
LEVEL = {name: i for i, names in enumerate(LEVELS) for name in names}
EXPERIMENTS = sorted((SOURCE.parent / "vicinal_experiments").rglob("*.py"))
MODULES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


def part(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vicinal"):
            names |= {part(node.module)} if "." in node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {part(alias.name) for alias in node.names if alias.name.startswith("vicinal.")}
    return names & set(LEVEL)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_one_way(path):
    own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    assert own in LEVEL, f"place {own} in a level"
    for name in imported(path):
        assert LEVEL[name] <= LEVEL[own], f"{own} imports {name} from above"
    assert own != "rules" or "nn" not in imported(path), "a rule sees a graph and parameters, never layers"


def modules_imported(path: Path, modules: set[str]) -> set[str]:
    """The modules that a file imports from, also in functions and for type checkers alone."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names & modules


def test_no_modules_import_in_a_circle():
    """Packages' lists of names do not count."""
    paths = {
        ".".join(("vicinal", *path.relative_to(SOURCE).with_suffix("").parts)): path
        for path in MODULES
        if path.name != "__init__.py"
    }
    left = {name: modules_imported(path, set(paths)) for name, path in paths.items()}
    while free := {name for name, others in left.items() if not others & left.keys()}:
        left = {name: others for name, others in left.items() if name not in free}
    assert not left, {name: sorted(others & left.keys()) for name, others in left.items()}


def test_the_library_does_not_import_its_experiments():
    """The command finds them by their entry point, as it finds anybody's."""
    experiments = {"vicinal_experiments", *(f"vicinal_experiments.{path.stem}" for path in EXPERIMENTS)}
    assert not [path for path in SOURCE.rglob("*.py") if modules_imported(path, experiments)]


@pytest.mark.parametrize("path", [*MODULES, *EXPERIMENTS], ids=lambda path: str(path.relative_to(SOURCE.parent)))
def test_modules_stay_small(path):
    assert len(path.read_text().splitlines()) <= 400


def test_test_files_stay_small():
    for path in Path(__file__).parent.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, f"split {path.name} by subject"


def bound(body: list[ast.stmt]) -> set[str]:
    """The names that a package takes from elsewhere; those for type checkers too."""
    names = set()
    for node in body:
        if isinstance(node, ast.If):
            names |= bound(node.body)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("vicinal", "equinox"):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("__init__.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_package_lists_what_it_offers(path):
    package = importlib.import_module(".".join(("vicinal", *path.parent.relative_to(SOURCE).parts)))
    assert sorted(package.__all__) == sorted(bound(ast.parse(path.read_text()).body))
    assert all(getattr(package, name) is not None for name in package.__all__)


def test_an_unknown_name_lists_the_existing_ones():
    with pytest.raises(AttributeError, match=r"no attribute 'rule'; it has .*rules"):
        _ = vc.rule
    assert {"capture", "nn", "__version__"} <= set(dir(vc))


def public_things():
    for module in (
        vc,
        vc.analysis,
        vc.attention,
        vc.data.sequences,
        vc.data,
        vc.energy,
        vc.feedback,
        vc.hardware,
        vc.inference,
        vc.interchange,
        vc.losses,
        vc.nn,
        vc.optim,
        vc.recipes,
        vc.report,
        vc.rules,
        vc.rules.inversion,
        vc.rules.projectors,
        vc.testing,
        vc.train,
        vc.train.hooks,
    ):
        for name in getattr(module, "__all__", vars(module)):
            thing = getattr(module, name)
            ours = getattr(thing, "__module__", "").startswith("vicinal")
            if not name.startswith("_") and ours and (inspect.isclass(thing) or inspect.isfunction(thing)):
                yield pytest.param(thing, id=f"{module.__name__}.{name}")


@pytest.mark.parametrize("thing", list(public_things()))
def test_public_names_are_documented(thing):
    assert inspect.getdoc(thing)
    assert len(inspect.getdoc(thing).splitlines()[0]) <= 120
