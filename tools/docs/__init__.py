"""The documentation site: generated pages, formulas as MathML, and the hooks that put both into MkDocs."""
