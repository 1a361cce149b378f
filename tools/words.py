"""Keep what users read in plain English: the project's own phrases of old, and what to write instead.

python -m tools.words            read the documents and the texts of pages, commands and messages
python -m tools.words PATH...    read these files and folders alone

Read are the prose of Markdown files (no code, no tables' formulas), the string literals of Python files, the
docstrings of `dynlora/`, of other folders those that users see (commands, methods), and the texts of HTML and
JavaScript files. A line with `words: allow` in a comment is left out.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "docs")
CODE = ("app.py", "pages", "dynlora")

UNREAD = (
    "dynlora/viz/run/",
    "dynlora/viz/inputs/",
    "dynlora/viz/report/",
    "dynlora/notebook/",
    "dynlora/kinds/train/",
    "dynlora/jobs/",
    "dynlora/integrations/",
    "dynlora/inference/",
    "dynlora/cli/decode.py",
)
"""Folders and files whose docstrings are still to be mended."""

ALLOW = "words: allow"
_EACH = (
    r"sequence|token|module|component|method|command|run|step|claim|copy|row|stage|example|second|line|seed|layer|kind"
)


@dataclass(frozen=True)
class Phrase:
    """A phrase that users do not know.

    Attributes:
        pattern: that finds it, upper or lower case.
        instead: what to write.
        sample: a text that holds it.
    """

    pattern: str
    instead: str
    sample: str


PHRASES = (
    Phrase(r"\bby lot\b|\blots\b(?! of)", "at random; random allocation", "moves drawn by lot"),
    Phrase(
        r"\b(?:told|tell(?:s|ing)?) (?:\w+ ){0,2}(?:apart|from)\b",
        "(not) significantly different; distinguish",
        "not told from zero",
    ),
    Phrase(r"\bclear of (?:zero|0)\b", "95 % CI excludes 0", "an interval clear of zero"),
    Phrase(
        r"(?:, |both |it |them |interval (?:is )?)open\b(?!\.| the| a| in| it| one)",
        "inconclusive (CI includes 0)",
        "the interval is open",
    ),
    Phrase(r"\bpromise[sd]?\b", "predicted loss reduction; gain", "the gradient promises most"),
    Phrase(r"\blisten(?:s|ing|ed)?\b", "accumulate gradients", "the steps of listening"),
    Phrase(r"\b(?:hears?|heard)\b", "accumulate gradients; record", "what the sketch heard"),
    Phrase(r"\bcommitment\b", "one-shot reallocation", "commitment after step 8"),
    Phrase(r"\bworth\b", "importance; useful", "what a module is worth"),
    Phrase(r"\bpull(?:s|ed)?\b(?! requests?| URL)", "gradient; saliency", "the loss pulls at the factor"),
    Phrase(r"\b(?:lies?|lying)\b", "is; is located", "where capacity lies"),
    Phrase(r"\bstand(?:s|ing)?\b(?! for\b)(?!ard)", "is; represents", "what stands in the file"),
    Phrase(r"\b(?:came|comes?) of\b", "result of", "what came of it"),
    Phrase(r"\b(?:goes|went|go|going) on\b", "continues; resumes", "training goes on"),
    Phrase(r"\banew\b", "again; from scratch", "built anew"),
    Phrase(r"\bowed to\b", "attributed to", "the words it is owed to"),
    Phrase(
        rf"\b(?:gate|file|component|column|row|page|number|value|command|rate|seed|batch|line|pass|text|s) an? "
        rf"(?:{_EACH})\b",
        "one X per Y",
        "a gate a sequence",
    ),
    Phrase(
        r"\bwho (?:gave|gives) to whom\b|\bgives and gets\b", "rank transfers; donor and receiver", "who gave to whom"
    ),
    Phrase(r"\bfloor\b", "minimum rank", "at the floor"),
    Phrase(r"\btwins?\b", "matched baseline run; random control", "its uniform twin"),
    Phrase(r"\bembedded\b", "built-in", "the embedded model"),
    Phrase(r"\bshift lab\b", "robustness; distribution shift", "the shift lab"),
    Phrase(r"\bpaper one would write\b", "results table", "the paper one would write"),
    Phrase(r"\bin the mean\b", "on average", "ahead in the mean"),
    Phrase(r"\b(?:held-out|training|validation) rows\b", "examples", "on held-out rows"),
    Phrase(
        r"\b(?:the|a|an|its|their|what|which) share\b(?! of it)|\bshares? of\b", "fraction", "the share of the budget"
    ),
    Phrase(r"\bcomes to\b", "equals; results in", "what it comes to"),
    Phrase(r"\bhangs? on\b", "depends on", "the loss hangs on it"),
    Phrase(r"\bunder the lens\b", "explained", "a text under the lens"),
    Phrase(r"\bstranger'?s?\b|\bwarily\b", "untrusted; defensively", "a stranger's run"),
    Phrase(r"\bfor want of\b", "because of too little", "for want of memory"),
    Phrase("\u2014", "a full stop, a comma or a colon", "rank \u2014 and gates"),
)
"""What is kept out, in the order of the glossary."""


@dataclass(frozen=True)
class Found:
    """A phrase in a file.

    Attributes:
        path: of the file.
        line: from 1.
        text: the phrase as it is written.
        instead: what to write.
    """

    path: Path
    line: int
    text: str
    instead: str

    def __str__(self) -> str:
        path = self.path.relative_to(ROOT) if self.path.is_relative_to(ROOT) else self.path
        return f"{path}:{self.line}: {self.text!r} -> {self.instead}"


def matches(text: str) -> Iterator[tuple[str, str]]:
    """Yield each phrase in a text with what to write instead."""
    for phrase in PHRASES:
        for match in re.finditer(phrase.pattern, text, re.IGNORECASE):
            yield match[0], phrase.instead


def of_markdown(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of prose with their numbers: without code, formulas, addresses and HTML."""

    def blank(match: re.Match[str]) -> str:
        return "\n" * match[0].count("\n")

    text = re.sub(r"```.*?```|\$\$.*?\$\$|<!--(?!.*words: allow).*?-->|<[^>\n]+>", blank, text, flags=re.DOTALL)
    for number, line in enumerate(text.split("\n"), 1):
        if ALLOW not in line:
            yield number, re.sub(r"`[^`]*`|\$[^$]+\$|\]\([^)]*\)|https?://\S+", " CODE ", line)


def of_docstrings(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of the docstrings of a Python file, also of its attributes, without code in backticks."""
    lines = text.split("\n")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            for number in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                yield number, re.sub(r"`[^`]*`", " CODE ", lines[number - 1])


def of_python(text: str) -> Iterator[tuple[int, str]]:
    """Yield the texts of a Python file that users read, with their lines."""
    lines, tree = text.split("\n"), ast.parse(text)
    skipped = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    skipped |= {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in ast.walk(node)
        if part is not node
    }
    for node in ast.walk(tree):
        words = (_literal(node) or _shown_docstring(node)) if id(node) not in skipped else ""
        if " " in words and isinstance(node, ast.expr | ast.stmt):
            own = lines[node.lineno - 1 : node.end_lineno]
            if not any(ALLOW in line for line in own):
                yield node.lineno, words


def _literal(node: ast.AST) -> str:
    """Return the text of a literal, holes of an f-string as `{}`; empty for other nodes."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_literal(part) or "{}" for part in node.values)
    return ""


def _shown_docstring(node: ast.AST) -> str:
    """Return the docstring of a command or of a method's class, which users read; empty for other nodes."""
    if isinstance(node, ast.FunctionDef) and any("command(" in ast.unparse(one) for one in node.decorator_list):
        return ast.get_docstring(node) or ""
    text = ast.get_docstring(node) or "" if isinstance(node, ast.ClassDef) else ""
    return text if "Paper:" in text else ""


def of_web(text: str, *, is_script: bool) -> Iterator[tuple[int, str]]:
    """Yield the texts of an HTML page, or the string literals of a script, with their lines."""
    for number, line in enumerate(text.split("\n"), 1):
        if ALLOW in line:
            continue
        strings = re.findall(r"\"([^\"]* [^\"]*)\"|'([^']* [^']*)'|`([^`]* [^`]*)`", line.partition("// ")[0])
        yield number, " ".join("".join(one) for one in strings) if is_script else re.sub(r"<[^>]+>", " ", line)


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield what users read in a file, with lines; nothing for files of other kinds."""
    text = path.read_text("utf-8")
    if path.suffix == ".md":
        yield from of_markdown(text)
    elif path.suffix == ".py":
        yield from of_python(text)
        if ROOT / "dynlora" in path.parents and not path.relative_to(ROOT).as_posix().startswith(UNREAD):
            yield from of_docstrings(text)
    elif path.suffix in (".html", ".js"):
        yield from of_web(text, is_script=path.suffix == ".js")


def files(paths: Iterable[Path]) -> list[Path]:
    """Return the files in some paths; of folders those that hold texts for users."""
    kinds = (".md", ".py", ".html", ".js")
    collected: list[Path] = []
    for path in paths:
        inside = sorted(one for one in path.rglob("*") if one.suffix in kinds) if path.is_dir() else [path]
        collected += [one for one in inside if not set(one.parts) & {"__pycache__", "node_modules", "site"}]
    return collected


def found_in(paths: Iterable[Path]) -> list[Found]:
    """Return every phrase in some files and folders."""
    return [
        Found(path, line, text, instead)
        for path in files(paths)
        for line, passage in texts(path)
        for text, instead in matches(passage)
    ]


def main(arguments: Sequence[str]) -> int:
    """Print what is found and return the exit code."""
    paths = [Path(name).resolve() for name in arguments] or [ROOT / name for name in (*DOCUMENTS, *CODE)]
    phrases = found_in(paths)
    for one in phrases:
        print(one)
    print(f"{len(phrases)} phrases that users do not know" if phrases else "words: nothing found")
    return 1 if phrases else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
