"""`make gpu` says where there is no GPU, and makes one file of figures and one table where there is one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu, results

RATIO = {"median": 0.8, "low": 0.75, "high": 0.85, "of_sums": 0.8}
STEPS = {
    "alone": {
        "peft-lora": {"peak_mib": 200.0, "waits_per_step": 1.0},
        "lora": {"peak_mib": 180.0, "waits_per_step": 0},
    },
    "in turn": {
        "precision": "bf16",
        "length": 512,
        "dropout": True,
        "median_ms": {"peft-lora": 100.0, "lora": 80.0},
        "ratios": {"lora/peft-lora": RATIO},
    },
}


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that results go to, and nothing is measured."""
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    return tmp_path


def measure(monkeypatch: pytest.MonkeyPatch, **others: Any) -> None:
    """Have a GPU whose figures are given."""
    figures = {"device": "a GPU", "shape": "llama-1b", "seq": 512, "batch_size": 8, "processes": {"1": 90.0, "2": 50.0}}
    figures |= {"weights": {"whole": STEPS, "nf4": "not measured: needs a package"}, "tests": None, **others}
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "measured", lambda _: figures)


def test_without_a_gpu_it_says_so_fails_nothing_and_writes_nothing(
    written: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 0
    assert capsys.readouterr().out.startswith("not measured: this machine has no GPU that torch can use")
    assert list(written.iterdir()) == []


def test_one_command_writes_one_file_and_one_table(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure(monkeypatch)
    assert gpu.main([]) == 0
    assert sorted(path.name for path in written.iterdir()) == ["gpu.json", "gpu.md"]
    assert json.loads((written / "gpu.json").read_text("utf-8"))["figures"]["weights"]["whole"] == STEPS
    lines = (written / "gpu.md").read_text("utf-8").splitlines()
    assert "| whole | `lora` | 80.0 | 0.80 (0.75 to 0.85) | 180 | 0 |" in lines
    assert "| whole | `peft-lora` | 100.0 |  | 200 | 1 |" in lines
    assert "| nf4 | all | not measured: needs a package | | | |" in lines
    assert "A step of `dynamic` by processes: 90.0 ms in 1, 50.0 ms in 2." in lines
    assert lines[-1] == "Tests: not run."


def test_a_test_that_fails_on_the_gpu_is_its_exit_code(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure(monkeypatch, tests={"passed": 4, "failed": 1, "skipped": 0})
    assert gpu.main([]) == 1
    assert (written / "gpu.md").read_text("utf-8").endswith("Tests: 4 passed, 1 failed, 0 skipped.\n")


def test_a_single_gpu_has_no_time_of_two_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu.torch.cuda, "device_count", lambda: 1)
    setting = gpu.Setting("model", tmp_path, "bf16", 8, True, 2, 2, 4)
    assert gpu.of_processes(setting) == "not measured: one device"


def test_quantised_weights_without_their_package_are_not_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gpu, "PACKAGE", "no_such_package")
    setting = gpu.Setting("model", tmp_path, "bf16", 8, True, 2, 2, 4, "nf4")
    assert gpu.of_weights(setting, gpu.QUANTISED, 1) == (
        "not measured: needs no_such_package, pip install 'dynlora[quantization]'"
    )


def test_tests_are_counted_by_outcome(tmp_path: Path) -> None:
    path = tmp_path / "test_outcomes.py"
    path.write_text(
        "import pytest\n"
        "def test_passes(): pass\n"
        "def test_fails(): raise ValueError\n"
        "@pytest.mark.skip(reason='x')\n"
        "def test_is_skipped(): pass\n"
        "@pytest.fixture\n"
        "def broken(): raise ValueError\n"
        "def test_cannot_begin(broken): pass\n",
        "utf-8",
    )
    assert gpu.tested([str(path)]) == {"passed": 1, "failed": 2, "skipped": 1}


def test_the_tests_that_it_runs_are_there() -> None:
    assert [name for name in gpu.TESTS if not (gpu.ROOT / name).is_file()] == []
