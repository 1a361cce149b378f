"""One process that records a payload with one tracker, or reads a signal of it back, as its users would.

python -m benchmarks.trackers write NAME FOLDER PAYLOAD.npy RESULT.json
python -m benchmarks.trackers read NAME FOLDER SIGNAL MODULES RESULT.json

`benchmarks.store` runs it, in the environment that holds the tracker: beside the tracker itself only numpy is needed.
Opening and importing are timed apart. Trackers are imported by name, because no environment needs to hold them all.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

SIGNALS = ("importance", "rank", "gate")


def module_names(number: int) -> list[str]:
    """Return names of so many modules, as a BERT has them."""
    kinds = (
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    )
    return [f"encoder.layer.{i // len(kinds)}.{kinds[i % len(kinds)]}" for i in range(number)]


class Tracker(Protocol):
    """Records into a folder that is its own, and reads from it; `needs` are packages, that of its version first."""

    needs: tuple[str, ...]

    def start(self, folder: Path, modules: list[str]) -> None:
        """Begin a run; not timed."""

    def step(self, step: int, values: np.ndarray) -> None:
        """Record one step, (signals, modules) float32."""

    def close(self) -> None:
        """End the run: everything is readable afterwards."""

    def read(self, folder: Path, signal: str, modules: list[str]) -> np.ndarray:
        """Return one signal of all modules, (steps, modules)."""
        ...


class Dynlora:
    """The run store of this project: one vector a signal and step."""

    needs = ("dynlora",)

    def __init__(self) -> None:
        """Import what is needed."""
        self.writers = import_module("dynlora.store.writer")
        self.readers = import_module("dynlora.store.reader")
        self.rows = import_module("dynlora.store.rows")

    def start(self, folder: Path, modules: list[str]) -> None:
        """Make a run and take it over."""
        writer = self.writers.RunWriter
        run = writer.create(folder, config_yaml="seed: 0\n", meta={"name": "run"}, max_steps=10**6, state="running")
        self.writer = writer.open(run, resume_from=None)
        self.writer.define_modules([self.rows.ModuleRow(name, None, "linear", 1, 1, 1) for name in modules])
        for signal in SIGNALS:
            self.writer.define_signal(signal, "module", "", len(modules))

    def step(self, step: int, values: np.ndarray) -> None:
        """Record a vector for each signal, and say that the step is done."""
        for signal, vector in zip(SIGNALS, values, strict=True):
            self.writer.vector(signal, step, vector)
        self.writer.progress(step)

    def close(self) -> None:
        """Finish the run."""
        self.writer.finish("finished")

    def read(self, folder: Path, signal: str, modules: list[str]) -> np.ndarray:
        """Read the signal's vectors."""
        (run,) = (path for path in folder.iterdir() if (path / "run.db").exists())
        with self.readers.RunReader(run) as reader:
            return reader.signal(signal)[1]


class TensorBoard:
    """torch's SummaryWriter at its defaults: `add_scalar` for every module and signal."""

    needs = ("tensorboard", "torch")
    options: ClassVar[dict[str, int]] = {}

    def __init__(self) -> None:
        """Writer and reader are two libraries: each is imported where it is used."""
        self.summaries: Any = None

    def start(self, folder: Path, modules: list[str]) -> None:
        """Open a writer."""
        self.writer = import_module("torch.utils.tensorboard").SummaryWriter(str(folder), **self.options)
        self.tags = [[f"{signal}/{name}" for name in modules] for signal in SIGNALS]

    def step(self, step: int, values: np.ndarray) -> None:
        """Add each value."""
        for tags, vector in zip(self.tags, values.tolist(), strict=True):
            for tag, value in zip(tags, vector, strict=True):
                self.writer.add_scalar(tag, value, step)

    def close(self) -> None:
        """Wait for the writer's thread."""
        self.writer.close()

    def importing(self) -> None:
        """Import the reader."""
        self.summaries = import_module("tensorboard.backend.event_processing.event_accumulator")

    def read(self, folder: Path, signal: str, modules: list[str]) -> np.ndarray:
        """Load all events, nothing thinned out, and take the scalars of each module."""
        events = self.summaries.EventAccumulator(str(folder), size_guidance={"scalars": 0})
        events.Reload()
        return np.array([[e.value for e in events.Scalars(f"{signal}/{name}")] for name in modules]).T


class LongQueue(TensorBoard):
    """The same with a queue that takes all there is: at its default of 10 values the caller waits for a thread."""

    options: ClassVar[dict[str, int]] = {"max_queue": 10**7}


class Trackio:
    """trackio: one `log` of a dict a step, into its local database."""

    needs = ("trackio",)

    def __init__(self) -> None:
        """Import what is needed."""
        self.trackio = import_module("trackio")
        self.storage = import_module("trackio.sqlite_storage").SQLiteStorage

    def start(self, folder: Path, modules: list[str]) -> None:
        """Begin a run without readings of the machine, which the others do not take either."""
        self.trackio.init(project="run", name="run", embed=False, auto_log_cpu=False, auto_log_gpu=False)
        self.tags = _tags(modules)

    def step(self, step: int, values: np.ndarray) -> None:
        """Log all values at once."""
        self.trackio.log(dict(zip(self.tags, values.ravel().tolist(), strict=True)), step=step)

    def close(self) -> None:
        """Wait for the sender's thread."""
        self.trackio.finish()

    def read(self, folder: Path, signal: str, modules: list[str]) -> np.ndarray:
        """Read the log once, which is many times quicker than asking for one metric after the other."""
        tags = [f"{signal}/{name}" for name in modules]
        rows = self.storage.get_logs("run", "run")
        return np.array([[row[tag] for tag in tags] for row in sorted(rows, key=lambda row: row["step"])])


class MLflow:
    """MLflow with its own default, a local SQLite file: one `log_metrics` of a dict a step."""

    needs = ("mlflow",)

    def __init__(self) -> None:
        """Import what is needed."""
        self.mlflow = import_module("mlflow")

    def start(self, folder: Path, modules: list[str]) -> None:
        """Make the database and begin a run."""
        self.mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
        self.mlflow.create_experiment("benchmark", artifact_location=str(folder / "artifacts"))
        self.mlflow.set_experiment("benchmark")
        (folder / "run_id").write_text(self.mlflow.start_run().info.run_id)
        self.tags = _tags(modules)

    def step(self, step: int, values: np.ndarray) -> None:
        """Log all values at once."""
        self.mlflow.log_metrics(dict(zip(self.tags, values.ravel().tolist(), strict=True)), step=step)

    def close(self) -> None:
        """End the run."""
        self.mlflow.end_run()

    def read(self, folder: Path, signal: str, modules: list[str]) -> np.ndarray:
        """Ask for the history of each module's metric."""
        client = self.mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
        run = (folder / "run_id").read_text()
        histories = [client.get_metric_history(run, f"{signal}/{name}") for name in modules]
        return np.array([[m.value for m in sorted(history, key=lambda m: m.step)] for history in histories]).T


class Aim:
    """Aim: `track` of a module's signals, the module as context, into a local repository."""

    needs = ("aim",)

    def __init__(self) -> None:
        """Import what is needed."""
        self.aim = import_module("aim")

    def start(self, folder: Path, modules: list[str]) -> None:
        """Begin a run without readings of the machine or a copy of the terminal."""
        self.run = self.aim.Run(repo=str(folder), system_tracking_interval=None, capture_terminal_logs=False)
        self.contexts = [{"module": name} for name in modules]

    def step(self, step: int, values: np.ndarray) -> None:
        """Track the signals of each module."""
        for context, numbers in zip(self.contexts, values.T.tolist(), strict=True):
            self.run.track(dict(zip(SIGNALS, numbers, strict=True)), step=step, context=context)

    def close(self) -> None:
        """Close the run and index it, as `aim up` does before it shows a run: without it nothing can be read."""
        self.run.close()
        repo = self.run.repo
        import_module("aim.sdk.index_manager").RepoIndexManager.get_index_manager(repo).index(self.run.hash)

    def read(self, folder: Path, signal: str, modules: list[str]) -> np.ndarray:
        """Query the metric and take the values of each of its contexts."""
        modes = import_module("aim.sdk.types").QueryReportMode
        series = {}
        for metric in self.aim.Repo(str(folder)).query_metrics(f"metric.name == '{signal}'", modes.DISABLED):
            series[metric.context["module"]] = metric.data.numpy()[1][0]  # values, epochs, times; by step
        return np.stack([series[name] for name in modules], 1)


TRACKERS: dict[str, type[Any]] = {
    "dynlora": Dynlora,
    "tensorboard": TensorBoard,
    "tensorboard, long queue": LongQueue,
    "trackio": Trackio,
    "mlflow": MLflow,
    "aim": Aim,
}


def _tags(modules: list[str]) -> list[str]:
    return [f"{signal}/{name}" for signal in SIGNALS for name in modules]


def write(tracker: Tracker, folder: Path, payload: np.ndarray) -> dict[str, Any]:
    """Record a payload (steps, signals, modules) step after step without a pause; return what it took.

    Keys: `start_s`, `step_s` (each step), `close_s`, `bytes` (of all files) and `version`.
    """
    begin = time.perf_counter()
    tracker.start(folder, module_names(payload.shape[2]))
    start_s = time.perf_counter() - begin
    step_s = []
    for step, values in enumerate(payload):
        begin = time.perf_counter()
        tracker.step(step, values)
        step_s.append(time.perf_counter() - begin)
    begin = time.perf_counter()
    tracker.close()
    close_s = time.perf_counter() - begin
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    version = metadata.version(tracker.needs[0])
    return {"start_s": start_s, "step_s": step_s, "close_s": close_s, "bytes": size, "version": version}


def main() -> None:
    """Do what the command line says and leave the figures in a file: trackers print what they like."""
    act, name, folder, *rest, result = sys.argv[1:]
    begin = time.perf_counter()
    tracker = TRACKERS[name]()
    if act == "write":
        times = write(tracker, Path(folder), np.load(rest[0], allow_pickle=False))
    else:
        getattr(tracker, "importing", lambda: None)()
        import_s = time.perf_counter() - begin
        signal, modules = rest[0], module_names(int(rest[1]))
        begin = time.perf_counter()
        values = tracker.read(Path(folder), signal, modules)
        times = {"read_s": time.perf_counter() - begin, "import_s": import_s}
        np.save(Path(result).with_suffix(".npy"), np.asarray(values, dtype=np.float32), allow_pickle=False)
    Path(result).write_text(json.dumps(times), "utf-8")


if __name__ == "__main__":
    main()
