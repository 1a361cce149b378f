"""No callback of a control draws: in a fragment that would take the place of the page's first elements.

Read off the source: every function that a control calls back, and every function that it calls in turn.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from tools import house

ROOT = Path(__file__).resolve().parents[2]
CALLBACKS = ("on_click", "on_change", "on_select", "on_submit")
QUIET = {"session_state", "query_params", "context"}
"""What a callback may use of streamlit: nothing of it draws. `rerun`, `stop` and `switch_page` do nothing there."""


def test_no_callback_draws() -> None:
    sources = {name: path.read_text("utf-8") for name, path in house.modules().items() if ".viz" in name}
    sources |= {f"pages.{path.stem}": path.read_text("utf-8") for path in ROOT.glob("pages/*.py")}
    callbacks = Callbacks(sources)
    assert callbacks.count > 30, "the callbacks are found"
    assert list(callbacks.drawing()) == []
    called = "import helpers\nimport streamlit as st\nst.button('a', on_click=helpers.say)\n"
    draws = "import streamlit as st\ndef say():\n    st.toast('x')\n"
    assert list(Callbacks({"page": called, "helpers": draws}).drawing()), "one that draws is found"


class Callbacks:
    """The functions that controls call back, and what they reach.

    Attributes:
        count: callbacks in all sources.
    """

    def __init__(self, sources: Mapping[str, str]) -> None:
        """Read sources, by the name of their module."""
        self.functions: dict[tuple[str, str], ast.AST] = {}
        self.methods: dict[str, list[tuple[str, ast.AST]]] = defaultdict(list)
        self.imports: dict[tuple[str, str], str] = {}
        self.modules = set(sources)
        self.roots: list[tuple[str, ast.AST]] = []
        for module, source in sources.items():
            self._read(module, ast.parse(source))
        self.count = len(self.roots)

    def _read(self, module: str, tree: ast.Module) -> None:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                self.functions[module, node.name] = node
            elif isinstance(node, ast.ClassDef):
                methods = [one for one in node.body if isinstance(one, ast.FunctionDef)]
                for method in methods:
                    self.methods[method.name].append((module, method))
            elif isinstance(node, ast.Import | ast.ImportFrom):
                start = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
                self.imports |= {(module, one.asname or one.name): f"{start}{one.name}" for one in node.names}
            elif isinstance(node, ast.Call):
                given = [word.value for word in node.keywords if word.arg in CALLBACKS]
                self.roots += [(module, value) for value in given if not isinstance(value, ast.Constant)]

    def drawing(self) -> Iterator[str]:
        """Yield where a callback, or what it calls, uses streamlit to draw."""
        seen: set[ast.AST] = set()
        waiting = [call for module, value in self.roots for call in self._called(module, value)]
        while waiting:
            module, function = waiting.pop()
            if function in seen:
                continue
            seen.add(function)
            if _draws_while_it_reads(function):
                yield f"{module}: {ast.unparse(function)[:80]}"
            for node in ast.walk(_body(function)):
                if (
                    isinstance(node, ast.Attribute)
                    and self._is_streamlit(module, node.value)
                    and node.attr not in QUIET
                ):
                    yield f"{module}:{node.lineno} {ast.unparse(node)}"
                elif isinstance(node, ast.Call):
                    waiting += self._called(module, node.func)

    def _is_streamlit(self, module: str, node: ast.AST) -> bool:
        return isinstance(node, ast.Name) and self.imports.get((module, node.id)) == "streamlit"

    def _called(self, module: str, value: ast.AST) -> list[tuple[str, ast.AST]]:
        """Return the functions that an expression may be."""
        if isinstance(value, ast.Lambda):
            return [(module, value)]
        if isinstance(value, ast.Call) and ast.unparse(value.func) in ("partial", "functools.partial"):
            return self._called(module, value.args[0])
        if isinstance(value, ast.Name):
            home, _, name = self.imports.get((module, value.id), f"{module}.{value.id}").rpartition(".")
            function = self.functions.get((home, name))
            return [] if function is None else [(home, function)]
        if isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name):
            home = self.imports.get((module, value.value.id), "")
            if home in self.modules:
                function = self.functions.get((home, value.attr))
                return [] if function is None else [(home, function)]
            return [] if home == "streamlit" else self.methods[value.attr]
        return []


def _body(function: ast.AST) -> ast.AST:
    """Return a function without its decorators, which run when it is defined."""
    return ast.Module(function.body, []) if isinstance(function, ast.FunctionDef) else function


def _draws_while_it_reads(function: ast.AST) -> bool:
    """Whether a function is cached and shows a spinner while it runs."""
    names = [ast.unparse(one) for one in getattr(function, "decorator_list", ())]
    return any("st.cache_" in name and "show_spinner=False" not in name for name in names)
