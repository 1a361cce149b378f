"""What a writer records is what a reader reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dynlora.store.reader import RunReader
from dynlora.store.rows import ModuleRow
from dynlora.store.writer import RunWriter


def test_a_run_reads_back_as_it_was_recorded(tmp_path: Path) -> None:
    folder = RunWriter.create(tmp_path, config_yaml="seed: 1\n", meta={"name": "a"}, max_steps=40, state="running")
    rng = np.random.default_rng(0)
    values = rng.standard_normal((40, 3)).astype(np.float32)
    with RunWriter.open(folder, resume_from=None) as writer:
        writer.define_modules([ModuleRow(f"m{i}", i, "query", 8, 8, 4) for i in range(3)])
        writer.define_signal("importance", "module", "", 3)
        for step in range(1, 41):
            writer.vector("importance", step, values[step - 1])
            writer.scalar("loss", "train", step, 1 / step)
            writer.progress(step)
        writer.event(40, "finish", [0, 2], {"why": "done"})
        writer.finish("finished")
    with RunReader(folder) as reader:
        steps, read = reader.signal("importance")
        np.testing.assert_array_equal(steps, np.arange(1, 41))
        np.testing.assert_array_equal(read, values)
        assert reader.status().status == "finished"
        assert reader.events()[-1].modules == [0, 2]
        assert [row.name for row in reader.modules()] == ["m0", "m1", "m2"]
