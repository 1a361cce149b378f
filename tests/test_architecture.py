"""The rules of docs/ARCHITECTURE.md, read off the source: who imports whom, who may change what, how long it is."""

from __future__ import annotations

import ast
import itertools
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dynlora.config import TASKS
from tools import house

ROOT = Path(__file__).resolve().parents[1]
OPTIMIZER_STATE = ("dynlora/engine/edits/", "dynlora/engine/loop/checkpoint.py", "dynlora/strategies/")
"""The places that may read or write the optimiser's state: edits repair it, checkpoints carry it."""

TORCH_FREE = (
    "dynlora",
    "dynlora.config",
    "dynlora.assets",
    "dynlora.store",
    "dynlora.jobs.launch",
    "dynlora.server.serve",
    "dynlora.jobs.uploads",
    "dynlora.peft_adapter",
    "dynlora.data_files.scan",
)


def _sources(*patterns: str) -> list[Path]:
    return sorted({path for pattern in patterns for path in ROOT.glob(pattern) if path.stat().st_size})


ALL = _sources("dynlora/**/*.py", "pages/*.py", "app.py")


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def _run_time_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Every node below, without what is imported for a type checker only."""
    waiting = [node]
    while waiting:
        for child in ast.iter_child_nodes(waiting.pop()):
            if not _is_type_checking(child):
                yield child
                waiting.append(child)


def _package_of(path: Path) -> list[str]:
    return list(path.relative_to(ROOT).with_suffix("").parts[:-1])


@cache
def _imports(path: Path) -> set[str]:
    """Dotted names a file imports anywhere, also inside functions; relative ones made absolute."""
    names: set[str] = set()
    for node in _run_time_nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = _package_of(path)
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return names


def _package_edges() -> Iterator[tuple[str, str]]:
    """Yield each module and each that it imports from another package."""
    for name, targets in house.edges().items():
        for target in sorted(targets):
            if house.package_of(name) != house.package_of(target):
                yield name, target


def test_every_package_has_a_layer() -> None:
    packages = {house.package_of(name) for name in house.modules()}
    assert [package for package in sorted(packages) if house.layer_of(package) is None and package != "viz"] == []


def test_nothing_imports_a_higher_layer() -> None:
    level = {name: house.layer_of(house.package_of(name)) or 0 for name in house.modules()}
    assert [f"{a} imports {b}" for a, b in _package_edges() if level[b] > level[a]] == []


def test_no_package_imports_itself_by_way_of_others() -> None:
    packages: dict[str, set[str]] = {house.package_of(name): set() for name in house.modules()}
    for name, target in _package_edges():
        packages[house.package_of(name)].add(house.package_of(target))
    assert list(cycles({package: frozenset(targets) for package, targets in packages.items()})) == []


@pytest.mark.parametrize(("packages", "never"), house.NEVER)
def test_what_may_never_be(packages: str, never: str) -> None:
    broken = [
        f"{name} imports {target}"
        for name, path in house.modules().items()
        if house.matches(house.package_of(name), packages)
        for target in sorted(set(house.imported(path)))
        if house.is_of(target, never)
    ]
    assert broken == []


def test_an_import_by_string_or_inside_a_function_counts(tmp_path: Path) -> None:
    file = tmp_path / "lazy.py"
    file.write_text('def go():\n    import torch.nn\n    return import_module("dynlora.viz.report.page")\n', "utf-8")
    assert set(house.imported(file)) == {"torch.nn", "dynlora.viz.report.page"}
    assert house.is_of("torch.nn", house.TORCH)
    assert not house.is_of("torchlike", house.TORCH)


COMMANDS = "resume|stop|delete|tag|show|compare|signals|export|predict|evaluate|compress|track|queue|push|report"
"""Those that take the id of a run."""


def test_a_command_on_a_run_is_worded_at_one_place() -> None:
    """`store.schema.command_text` adds the runs folder where it is not the default one."""
    broken = []
    for path in ALL:
        for text in (node for node in house.nodes(path) if isinstance(node, ast.JoinedStr)):
            for before, after in itertools.pairwise(text.values):
                is_value = isinstance(before, ast.Constant) and isinstance(after, ast.FormattedValue)
                if is_value and re.search(rf"\bdynlora ({COMMANDS}) $", str(before.value)):  # pyright: ignore
                    broken.append(f"{_name(path)}:{text.lineno}")
    assert broken == []


def test_no_file_imports_itself_by_way_of_others_not_even_for_a_type_checker() -> None:
    assert list(cycles(house.edges())) == []


def cycles(edges: Mapping[str, frozenset[str]]) -> Iterator[list[str]]:
    """Yield a way round for every file that can be reached from itself."""
    done: set[str] = set()
    way: list[str] = []

    def visit(name: str) -> Iterator[list[str]]:
        if name in way:
            yield [*way[way.index(name) :], name]
        elif name not in done:
            way.append(name)
            for target in sorted(edges[name]):
                yield from visit(target)
            way.pop()
            done.add(name)

    for name in edges:
        yield from visit(name)


def test_a_cycle_is_found() -> None:
    edges = {"a": frozenset({"b"}), "b": frozenset({"c"}), "c": frozenset({"b"})}
    assert list(cycles(edges)) == [["b", "c", "b"]]


def test_the_map_in_the_document_is_that_of_the_code() -> None:
    text = house.PAGE.read_text("utf-8")
    assert house.with_map(text) == text, "run python -m tools.house"


@pytest.mark.parametrize("path", sorted((ROOT / "docs").rglob("*.md")), ids=lambda path: path.stem)
def test_every_file_a_document_names_is_there(path: Path) -> None:
    names = set(re.findall(r"`((?:[a-z_0-9]+/)+[a-z_0-9]+\.(?:py|md|json))`", path.read_text("utf-8")))
    assert [name for name in sorted(names) if not any((ROOT / base / name).exists() for base in ("", "dynlora"))] == []


def test_every_function_and_class_the_document_names_is_there() -> None:
    text = house.PAGE.read_text("utf-8")
    for name, member in re.findall(r"`((?:[a-z]+/)+[a-z_]+\.py)` `(\w+)`", text):
        path = next(path for base in ("", "dynlora") if (path := ROOT / base / name).exists())
        assert member in _defined(path), f"{name} has no {member}"


def _defined(path: Path) -> set[str]:
    """Return the functions, methods and classes of a file."""
    return {node.name for node in house.nodes(path) if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def test_store_uses_pandas_in_queries_only() -> None:
    broken = [_name(path) for path in _sources("dynlora/store/*.py") if "pandas" in _imports(path)]
    assert [name for name in broken if name not in ("dynlora/store/queries.py", "dynlora/store/whole_tables.py")] == []


def test_one_z_serves_every_interval() -> None:
    broken = [
        f"{_name(path)}:{node.lineno} {node.value}"
        for path in ALL
        if _name(path) != "dynlora/analysis/stats.py"
        for node in house.nodes(path)
        if isinstance(node, ast.Constant) and isinstance(node.value, float) and 1.955 < node.value < 1.965
    ]
    assert broken == []


def test_a_name_is_the_thing_it_holds() -> None:
    folders = ("dynlora", "pages", "examples", "tools", "benchmarks", "tests")
    broken = [
        f"{_name(path)}:{line} {name}"
        for path in _sources(*(f"{folder}/**/*.py" for folder in folders))
        if not _name(path).startswith(house.NAMES_LEFT)
        for line, name in house.misnamed(path)
    ]
    assert broken == []


def test_a_method_imports_no_other_method() -> None:
    broken = [
        f"{name} imports {target}"
        for name, targets in house.edges().items()
        for target in sorted(targets)
        if name.startswith("dynlora.strategies.") and target.startswith("dynlora.strategies.")
        if name.split(".")[2] != target.split(".")[2]
    ]
    assert broken == []


COMPUTED = re.compile(r"dynlora/viz/.*/(?:\w+_)?(?:model|figures|text|panels|pictures|picture|frames)\.py")
"""Files of a feature that take frames and return frames, figures or text."""


def test_what_computes_captions_and_figures_draws_nothing_itself() -> None:
    files = [path for path in ALL if COMPUTED.fullmatch(_name(path))]
    assert files
    assert [_name(path) for path in files if "streamlit" in _imports(path)] == []


def _attributes_set(tree: ast.AST) -> Iterator[ast.Attribute]:
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
            yield from (target for target in targets if isinstance(target, ast.Attribute))


def _plain(node: ast.AST) -> str:
    """Return code as text, without the name of the setting that resets the optimizer."""
    return ast.unparse(node).lower().replace("reset_optimizer", "")


MAY_CHANGE = {"Change", "LoraLinear"}
"""Bases of what may change a model: edits, and modules themselves."""


def _may_change(part: ast.stmt) -> bool:
    """Say whether a part of a file is an edit, an adapted module, or a function that is given the optimizer."""
    if isinstance(part, ast.FunctionDef):
        return any(argument.arg == "optimizer" for argument in part.args.args)
    return isinstance(part, ast.ClassDef) and bool(MAY_CHANGE & set(map(ast.unparse, part.bases)))


def test_strategies_return_edits_and_change_nothing_themselves() -> None:
    broken = []
    for path in _sources("dynlora/strategies/*.py", "dynlora/strategies/*/strategy.py"):
        parts = ast.parse(path.read_text("utf-8")).body
        for part in (part for part in parts if not _may_change(part)):
            for target in _attributes_set(part):
                if ast.unparse(target.value) != "self":
                    broken.append(f"{_name(path)}:{target.lineno} sets {ast.unparse(target)}")
            for node in ast.walk(part):
                if isinstance(node, ast.Name | ast.Attribute) and "optimizer" in _plain(node):
                    broken.append(f"{_name(path)}:{node.lineno} touches {ast.unparse(node)}")
    assert broken == []


def test_only_edits_and_checkpoints_touch_the_optimizers_state() -> None:
    broken = [
        f"{_name(path)}:{node.lineno}"
        for path in ALL
        if not _name(path).startswith(OPTIMIZER_STATE)
        for node in house.nodes(path)
        if isinstance(node, ast.Attribute) and node.attr == "state" and "optimizer" in ast.unparse(node.value).lower()
    ]
    assert broken == []


def _strategy_names() -> set[str]:
    """A strategy is registered by its file, so the file names are the names."""
    places = (ROOT / "dynlora/strategies").iterdir()
    return {path.stem for path in places if not path.name.startswith(("_", "."))}


def _compared_strings(path: Path) -> Iterator[tuple[int, str]]:
    for node in house.nodes(path):
        operands: list[ast.AST] = []
        if isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            operands = [node.value]
        for operand in operands:
            for part in ast.walk(operand):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield part.lineno, part.value


def test_no_branch_on_a_strategys_name_outside_strategies() -> None:
    names = _strategy_names()
    broken = [
        f"{_name(path)}:{line} compares with {value!r}"
        for path in ALL
        if "strategies" not in path.parts
        for line, value in _compared_strings(path)
        if value in names
    ]
    assert broken == []


def test_nothing_outside_asks_for_a_tasks_name() -> None:
    names = {path.stem for path in (ROOT / "dynlora" / "tasks").glob("*.py")} & set(TASKS)
    assert {"classification", "causal_lm", "regression"} <= names
    broken = [
        f"{_name(path)}:{line} compares with {value!r}"
        for path in ALL
        if "tasks" not in path.parts and "viz" not in path.parts and "pages" not in path.parts
        for line, value in _compared_strings(path)
        if value in names
    ]
    assert broken == []


def test_colours_are_defined_in_the_theme_only() -> None:
    colour = re.compile(r"#[0-9a-fA-F]{3}(?:[0-9a-fA-F]{3}(?:[0-9a-fA-F]{2})?)?|rgba?\(.*|hsla?\(.*")
    broken = [
        f"{_name(path)}:{node.lineno} {node.value!r}"
        for path in _sources("dynlora/viz/**/*.py", "pages/*.py", "app.py")
        if _name(path) != "dynlora/viz/kit/theme.py"
        for node in house.nodes(path)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and colour.fullmatch(node.value)
    ]
    assert broken == []


def test_file_names_are_things_of_the_field() -> None:
    assert [_name(path) for path in ALL if path.stem in ("utils", "util", "helpers", "common", "core", "misc")] == []


OPTIONAL = {
    "dynlora/inference/export.py": "onnx",
    "dynlora/inference/session.py": "umap",
    "dynlora/integrations/search/driver.py": "search",
    "dynlora/integrations/cluster.py": "ray",
    "dynlora/assets/gguf_llama.py": "gguf",
    "dynlora/data_files/reader.py": "excel",
    **{path.relative_to(ROOT).as_posix(): "contracts" for path in ROOT.glob("dynlora/contracts/*.py")},
    **{
        f"dynlora/integrations/trackers/{name}.py": name
        for name in ("tensorboard", "trackio", "mlflow", "wandb", "aim")
    },
    "dynlora/integrations/tracker_files/tensorboard.py": "tensorboard",
}
"""Files that import what only an extra of that name brings, each after it has looked whether it is there."""

NOT_HERE = {"umap": ["umap-learn"]}
"""Distributions of packages that need not be installed where the tests run."""


def _declared(extra: str | None = None) -> set[str]:
    """Distributions that `pip install dynlora`, or `dynlora[extra]`, brings, by their normalized names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = [*project["dependencies"], *(project["optional-dependencies"][extra] if extra else [])]
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def test_every_package_that_is_imported_is_declared() -> None:
    distributions = packages_distributions()
    broken = {
        f"{_name(path)} imports {top}"
        for path in ALL
        for top in {name.partition(".")[0] for name in _imports(path)}
        if top not in (*sys.stdlib_module_names, "dynlora")
        and not _declared(OPTIONAL.get(_name(path)))
        & {canonicalize_name(n) for n in distributions.get(top, NOT_HERE.get(top, [top]))}
    }
    assert broken == set()


@pytest.mark.parametrize("module", TORCH_FREE)
def test_import_pulls_in_neither_torch_nor_streamlit(module: str) -> None:
    program = (
        f"import sys, {module}\n"
        "heavy = {'torch', 'transformers', 'streamlit', 'plotly', 'datasets', 'gguf'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
