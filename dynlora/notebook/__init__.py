"""Runs in a notebook: the figures of the pages, cards of runs, and several runs side by side.

It is loaded when `Run.plot`, `Run._repr_html_` or `dynlora.compare` is first used, so that the store imports no figure.
Questions to the store go through `analysis/frames.py`: pages hand over a subclass that keeps answers, a notebook
asks again. A figure differs from that of the page in two things: it brings the colour of the card along, and its points
take no clicks. Cards have inline styles alone, because notebooks drop style sheets and scripts.
"""
