"""What MkDocs calls while it builds: adds the pages that are made from the code."""

from __future__ import annotations

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from dynlora import strategies
from tools.docs import pages


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List one page a method under Methods."""
    for entry in config.nav or []:
        if isinstance(entry, dict) and "Methods" in entry:
            known = [f"methods/{name}.md" for name in strategies.registry()]
            entry["Methods"] += [path for path in known if path not in entry["Methods"]]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put the generated pages in the place of notes of the same name."""
    for path, text in pages.generated().items():
        if (notes := files.get_file_from_path(path)) is not None:
            files.remove(notes)
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Let links to pages at the top of the repository reach their copies in the site; Results gets the whole width."""
    if page.file.src_uri == "RESULTS.md":
        page.meta["hide"] = ["navigation", "toc"]
    for name in pages.COPIED:
        markdown = markdown.replace(f"](../{name}", f"]({name}")
    return markdown
