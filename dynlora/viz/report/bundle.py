"""plotly.js for a page that may ask nobody for anything: the installed package's own file, packed into the page.

It is the file that the dashboard serves, so charts are the same there and here. 4.8 MB become 1.5 MB with gzip and
2 MB as text; the browser unpacks them. A page allows its own two scripts to run, by their digests, and no other.
"""

from __future__ import annotations

import base64
import gzip
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from dynlora.viz.kit.sealed_page import digest


class Bundle(NamedTuple):
    """plotly.js, packed.

    Attributes:
        packed: gzip, as base64.
        digest: of what is unpacked, as a policy names it.
    """

    packed: str
    digest: str


@cache
def plotly_bundle() -> Bundle:
    """Return plotly.js as the plotly package brings it; the same bytes for the same package."""
    source = files("plotly").joinpath("package_data", "plotly.min.js").read_bytes()
    return Bundle(base64.b64encode(gzip.compress(source, 9, mtime=0)).decode("ascii"), digest(source))
