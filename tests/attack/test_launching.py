"""What a launch form or a model folder may hold to run something of its own: it is text, or it is refused."""

from __future__ import annotations

import ast
import functools
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dynlora.cli.main import main
from dynlora.errors import AssetError, DynloraError
from dynlora.inference import client as inference_client
from dynlora.jobs import launch
from dynlora.jobs import queue as run_queue
from dynlora.jobs import sweep as sweep_requests
from dynlora.jobs.environment import child_environment, python_command
from dynlora.server import serve
from dynlora.store.queries import list_runs
from dynlora.tasks.classification import Classification
from tests.tiny import tiny_arguments
from tests.waiting import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
PAYLOADS = (
    "; touch {marker}",
    "$(touch {marker})",
    "`touch {marker}`",
    "| touch {marker}",
    "&& touch {marker} #",
    "\ntouch {marker}\n",
    "'; touch {marker}; '",
    '"; touch {marker}; "',
    "--runs-dir={marker}",
    "-m dynlora delete x",
    "!!python/object/apply:os.system ['touch {marker}']",
    "__import__('os').system('touch {marker}')",
    "${{IFS}}touch${{IFS}}{marker}",
    "../../{marker}",
    "%0atouch {marker}",
)
"""Fields that ran commands elsewhere: CVE-2024-52803, CVE-2025-14287, CVE-2026-0596, CVE-2024-2195."""


class Traced:
    """Every process that something tries to start; none of them is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.commands: list[list[str]] = []
        start = subprocess.Popen.__init__

        def started(process: Any, command: Any, *rest: Any, **options: Any) -> None:
            assert isinstance(command, list), f"a command must be a list: {command!r}"
            assert not rest
            assert not options.get("shell")
            assert options.get("stdin") in (subprocess.DEVNULL, subprocess.PIPE), "a child reads nobody's terminal"
            self.commands.append(command)
            refused = [sys.executable, "-S", "-c", "import sys; sys.exit(2)"]
            start(process, refused, **options)

        monkeypatch.setattr(subprocess.Popen, "__init__", started)


def is_ours(command: list[str], root: Path) -> bool:
    """Say whether a command is our own entry point with nothing but options, checked ids and paths of ours."""
    from dynlora.store.schema import check_run_id

    beginning = [sys.executable, "-P", "-m", "dynlora"]
    if command[: len(beginning)] != beginning:
        return False
    for part in command[len(beginning) + 1 :]:
        if part.startswith("--") or part.startswith(str(root)) or part.isdecimal():
            continue
        check_run_id(part)
    return True


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_configuration_reaches_a_command_line(
    payload: str, runs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced, text = Traced(monkeypatch), payload.format(marker=tmp_path / "marker")
    config = {
        "name": text,
        "seed": 1,
        "model": {"name": text},
        "data": {"path": text, "label": text, "text": text},
        "strategy": {"name": text, text: text},
        "adapter": {"targets": [text]},
        text: {text: text},
    }
    for ask in (
        lambda: launch.enqueue(config, runs_dir, key="a"),
        lambda: launch.preflight(config, runs_dir),
        lambda: sweep_requests.enqueue_sweep(config, {"seed": "0..1", "model.name": text}, runs_dir, key="b"),
    ):
        with pytest.raises(DynloraError):
            ask()
    assert len(traced.commands) == 3
    assert all(is_ours(command, runs_dir) for command in traced.commands), traced.commands
    for refused in (
        lambda: launch.enqueue({}, runs_dir, key=text),
        lambda: launch.stop(runs_dir, text),
        lambda: launch.resume(runs_dir, text),
        lambda: launch.delete(runs_dir, text),
        lambda: sweep_requests.enqueue_sweep({}, {"seed": "0"}, runs_dir, key=text),
    ):
        with pytest.raises(DynloraError):
            refused()
    assert len(traced.commands) == 3
    assert not (tmp_path / "marker").exists()


def test_every_command_is_a_fixed_entry_point(runs_dir: Path) -> None:
    commands = [
        launch.train_command(runs_dir / "a.yaml", runs_dir),
        launch.strategies_command(),
        launch.preflight_command(runs_dir / "a.yaml"),
        sweep_requests.sweep_command(runs_dir / "a.yaml", runs_dir),
        run_queue.resume_command("20260101-000000-00000001", runs_dir),
        inference_client.answer_command(3, 4),
    ]
    assert all(is_ours(command, runs_dir) for command in commands)
    server = serve.server_command("127.0.0.1", 8501)
    assert server[:5] == [sys.executable, "-P", "-m", "streamlit", "run"]
    assert all(part.startswith("--") for part in server[6:])


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder whose modules have the names of all that Python can import; each writes its name to a file.

    Returns:
        That file, which is not there yet.
    """
    here, marker = tmp_path / "here", tmp_path / "imported"
    here.mkdir()
    for name in {*sys.stdlib_module_names, *packages_distributions(), "sitecustomize", "usercustomize"}:
        with suppress(OSError):  # a name with a slash
            (here / f"{name}.py").write_text(f"open({str(marker)!r}, 'a').write({name + ' '!r})\n")
    monkeypatch.chdir(here)
    return marker


def test_a_child_and_its_children_import_nothing_of_the_current_folder(planted: Path) -> None:
    """`http.py` of a downloaded folder ran in the process that trains a queued run."""
    for arguments in (["strategies", "--json"], ["doctor"]):
        subprocess.run(python_command("dynlora", *arguments), capture_output=True, check=True, stdin=subprocess.DEVNULL)
    program = "import http, queue, token, yaml"
    subprocess.run([sys.executable, "-c", program], env=child_environment(), check=True)
    assert not planted.exists(), planted.read_text()


@pytest.mark.journey
def test_commands_that_start_children_import_nothing_of_the_current_folder(
    planted: Path, tiny_bert: Path, tiny_data: Path, runs_dir: Path
) -> None:
    """A search, whose runs are queued, trained and tracked by children, and the server of the dashboard."""
    dynlora = str(Path(sys.executable).with_name("dynlora"))
    settings = tiny_arguments(tiny_bert, tiny_data, "train.steps=3", "log.to=mlflow", "train.lr=1e-4..1e-2:log")
    search = [dynlora, "sweep", "--search", "--trials", "1", "--confirm", "0", *settings, "--runs-dir", str(runs_dir)]
    subprocess.run(search, capture_output=True, stdin=subprocess.DEVNULL, check=True)
    assert set(list_runs(runs_dir)["status"]) == {"finished"}
    process = subprocess.Popen(
        [dynlora, "ui", "--port", "0", "--runs-dir", str(runs_dir)],
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    try:
        assert process.stderr is not None
        assert b"dashboard" in process.stderr.readline()
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_S)
    assert not planted.exists(), planted.read_text()


def test_every_child_that_runs_python_has_a_safe_path() -> None:
    """`python_command` names the interpreter for dynlora's own commands; contracts are tests."""
    sources = {path.name: path.read_text("utf-8") for path in SOURCES if "contracts" not in path.parts}
    flags = {name: re.findall(r'sys\.executable(?:, "(-\w)")?', text) for name, text in sources.items()}
    named = {name: options for name, options in flags.items() if options}
    assert all(set(options) <= {"-P", "-I"} for options in named.values()), named
    assert [name for name, text in sources.items() if '"-m", "dynlora"' in text] == []
    assert python_command("m", "a")[1:] == ["-P", "-m", "m", "a"]


def test_children_of_a_checkout_that_is_not_installed_find_it() -> None:
    """Where the package is on the path only as the current folder, its folder is named to the children."""
    path = os.pathsep.join(part for part in sys.path if part.endswith("-packages"))
    program = (
        "import os\nfrom dynlora.jobs.environment import import_path\nprint(import_path(os.environ)['PYTHONPATH'])"
    )
    command = [sys.executable, "-S", "-c", program]
    done = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": path}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == os.pathsep.join([str(ROOT), path])


@functools.cache
def calls(path: Path) -> list[tuple[str, ast.Call]]:
    """Return every call in a file by its dotted name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


FORBIDDEN = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "os.popen",
    "os.execv",
    "os.execvp",
    "os.spawnv",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "torch.load",
    "pickle.load",
    "pickle.loads",
    "pd.read_pickle",
    "np.load",
    "joblib.load",
    "pd.eval",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "tarfile.open",
    "marshal.loads",
}
SOURCES = [*sorted((ROOT / "dynlora").rglob("*.py")), *sorted((ROOT / "pages").glob("*.py")), *ROOT.glob("*.py")]


def test_the_source_has_no_way_to_run_text_or_load_a_pickle() -> None:
    allowed = {
        ("dynlora/assets/packages.py", "tarfile.open"),  # unpacks named members only, see its tests
        # the queue's own argument list, with a checked id
        ("dynlora/integrations/die_with_parent.py", "os.execv"),
    }
    forbidden_calls = [
        (path.relative_to(ROOT).as_posix(), name)
        for path in SOURCES
        for name, call in calls(path)
        if name in FORBIDDEN
        or any(key.arg == "shell" for key in call.keywords)
        or (name.endswith((".query", ".eval")) and call.args)
    ]
    assert set(forbidden_calls) <= allowed
    imported = [path for path in SOURCES for line in path.read_text("utf-8").splitlines() if "import pickle" in line]
    assert imported == []


def test_trust_in_remote_code_is_always_denied_where_a_model_is_loaded() -> None:
    """No path sets it to anything but False, and no call leaves it to the library: CVE-2026-58116."""
    loads = [
        (path.name, {key.arg: ast.unparse(key.value) for key in call.keywords})
        for path in SOURCES
        if "contracts" not in path.parts  # tests: they load what they have just written, into a model of their own
        for name, call in calls(path)
        if name.endswith(".from_pretrained")
    ]
    assert loads
    assert [where for where, keywords in loads if keywords.get("trust_remote_code") != "False"] == []
    assert [where for where, keywords in loads if keywords.get("local_files_only") != "True"] == []
    named = [path.name for path in SOURCES if "trust_remote_code" in path.read_text("utf-8")]
    assert named == ["base_model.py", "token_space.py", "planted.py"]


EVIL = """
import pathlib
pathlib.Path({marker!r}).write_text("it ran")
from transformers import AutoTokenizer as EvilTokenizer, BertConfig as EvilConfig
from transformers import BertForSequenceClassification as EvilModel
"""


@pytest.fixture
def evil(tiny_bert: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A model folder with code beside its weights, and the file that appears when the code runs."""
    folder, marker = Path(shutil.copytree(tiny_bert, tmp_path / "model")), tmp_path / "marker"
    (folder / "evil.py").write_text(EVIL.format(marker=str(marker)))
    (folder / "__init__.py").write_text(EVIL.format(marker=str(marker)))
    return folder, marker


def change_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


AUTO_MAP = {
    "AutoConfig": "evil.EvilConfig",
    "AutoModel": "evil.EvilModel",
    "AutoModelForSequenceClassification": "evil.EvilModel",
    "AutoTokenizer": ["evil.EvilTokenizer", "evil.EvilTokenizer"],
}
HOSTILE_CONFIGS: dict[str, dict[str, Any]] = {
    "auto_map": {"auto_map": AUTO_MAP},
    "auto_map of an unknown kind": {"auto_map": AUTO_MAP, "model_type": "evil", "architectures": ["EvilModel"]},
    "trust in the config": {"auto_map": AUTO_MAP, "trust_remote_code": True, "model_type": "evil"},
    "trust in the config of a known kind": {"auto_map": AUTO_MAP, "trust_remote_code": True},
    "trust in the private names": {"auto_map": AUTO_MAP, "_trust_remote_code": True, "_attn_implementation": "evil/k"},
    "a kernel of the hub": {"attn_implementation": "evil/kernel:run", "use_kernels": True},
    "a kernel under the private name": {"_attn_implementation_internal": "evil/kernel:run"},
    "kernels by part": {"attn_implementation": {"": "evil/kernel:run"}, "experts_implementation": "evil/experts"},
    "a newline in the kind": {"model_type": "bert\nimport os; os.system('touch x')"},
    "quantized by code": {"quantization_config": {"quant_method": "evil.EvilModel"}, "auto_map": AUTO_MAP},
}
"""What switched trust on or reached exec elsewhere: CVE-2026-5241, CVE-2026-93348."""


@pytest.mark.parametrize("case", HOSTILE_CONFIGS)
def test_code_beside_the_weights_never_runs(
    case: str, evil: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dynlora.engine.model.base_model import load_base

    folder, marker = evil
    monkeypatch.chdir(folder)
    change_json(folder / "config.json", **HOSTILE_CONFIGS[case])
    change_json(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": AUTO_MAP["AutoTokenizer"]})
    with suppress(AssetError):
        load_base(
            folder,
            task=Classification(
                (
                    "a",
                    "b",
                )
            ),
            seed=0,
        )
    assert not marker.exists()
    assert "evil" not in sys.modules


class _Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def bomb(path: Path, marker: Path) -> None:
    """Write a pickle that makes a folder when it is read, in the form torch.load would take too."""
    import torch

    path.write_bytes(pickle.dumps(_Bomb(marker)))
    torch.save({"weight": _Bomb(marker)}, path.with_name(f"zip-{path.name}"))


def test_a_config_names_no_kernel_to_fetch(tiny_bert: Path, tmp_path: Path) -> None:
    """A config.json chose `owner/kernel` for attention, which the library takes from the hub and runs."""
    from dynlora.engine.model.base_model import load_base

    folder = Path(shutil.copytree(tiny_bert, tmp_path / "model"))
    change_json(folder / "config.json", attn_implementation="kernels-community/flash-attn3")
    model = load_base(
        folder,
        task=Classification(
            (
                "a",
                "b",
            )
        ),
        seed=0,
    ).model
    assert model.config._attn_implementation in ("sdpa", "eager")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.ckpt", "model.safetensors"])
def test_a_pickle_of_weights_is_refused_in_a_sentence_and_never_read(
    name: str, tiny_bert: Path, tiny_data: Path, runs_dir: Path, tmp_path: Path
) -> None:
    folder, marker = Path(shutil.copytree(tiny_bert, tmp_path / "model")), tmp_path / "marker"
    (folder / "model.safetensors").unlink()
    bomb(folder / name, marker)
    done = CliRunner().invoke(main, ["train", *tiny_arguments(folder, tiny_data), "--runs-dir", str(runs_dir)])
    assert done.exit_code == 2, done.output
    assert done.stderr.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in done.output
    assert not marker.exists()


def test_pickles_in_a_run_are_not_read(trained_run: Path, tmp_path: Path) -> None:
    folder, marker = Path(shutil.copytree(trained_run, tmp_path / "runs" / trained_run.name)), tmp_path / "marker"
    places = [path.parent for path in folder.rglob("*.safetensors")]
    assert places
    for place in places:
        for name in ("optimizer.pt", "random_states_0.pkl", "pytorch_model.bin", "adapter_model.bin", "state.pkl"):
            bomb(place / name, marker)
    predict = ["predict", folder.name, "--text", "great", "--runs-dir", str(folder.parent)]
    done = CliRunner().invoke(main, predict)
    assert done.exit_code == 0, done.output
    for path in folder.rglob("*.safetensors"):
        bomb(path, marker)
    done = CliRunner().invoke(main, predict)
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    assert not marker.exists()
