"""What pages are made of and only streamlit can draw: cards, the address, pickers, live parts.

The address is the truth: a control is set from it before it is drawn and writes to it when changed (`url_state.py`), so
every view is a link and Back works. Live parts of a page are drawn again every few seconds; where that takes long it
comes more rarely, so that it takes a fifth of the time at most (`live.py`). Callbacks never draw: they announce, and
the next drawing of the page says it (`live.py`). `browser/` and `replay/` need no server once they are loaded.
"""
