"""A talk with a run that writes: who is asked, what each wrote so far, and what each is asked next."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dynlora.analysis.run_summary import ACTIVE
from dynlora.analysis.stats import spearman
from dynlora.store.summary import RunSummary
from dynlora.text import listed, number, one_line, percent, plural, sentence_case, signed
from dynlora.viz.kit.token_text import Colouring, TextToken, visible
from dynlora.viz.ui.model_client import Streamed

MOST_NEW = 1024
"""Tokens that a text may be asked to have on the page."""

TEMPERATURES = (0.0, 2.0)
OWN = "adapter"
"""Key of the voice of the run's own adapter, which alone has a strength."""


@dataclass(frozen=True)
class Settings:
    """How texts are written.

    Attributes:
        chat: prompts are turns of a conversation; else they are continued as they are.
        temperature: 0 takes the most probable token.
        seed: of what is drawn.
        new_tokens: at most so many are written.
        strength: the run's own adapter is multiplied by it.
    """

    chat: bool = False
    temperature: float = 0.0
    seed: int = 0
    new_tokens: int = 64
    strength: float = 1.0

    @property
    def words(self) -> str:
        """The settings in a line."""
        drawn = "greedy" if not self.temperature else f"temperature {self.temperature:g}, seed {self.seed}"
        strength = "" if self.strength == 1 else f", adapter strength {self.strength:g}"
        return f"{drawn}, at most {plural(self.new_tokens, 'token')}{strength}"


@dataclass(frozen=True)
class Voice:
    """Who writes.

    Attributes:
        key: in the address and in the talk.
        name: that people read.
        folder: of the run.
        mode: with its adapter, or as base.
    """

    key: str
    name: str
    folder: Path
    mode: str


@dataclass
class Answer:
    """What one wrote after a prompt.

    Attributes:
        voice: who.
        request: the prompt, as the child takes it: text, or turns.
        stream: what comes from the child.
    """

    voice: Voice
    request: dict[str, Any]
    stream: Streamed

    @property
    def ids(self) -> list[int]:
        """Its tokens, the end token included where it wrote one."""
        return [int(message["id"]) for message in self.stream.messages]

    @property
    def text(self) -> str:
        """What it wrote so far, for reading."""
        last = self.stream.messages[-1] if self.stream.messages else {}
        return str(last["whole"]) if "whole" in last else "".join(m["text"] for m in self.stream.messages)

    @property
    def is_writing(self) -> bool:
        """Whether it continues."""
        return not self.stream.ended

    @property
    def end(self) -> str | None:
        """How it ended: token, limit or stopped; None while it writes, and where it failed."""
        last = self.stream.messages[-1] if self.stream.messages else {}
        return "stopped" if self.stream.stopped and "end" not in last else last.get("end")

    @property
    def state(self) -> str:
        """How long it is and how it ended, in words."""
        state = plural(len(self.ids), "token")
        words = {"token": state, "limit": f"{state}, cut off at the limit", "stopped": f"{state}, stopped"}
        if self.is_writing:
            return f"{state} so far"
        return words.get(self.end or "", state)


@dataclass
class Turn:
    """A prompt and what all wrote after it.

    Attributes:
        prompt: as it was entered.
        settings: that it was asked with.
        answers: by the key of the voice.
    """

    prompt: str
    settings: Settings
    answers: dict[str, Answer]


@dataclass
class Talk:
    """All prompts and answers of a run, kept in the session.

    Attributes:
        turns: the first one first; of texts that are continued, one.
    """

    turns: list[Turn] = field(default_factory=list)

    @property
    def is_writing(self) -> bool:
        """Whether anybody writes."""
        return any(answer.is_writing for answer in self.open)

    @property
    def open(self) -> list[Answer]:
        """The answers of the last turn, the only one that may be under way."""
        return list(self.turns[-1].answers.values()) if self.turns else []

    def read(self) -> None:
        """Take what is new of all who write."""
        for answer in self.open:
            answer.stream.read()

    def stop(self) -> None:
        """End all who write; what they wrote is kept."""
        for answer in self.open:
            answer.stream.stop()

    def request_for(self, voice: Voice, prompt: str, settings: Settings) -> dict[str, Any]:
        """Return what a voice is asked: the text alone, or the conversation that it had itself, and the new turn."""
        strength = {} if voice.key != OWN or settings.strength == 1 else {"strength": settings.strength}
        if not settings.chat:
            return {"text": prompt, **strength}
        turns = []
        for turn in self.turns:
            answer = turn.answers.get(voice.key)
            if answer is not None and answer.voice == voice and answer.text:
                turns += [{"role": "user", "content": turn.prompt}, {"role": "assistant", "content": answer.text}]
        return {"turns": [*turns, {"role": "user", "content": prompt}], **strength}


def caption(turn: Turn) -> str:
    """Say whether those who were asked wrote the same, and how they were asked; empty while they write."""
    done = {answer.voice.name: answer for answer in turn.answers.values() if not answer.stream.error}
    if len(done) < 2 or any(answer.is_writing for answer in done.values()):
        return sentence_case(f"{turn.settings.words}.") if done else ""
    first, *others = done
    different = [name for name in others if done[name].text != done[first].text]
    verb = "answers" if turn.settings.chat else "continues the text"
    if different:
        sentence = f"The {first} {verb} differently from the {listed(different, 4)}"
    else:
        sentence = f"The {first} {verb} as the {listed(others, 4)} {'do' if len(others) > 1 else 'does'}"
    return f"{sentence} ({turn.settings.words})."


def table(talk: Talk) -> pd.DataFrame:
    """Return the talk as a table: columns turn, prompt, who, text, tokens, end."""
    rows = [
        (place, turn.prompt, answer.voice.name, answer.text, len(answer.ids), answer.end or "")
        for place, turn in enumerate(talk.turns, 1)
        for answer in turn.answers.values()
    ]
    return pd.DataFrame(rows, columns=["turn", "prompt", "who", "text", "tokens", "end"])


# --- token by token


def token_frame(view: Mapping[str, Any]) -> pd.DataFrame:
    """Return the tokens of a text: columns token, adapter, base (probabilities, 0 to 1), difference (nats)."""
    rows = [
        (row["text"], np.exp(row["adapter"]), np.exp(row["base"]), row["adapter"] - row["base"])
        for row in view["tokens"]
    ]
    return pd.DataFrame(rows, columns=["token", "adapter", "base", "difference"])


def alternatives(row: Mapping[str, Any]) -> pd.DataFrame:
    """Return the most probable tokens in the place of one, by adapter and base: columns rank, adapter, p, base, p."""
    pairs = list(zip(row["adapter_top"], row["base_top"], strict=False))
    return pd.DataFrame(
        [(place, first[0], first[1], second[0], second[1]) for place, (first, second) in enumerate(pairs, 1)],
        columns=["rank", "adapter", "p (adapter)", "base", "p (base)"],
    )


def token_caption(frame: pd.DataFrame) -> str:
    """Say how much more probable the adapter makes a text, and at which token most."""
    whole = float(frame["difference"].sum())
    if frame.empty or not np.isfinite(whole):
        return "At least one token has probability 0 for the adapter or the base model."
    place = int(frame["difference"].abs().to_numpy().argmax())
    row = frame.iloc[place]
    more = "more" if whole >= 0 else "less"
    return (
        f"The adapter makes this text {more} probable: log-probability {_signed(whole)} nats against the base model "
        f"({plural(len(frame), 'token')}). Largest difference: token {place + 1}, "
        f"“{one_line(row['token'], 24) or '␣'}”, from {row['base']:.3f} to {row['adapter']:.3f}."
    )


# --- module by module


def ablation_frame(messages: Sequence[Mapping[str, Any]], modules: pd.DataFrame) -> pd.DataFrame:
    """Return what each module adds to a text: columns position, short, label, layer, adds (nats), flips."""
    known = {int(message["module"]): message for message in messages}
    part = modules[modules["position"].isin(list(known))]
    return part[["position", "short", "label", "layer"]].assign(
        adds=[float(known[int(place)]["adds"]) for place in part["position"]],
        flips=[bool(known[int(place)]["changes"]) for place in part["position"]],
    )


def estimate_frame(adds: Sequence[float | None], modules: pd.DataFrame) -> pd.DataFrame:
    """Return to first order what each module adds to a text, as `ablation_frame` does; `adds` by position, nats."""
    known = [
        {"module": place, "adds": value, "changes": False} for place, value in enumerate(adds) if value is not None
    ]
    return ablation_frame(known, modules)


def estimate_caption(frame: pd.DataFrame) -> str:
    """Say which module adds most to a text by the estimate."""
    best = frame.iloc[int(frame["adds"].abs().to_numpy().argmax())]
    return (
        f"Estimate of {plural(len(frame), 'module')}: the largest contribution is from {one_line(best['short'], 30)} "
        f"({_signed(best['adds'])} nats)."
    )


def ablation_caption(frame: pd.DataFrame, estimates: pd.DataFrame) -> str:
    """Say which modules a text depends on, and how well the estimates of `estimate_frame` rank those measured."""
    both = frame.merge(estimates[["position", "adds"]], on="position", suffixes=("", "_estimate"))
    alike = spearman(both["adds"], both["adds_estimate"])
    agreement = "" if pd.isna(alike) else f" Rank correlation with the estimate: {alike:.2f}.".replace("-", "−")
    changing = int(frame["flips"].sum())
    order = frame.sort_values("adds", ascending=False)
    best, worst = order.iloc[0], order.iloc[-1]
    sentence = (
        f"Without any one of {changing} of {len(frame)} modules, greedy decoding would not write this text."
        if changing
        else f"No single one of {len(frame)} modules decides this text: greedy decoding does not change without it."
    )
    low = f" Without {worst['short']} the text would be more probable ({_signed(worst['adds'])})."
    return (
        f"{sentence} The largest contribution is from {one_line(best['short'], 30)} ({_signed(best['adds'])} nats)."
        f"{low if worst['adds'] < 0 else ''}{agreement}"
    )


def _signed(value: float) -> str:
    return f"{value:+.3g}".replace("-", "−")


BETTER = Colouring("log p(adapter) − log p(base), nats", ("less probable with the adapter", "more probable"))


def prompt_html(prompt: str) -> str:
    """Return what a person asked."""
    return f'<div class="dl-text dl-asked"><small>Prompt</small><pre>{html.escape(prompt)}</pre></div>'


def answer_html(answer: Answer) -> str:
    """Return what one wrote: who, how long, and the text."""
    head = f"{sentence_case(answer.voice.name)} · {answer.state}"
    empty = "…" if answer.is_writing else "(nothing)"
    return (
        f'<div class="dl-text"><small>{html.escape(head)}</small><pre>{html.escape(answer.text) or empty}</pre></div>'
    )


def text_tokens(view: Mapping[str, Any]) -> Sequence[TextToken]:
    """Return the tokens of a text in the colour of how much more probable the adapter makes them."""
    return [TextToken(row["text"], row["adapter"] - row["base"], _told(row)) for row in view["tokens"]]


def _told(row: Mapping[str, Any]) -> str:
    lines = [
        f"p(token): adapter {percent(np.exp(row['adapter']))}, base {percent(np.exp(row['base']))}",
        f"difference {signed(row['adapter'] - row['base'], 2)} nats",
    ]
    for name in ("adapter", "base"):
        top = ", ".join(
            f"{visible(one_line(text, 20) if text.strip() else text)} {percent(p, 0)}" for text, p in row[f"{name}_top"]
        )
        lines.append(f"{name}: {top}")
    return "\n".join(lines)


def where_from(about: Mapping[str, Any], summary: RunSummary) -> str:
    """Say which adapter answers where that is not the one of the run's end; empty where it is."""
    step = number(int(about["step"]))
    if about["place"] == "adapter":
        return ""
    if summary.status in ACTIVE:
        return f"The run is still training. The adapter is that of its last checkpoint (step {step})."
    return f"The run did not finish. The adapter is that of its last checkpoint (step {step})."
