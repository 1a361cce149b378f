"""The Playground's cards: one text explained, and small files."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from dynlora.analysis.frames import records
from dynlora.analysis.inputs import InputsReading
from dynlora.errors import DynloraError
from dynlora.kinds.train.panels.effects import effect_maps, map_around
from dynlora.store import queries
from dynlora.text import markdown_text, one_line, plural
from dynlora.viz.kit.token_text import Colouring, cut_words, tokens_html
from dynlora.viz.playground import figures
from dynlora.viz.playground import model as playground_model
from dynlora.viz.playground.model import Task
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import card, chart, colours, in_row, note, rows, safe, under
from dynlora.viz.ui.model_client import ask_model
from dynlora.viz.ui.run_picker import Chosen, askable, find_run, has_model, link, list_all, run_labels, runs_dir
from dynlora.viz.ui.url_state import choose, put, slide, to_address

MOST_SUGGESTED = 3
"""Examples that are offered where no text is given."""

MOST_EXAMPLES = 256
MOST_LAYERS = 12
MOST_ABLE = 3
"""Most runs that are named where a run's own model cannot answer."""

LONG = "playground-long"
"""Where a text is kept that is too long for the address."""


@dataclass(frozen=True)
class Asked:
    """What a person wants to know.

    Attributes:
        run: whose model is asked.
        task: of the run.
        gated: whether the run has gates.
        text: the text, empty while there is none.
        pair: the second text of a pair, None for tasks with one.
        other: a second run, or None.
        strength: the run's own adapter is multiplied by it.
    """

    run: Chosen
    task: Task
    gated: bool
    text: str
    pair: str | None
    other: Chosen | None
    strength: float = 1.0

    @property
    def voices(self) -> dict[str, tuple[Path, str]]:
        """Who answers: the run's folder and how its model is asked, by what people call it; the adapter first."""
        own = self.run.folder
        frozen = {"gates frozen": (own, "frozen")} if self.gated else {}
        other = {} if self.other is None else {"the other run": (self.other.folder, "adapter")}
        return {"adapter": (own, "adapter"), **frozen, "base model with head": (own, "base"), **other}

    def answers(self, texts: Sequence[str], pairs: Sequence[str] | None) -> dict[str, list[dict[str, Any]]]:
        """Return what each voice says of some texts; empty, and the page says why, when the run's own model cannot."""
        answers_by_model: dict[str, list[dict[str, Any]]] = {}
        for who, (folder, mode) in self.voices.items():
            scaled = {"strength": self.strength} if folder == self.run.folder and self.strength != 1 else {}
            answer = ask_model(folder, "answers", texts=texts, pairs=pairs, mode=mode, **scaled)
            if answer is not None:
                answers_by_model[who] = answer
            elif folder == self.run.folder:
                return {}
        return answers_by_model


def without_model(run: Chosen, *, is_active: bool = False) -> None:
    """Say why a run's model cannot be asked and how to train it, and lead to the newest runs whose model can."""
    if is_active:
        st.info("The run has saved no checkpoint yet. The playground is available after the first one.")
        return
    runs = list_all()
    able = [row for row in records(runs[["id", "name", "folder"]]) if has_model(Path(row["folder"]))][:MOST_ABLE]
    why = (
        "This run has no adapter: it ended before its first checkpoint, or its adapter was removed."
        if run.is_own
        else "Most sample runs are kept without their adapter, to stay small, and this is one of them."
    )
    st.info(
        f"{why} Its model cannot answer. Train it again with this command"
        + (", or choose one of the runs below that can answer." if able else ".")
    )
    settings = ["--config", str(run.folder / "config.yaml"), "--runs-dir", str(runs_dir())]
    st.code(shlex.join(["dynlora", "train", *settings]), language="bash", wrap_lines=True)
    with in_row("able", "top"):
        for row in able:
            link("pages/playground.py", one_line(row["name"], 60), run=row["id"])


def text_form(run: Chosen, task: Task, examples: pd.DataFrame, *, gated: bool) -> Asked:
    """Draw the text field and what is asked beside it, and return what is in the address.

    Args:
        run: whose model is asked.
        task: of the run.
        examples: of the probe set, columns text and text_pair, offered to start from.
        gated: whether the run has gates.
    """
    with in_row("playground-choices", "bottom"):
        other = other_run(run, task)
        example_choice(examples, _ask)
        strength = strength_slider()
    other_id = st.query_params.get("other")
    if other_id and other is None:
        note(why_not(other_id, task))
    text, pair = st.query_params.get("text", ""), st.query_params.get("pair", "")
    if not text:
        text, pair = st.session_state.get(LONG, ("", ""))
    put("playground-text", text)
    put("playground-pair", pair)
    with st.form("playground", border=False):
        st.text_area("Text", max_chars=playground_model.LIMIT, key="playground-text", height=110)
        if task.paired:
            st.text_area("Second text", max_chars=playground_model.LIMIT, key="playground-pair", height=80)
        st.form_submit_button("Predict", type="primary", icon=":material/psychology:", on_click=_asked)
    if len(text) + len(pair) > playground_model.MAX_SHARED:
        note(f"The link does not include texts of more than {playground_model.MAX_SHARED:,} characters.")
    if not text or (task.paired and not pair):
        note("Enter a text and press Predict. The answer appears below. The link of this page includes the text.")
        _suggestions(examples)
        text = ""
    return Asked(run, task, gated, text, pair if task.paired else None, other, strength)


def _suggestions(examples: pd.DataFrame) -> None:
    """Draw a few examples of the probe set, each one click from its prediction."""
    suggested = examples.head(MOST_SUGGESTED)
    with in_row("suggestions", "top"):
        for place, (text, pair) in enumerate(zip(suggested["text"], suggested["text_pair"], strict=True)):
            second = pair if isinstance(pair, str) else ""
            st.button(markdown_text(text, 60), key=f"suggestion-{place}", on_click=_ask, args=(str(text), second))


def _asked() -> None:
    """Ask what was typed."""
    _ask(st.session_state["playground-text"].strip(), st.session_state.get("playground-pair", "").strip())


def _ask(text: str, pair: str) -> None:
    """Put a text into the address, or aside where it is too long for one."""
    short = len(text) + len(pair) <= playground_model.MAX_SHARED
    to_address(text=text if text and short else None, pair=pair if pair and short else None)
    st.session_state[LONG] = ("", "") if short else (text, pair)


STRENGTHS = tuple(place / 20 for place in range(26))
"""That the adapter of the answers can be multiplied by."""


def strength_slider() -> float:
    """Draw the slider and return what the adapter is multiplied by; without one in the address it is 1."""
    return slide(
        "strength",
        "Adapter strength",
        STRENGTHS,
        1.0,
        "{:.2f}".format,
        width=260,
        help="The update of the adapter is multiplied by this number: 0 is the base model, 1 the adapter as trained. "
        "`dynlora strength ID` measures held-out loss and what is forgotten at each, and exports the best.",
    )


def run_task(folder: Path) -> Task | None:
    """Return the task of a run, None where it cannot be read."""
    try:
        summary, examples = (
            cached_queries.ask(queries.run_summary, folder),
            cached_queries.ask(queries.examples_frame, folder),
        )
    except DynloraError:
        return None
    return playground_model.task_of(summary, examples)


def other_run(run: Chosen, task: Task) -> Chosen | None:
    """Draw the choice of a second run, one with the same task that kept its adapter, and return it."""
    runs = list_all(others=askable())
    loadable = pd.Series([has_model(Path(folder)) for folder in runs["folder"]], index=runs.index, dtype=bool)
    runs = runs[(runs["status"] == "finished") & (runs["id"] != run.id) & loadable]
    sources = [repr((row["data"], row["config"].get("data"))) for row in runs[["data", "config"]].to_dict("records")]
    same: dict[str, bool] = {}  # one run tells for all on the same data: there may be a thousand
    for source, folder in zip(sources, runs["folder"], strict=True):
        if source not in same:
            same[source] = run_task(Path(folder)) == task
    words = run_labels(runs.loc[[same[source] for source in sources]])
    chosen = choose("other", "Compare with", {"": "No other run", **words}, width=320)
    other = find_run(chosen) if chosen else None
    return other if other is not None and run_task(other.folder) == task else None


def why_not(run_id: str, task: Task) -> str:
    """Return the sentence that says why the second run of the address does not answer."""
    try:
        return playground_model.not_comparable(task, run_task(find_run(run_id).folder))
    except DynloraError as error:
        return str(error)


def example_choice(examples: pd.DataFrame, ask: Callable[[str, str], None]) -> None:
    """Draw the choice of an example to start from; `ask` takes its text and second text."""
    if examples.empty:
        return
    labels = {str(index): one_line(text, 70) for index, text in examples["text"].head(50).items()}
    chosen = st.selectbox(
        "Example of the probe set",
        [None, *labels],
        key="playground-example",
        width=360,
        format_func=lambda index: "Choose an example" if index is None else labels[index],
    )
    if chosen is not None and st.session_state.get("playground-example-used") != chosen:
        st.session_state["playground-example-used"] = chosen
        row = examples.loc[int(chosen)]
        pair = row.get("text_pair")
        ask(str(row["text"]), str(pair) if isinstance(pair, str) else "")
        st.rerun()


def answers_card(request: Asked) -> None:
    """Draw the answers of base, adapter, adapter with frozen gates, and the second run side by side."""
    with card("Predictions", "answers"):
        answers = request.answers([request.text], None if request.pair is None else [request.pair])
        if not answers:
            return
        frame = playground_model.side_by_side({who: answer[0] for who, answer in answers.items()})
        scaled = "" if request.strength == 1 else f" The adapter is at strength {request.strength:g}."
        caption = f"{playground_model.answers_caption(frame)}{scaled}"
        chart(figures.answer_bars(frame, colours()), caption, frame, "answers")
        if answers["adapter"][0].get("unusual"):
            st.warning(
                "The ensemble members disagree more than on about 99 % of held-out examples: the text is "
                "unlike the data."
            )


def explained_cards(request: Asked, modules: pd.DataFrame) -> None:
    """Draw what each token, each gate and each module has to do with the answer."""
    scaled = {} if request.strength == 1 else {"strength": request.strength}
    explanation = ask_model(request.run.folder, "explain", text=request.text, pair=request.pair, **scaled)
    if explanation is None:
        return
    unit = "log-odds" if explanation["labels"] else "number"
    with card("Attribution by word", "tokens"):
        token_lines(explanation, unit)
    left, right = st.columns(2)
    with left, card("Attribution by module", "carry"):
        frame = playground_model.without_modules(explanation, modules)
        words = playground_model.modules_caption(frame, unit)
        chart(figures.module_bars(frame, unit, colours()), words, frame.drop(columns="position"), "carry")
    with right, card("Effect of each module on this text", "acts"):
        effects_on(explanation, request.run.folder, modules)
    if explanation["gate"] is not None:
        with card("Gates for this text", "opened"):
            gate = playground_model.numbers_of(explanation["gate"])[modules["position"].to_numpy(int)]
            caption = "Above 1 the adapter of the module counts more for this text, below 1 less."
            figure = map_around(1.0, gate, modules, ("Gate (factor)", ".4f"), colours())
            chart(figure, caption, modules[["name"]].assign(gate=gate), "opened")
    depth_card(explanation, modules)


def effects_on(explanation: Mapping[str, Any], folder: Path, modules: pd.DataFrame) -> None:
    """Draw how strongly each module acts on a text, beside the mean over the probe examples where that is recorded."""
    effects = {"This text": playground_model.numbers_of(explanation["effects"])}
    probe = cached_queries.ask(queries.probe_effects, folder)
    if len(probe):
        effects[f"Probe examples  n = {len(probe)}"] = probe.mean().to_numpy(float)
    frame = pd.DataFrame(effects).loc[modules["position"]]
    frame.insert(0, "module", modules["name"].to_numpy())
    caption = playground_model.effects_caption(*effects.values(), modules=modules)
    chart(effect_maps(effects, modules, colours()), caption, frame, "acts")


def token_lines(explanation: Mapping[str, Any], unit: str) -> None:
    """Draw the text with each token in the colour of what it adds, for the adapter and the base."""
    frame = figures.contributions(explanation["tokens"], explanation)
    lines = {name: explanation[key] for name, key in (("adapter", "contribution"), ("base", "base_contribution"))}
    lost = "log-odds decrease without the word" if unit == "log-odds" else "number decrease without the word"
    tokens = figures.lines_of(explanation["tokens"], lines, unit)
    st.html(tokens_html(tokens, Colouring(lost, ("decreases", "increases")), colours()))
    caption = f"Decrease of the {unit} of the prediction when a word is hidden. Both lines have the same scale."
    under(f"{caption}{cut_words(len(explanation['tokens']))}", frame, "tokens")


def token_card(view: InputsReading) -> None:
    """Draw one example of the probe set word by word: its gates or what each word adds, over depth."""
    if view.examples.empty:
        return
    with card("Example by word", "token-view"):
        labels = {str(index): one_line(text, 70) for index, text in view.examples["text"].head(MOST_EXAMPLES).items()}
        choice = choose("example", "Example", {"": "Choose an example", **labels})
        if not choice:
            note("Colours the words of an example by gate, or by contribution to the prediction, for each layer.")
            return
        row = view.examples.loc[int(choice)]
        second = row["text_pair"]
        pair = second if isinstance(second, str) and second else None
        explanation = ask_model(view.folder, "explain", text=row["text"], pair=pair)
        if explanation is None:
            return
        token_lines(explanation, "log-odds" if explanation["labels"] else "number")
        depth_lines(explanation, view.modules)


def depth_card(explanation: Mapping[str, Any], modules: pd.DataFrame) -> None:
    """Draw the text once a layer: each token's gate where gates are one a token, else how far the adapters move it."""
    with card("Words by layer", "depth-tokens"):
        depth_lines(explanation, modules)


def depth_lines(explanation: Mapping[str, Any], modules: pd.DataFrame) -> None:
    """Draw the text once a layer, at most a dozen of them."""
    unit = "" if explanation["token_gate"] is not None else "of its norm"
    if explanation["token_gate"] is not None:
        lines, scale = (
            figures.by_layer(explanation["token_gate"], modules),
            Colouring("gate (factor)", ("counts less", "counts more"), centre=1.0),
        )
        caption = "The mean gate of each token over the modules of a layer; 1 is neutral."
    elif explanation["moved"] is not None:
        lines = figures.layers_of(explanation["moved"])
        scale = Colouring("fraction of its norm", ("unmoved", "moved most"), is_diverging=False)
        caption = (
            "Distance of each hidden state from that of the base model after each layer, as a fraction of its norm."
        )
    else:
        note("This method has its own forward pass, so single layers are not shown.")
        return
    thinned = figures.thinned(lines, MOST_LAYERS)
    st.html(tokens_html(figures.lines_of(explanation["tokens"], thinned, unit), scale, colours()))
    if len(thinned) < len(lines):
        caption = f"{caption} {len(thinned)} of {len(lines)} layers shown; the table has all."
    words = figures.words(explanation["tokens"])
    frame = pd.DataFrame({name: list(values)[: len(words)] for name, values in lines.items()})
    under(f"{caption}{cut_words(len(explanation['tokens']))}", frame.assign(token=words), "depth-tokens")


def file_card(request: Asked) -> None:
    """Draw the upload of a small file, and what is predicted of its rows by all who are asked."""
    with card("Continue prompts of a file" if request.task.writes else "Predict a file", "file"):
        own = playground_model.own_columns(cached_queries.ask(queries.run_summary, request.run.folder))
        holds = playground_model.holds(own, paired=request.task.paired)
        kinds = ["csv", "jsonl"] if request.task.paired else ["txt", "csv", "jsonl"]
        upload = st.file_uploader(holds, kinds, max_upload_size=1, key="playground-file")
        if upload is None:
            note(f"Up to {plural(playground_model.MOST_ROWS, 'row')}. Use dynlora predict for larger files.")
            return
        try:
            texts = playground_model.texts_of(upload.name, upload.getvalue(), paired=request.task.paired, own=own)
        except DynloraError as error:
            st.error(safe(str(error)))
            return
        answers = request.answers(texts.texts, texts.pairs)
        if answers:
            frame = playground_model.answer_table(answers)
            rows(frame.round(3))
            under(texts.words, frame, "predictions")
