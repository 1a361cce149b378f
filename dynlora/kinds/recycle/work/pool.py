"""What episodes are drawn from: examples of many classes, synthetic ones of the teachers or texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dynlora.kinds.recycle.work.meta_model import MetaModel
from dynlora.kinds.recycle.work.token_space import Synthetic


class Pool(Protocol):
    """Examples by class."""

    @property
    def rows(self) -> Sequence[np.ndarray]:
        """Rows of each class."""
        ...

    def features(self, meta: MetaModel, rows: np.ndarray) -> Tensor:
        """Return the features of some rows, (n, d), with their gradient."""
        ...


@dataclass(frozen=True)
class SyntheticPool:
    """Synthetic inputs of all classes of all teachers.

    Attributes:
        rows: of each class.
        inputs: all of them.
    """

    rows: Sequence[np.ndarray]
    inputs: Synthetic

    def features(self, meta: MetaModel, rows: np.ndarray) -> Tensor:
        """Return the features of some rows, (n, d)."""
        return meta.synthetic_features(self.inputs.take(torch.from_numpy(rows)))


@dataclass(frozen=True)
class TextPool:
    """Texts of classes: real data, for comparison.

    Attributes:
        rows: of each class.
        texts: all of them.
    """

    rows: Sequence[np.ndarray]
    texts: list[str]

    def features(self, meta: MetaModel, rows: np.ndarray) -> Tensor:
        """Return the features of some rows, (n, d)."""
        return meta.features(meta.tokens([self.texts[row] for row in rows]))
