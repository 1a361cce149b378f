"""The tiny runs of the other kinds, to be merged: three that write and three that classify, of different ranks."""

from __future__ import annotations

from tests.kinds.distil.conftest import decoder, writer_ids, writers
from tests.kinds.recycle.conftest import backbone, taught, teacher_ids

__all__ = ["backbone", "decoder", "taught", "teacher_ids", "writer_ids", "writers"]
