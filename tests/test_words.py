"""What users read is in plain English: the list finds each phrase where users read it, and finds none in the tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import words


@pytest.mark.parametrize("phrase", words.PHRASES, ids=lambda phrase: phrase.sample)
def test_each_phrase_is_found_with_what_to_write_instead(phrase: words.Phrase, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(f"# Title\n\nThis is {phrase.sample} here.\n")
    (tmp_path / "page.py").write_text(f'title = f"{{number}}: {phrase.sample}"\n')
    (tmp_path / "page.html").write_text(f"<p>{phrase.sample}</p>\n")
    (tmp_path / "page.js").write_text(f'say("{phrase.sample}");\n')
    for name, line in (("page.md", 3), ("page.py", 1), ("page.html", 1), ("page.js", 1)):
        phrases = words.found_in([tmp_path / name])
        assert (line, phrase.instead) in [(one.line, one.instead) for one in phrases], name


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.py", '"""What came of it, by lot."""\n\n\ndef one():\n    """Listen to what it is worth."""\n'),
        ("a.py", 'twin = row["floor"]  # what lies here goes on\n'),
        ("a.py", 'rng = seeded("drawn by lot")  # words: allow, the name of a stream\n'),
        ("a.md", "Open `by lot` and ![plot](worth.png); a pull request stands for review.\n\n```\nby lot\n```\n"),
        ("a.md", "The runs share a file. Open the page. It listed one seed per run, and lots of them.\n"),
        ("a.js", "const twin = floor; // goes on\n"),
    ],
)
def test_names_code_and_comments_are_left_alone(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert words.found_in([tmp_path]) == []


def test_docstrings_that_users_see_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text('@main.command()\ndef go():\n    """Say what came of it."""\n')
    (tmp_path / "b.py").write_text('class Method:\n    """Moves by lot.\n\n    Paper: none.\n    """\n')
    assert [one.text for one in words.found_in([tmp_path])] == ["came of", "by lot"]


def test_docstrings_of_the_package_are_read_without_code() -> None:
    text = 'X = 1\n"""What a step is worth."""\n\n\ndef go():\n    """Return `by lot`.\n\n    At the floor.\n    """\n'
    lines = [(number, phrase) for number, line in words.of_docstrings(text) for phrase, _ in words.matches(line)]
    assert lines == [(2, "worth"), (8, "floor")]


def test_the_command_names_file_line_and_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.md"
    path.write_text("One.\n\nIt goes on.\n")
    assert words.main([str(path)]) == 1
    assert f"{path}:3: 'goes on' -> continues; resumes" in capsys.readouterr().out


def test_the_tree_has_none_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert words.main([]) == 0, capsys.readouterr().out
