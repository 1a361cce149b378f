"""The rules of docs/ARCHITECTURE.md, read off the source: who imports whom, who may change what, how long it is."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]

TORCH = ("torch", "transformers", "accelerate", "datasets", "peft", "safetensors.torch")
UI = ("streamlit", "plotly")

# (files, what none of them imports). The first match of a glob does not end the search: every rule that fits applies.
IMPORT_RULES: list[tuple[str, tuple[str, ...]]] = [
    ("dynlora/config.py", (*TORCH, *UI, "pandas", "dynlora.engine", "dynlora.store", "dynlora.strategies")),
    ("dynlora/errors.py", (*TORCH, *UI, "pandas", "dynlora")),
    ("dynlora/assets/**/*.py", (*TORCH, *UI, "pandas", "dynlora.engine", "dynlora.store", "dynlora.strategies")),
    ("dynlora/store/**/*.py", (*TORCH, *UI, "dynlora.engine", "dynlora.strategies", "dynlora.viz")),
    (
        "dynlora/adapter_folder/**/*.py",
        (*TORCH, *UI, "pandas", "dynlora.engine", "dynlora.store", "dynlora.strategies", "dynlora.viz"),
    ),
    ("dynlora/jobs/cli_client.py", (*TORCH, *UI, "dynlora.engine", "dynlora.strategies", "dynlora.viz")),
    ("dynlora/jobs/uploads.py", (*TORCH, *UI, "pandas", "dynlora.engine", "dynlora.strategies", "dynlora.viz")),
    *(
        (f"dynlora/{name}.py", (*TORCH, *UI, "dynlora.engine", "dynlora.strategies", "dynlora.viz"))
        for name in ("launch", "sweep_request", "run_queue", "children", "inference_child", "trash")
    ),
    ("dynlora/config_files.py", (*TORCH, *UI, "pandas", "dynlora.engine", "dynlora.store", "dynlora.strategies")),
    ("dynlora/engine/**/*.py", (*UI, "pandas", "dynlora.store", "dynlora.strategies", "dynlora.viz")),
    ("dynlora/strategies/**/*.py", (*UI, "pandas", "dynlora.store", "dynlora.viz")),
    ("dynlora/*.py", UI),
    ("dynlora/viz/**/*.py", (*TORCH, "dynlora.engine", "dynlora.strategies")),
    ("dynlora/viz/report/*.py", (*TORCH, "streamlit", "dynlora.engine", "dynlora.strategies")),
    ("dynlora/viz/figures*.py", ("streamlit", "dynlora.store")),
    ("dynlora/viz/kit/theme.py", ("streamlit", "dynlora.store")),
    ("pages/*.py", (*TORCH, "plotly", "pandas", "sqlite3", "dynlora.engine", "dynlora.strategies")),
    ("app.py", (*TORCH, "plotly", "pandas", "sqlite3", "dynlora.engine", "dynlora.strategies")),
]

MAX_FUNCTION = 60
MAX_FILE = {"dynlora/**/*.py": 320, "dynlora/strategies/*.py": 200, "pages/*.py": 100}

OPTIMIZER_STATE = ("dynlora/engine/edits/", "dynlora/engine/loop/checkpoint.py")
"""The places that may read or write the optimiser's state: edits repair it, checkpoints carry it."""

TORCH_FREE = ("dynlora", "dynlora.config", "dynlora.assets", "dynlora.store", "dynlora.jobs.launch",
              "dynlora.server.app_files", "dynlora.jobs.uploads", "dynlora.peft_adapter")  # fmt: skip


def _sources(*patterns: str) -> list[Path]:
    return sorted({path for pattern in patterns for path in ROOT.glob(pattern) if path.stat().st_size})


ALL = _sources("dynlora/**/*.py", "pages/*.py", "app.py")


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def _run_time_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Every node below, without what is imported for a type checker only."""
    for child in ast.iter_child_nodes(node):
        if not _is_type_checking(child):
            yield child
            yield from _run_time_nodes(child)


def _package_of(path: Path) -> list[str]:
    return list(path.relative_to(ROOT).with_suffix("").parts[:-1])


def _imports(path: Path) -> set[str]:
    """Dotted names a file imports anywhere, also inside functions; relative ones made absolute."""
    found: set[str] = set()
    for node in _run_time_nodes(_tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = _package_of(path)
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return found


def _is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


@pytest.mark.parametrize(("pattern", "forbidden"), IMPORT_RULES, ids=[pattern for pattern, _ in IMPORT_RULES])
def test_imports_point_one_way(pattern: str, forbidden: tuple[str, ...]) -> None:
    broken = [
        f"{_name(path)} imports {name}"
        for path in _sources(pattern)
        for name in sorted(_imports(path))
        if any(_is_within(name, package) for package in forbidden)
    ]
    assert broken == []


def test_store_uses_pandas_in_queries_only() -> None:
    broken = [_name(path) for path in _sources("dynlora/store/*.py") if "pandas" in _imports(path)]
    assert [name for name in broken if name != "dynlora/store/queries.py"] == []


def test_strategies_do_not_import_each_other() -> None:
    broken = [
        f"{_name(path)} imports {name}"
        for path in _sources("dynlora/strategies/*.py")
        if path.name != "__init__.py"
        for name in _imports(path)
        if _is_within(name, "dynlora.strategies")
    ]
    assert broken == []


def test_streamlit_stays_in_widgets_and_pages() -> None:
    allowed = {"dynlora/viz/widgets.py", "app.py", "dynlora/server/asgi.py"}
    broken = [
        _name(path)
        for path in ALL
        if any(_is_within(name, "streamlit") for name in _imports(path))
        and not (_name(path) in allowed or _name(path).startswith(("pages/", "dynlora/viz/widgets/")))
    ]
    assert broken == []


def _attributes_set(tree: ast.Module) -> Iterator[ast.Attribute]:
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
            yield from (target for target in targets if isinstance(target, ast.Attribute))


def test_strategies_return_edits_and_change_nothing_themselves() -> None:
    broken = []
    for path in _sources("dynlora/strategies/*.py"):
        for target in _attributes_set(_tree(path)):
            if ast.unparse(target.value) != "self":
                broken.append(f"{_name(path)}:{target.lineno} sets {ast.unparse(target)}")
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.Name | ast.Attribute) and "optimizer" in ast.unparse(node).lower():
                broken.append(f"{_name(path)}:{node.lineno} touches {ast.unparse(node)}")
    assert broken == []


def test_only_edits_and_checkpoints_touch_the_optimizers_state() -> None:
    broken = [
        f"{_name(path)}:{node.lineno}"
        for path in ALL
        if not _name(path).startswith(OPTIMIZER_STATE)
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Attribute) and node.attr == "state" and "optimizer" in ast.unparse(node.value).lower()
    ]
    assert broken == []


def _strategy_names() -> set[str]:
    """A strategy is registered by its file, so the file names are the names."""
    return {path.stem for path in (ROOT / "dynlora/strategies").glob("*.py") if not path.stem.startswith("_")}


def _compared_strings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
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
        for line, value in _compared_strings(_tree(path))
        if value in names
    ]
    assert broken == []


def test_colours_are_defined_in_the_theme_only() -> None:
    colour = re.compile(r"#[0-9a-fA-F]{3}(?:[0-9a-fA-F]{3}(?:[0-9a-fA-F]{2})?)?|rgba?\(.*|hsla?\(.*")
    broken = [
        f"{_name(path)}:{node.lineno} {node.value!r}"
        for path in _sources("dynlora/viz/**/*.py", "pages/*.py", "app.py")
        if _name(path) != "dynlora/viz/kit/theme.py"
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and colour.fullmatch(node.value)
    ]
    assert broken == []


def test_functions_are_short() -> None:
    long = [
        f"{_name(path)}:{node.lineno} {node.name} has {(node.end_lineno or 0) - node.lineno + 1} lines"
        for path in ALL
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION
    ]
    assert long == []


@pytest.mark.parametrize("pattern", list(MAX_FILE))
def test_files_are_short(pattern: str) -> None:
    lengths = {_name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in _sources(pattern)}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_FILE[pattern]} == {}


def test_file_names_are_things_of_the_field() -> None:
    assert [_name(path) for path in ALL if path.stem in ("utils", "util", "helpers", "common", "core", "misc")] == []


OPTIONAL = {"dynlora/inference/session.py": "umap", "dynlora/assets/gguf_llama.py": "gguf"}
"""Files that import what only an extra of that name brings, each after it has looked whether it is there."""

NOT_HERE = {"umap": ["umap-learn"]}
"""Distributions of packages that need not be installed where the tests run."""


def _declared(extra: str | None = None) -> set[str]:
    """Distributions that `pip install dynlora`, or `dynlora[extra]`, brings, by their normalized names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = [*project["dependencies"], *(project["optional-dependencies"][extra] if extra else [])]
    return {canonicalize_name(Requirement(text).name) for text in found}


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
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
