"""The address as the state of a page: controls are set from it and write to it; and what forms keep between visits."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import streamlit as st

from dynlora.text import one_line

BOUND = "address-steps-bound"
"""Key in the session: the end of the slider of steps that is shown."""


def from_address(name: str, options: Sequence[Any], default: Any) -> Any:
    """Return the option whose text is in the address under `name`, else the default."""
    value = st.query_params.get(name, "")
    texts = (value, _without_fidelity(value))
    return next((option for text in texts for option in options if str(option) == text), default)


def _without_fidelity(name: str) -> str:
    """Return a configuration's name as it is today: addresses of earlier versions have the method's fidelity in it."""
    return re.sub(r" \((?:from its [a-z]+|reconstruction)\)", "", name)


def to_address(**values: Any) -> None:
    """Write values to the address, all at once: one action is one step of the browser's Back. None removes one."""
    before = _address()
    after = before | {name: [] if value is None else [str(value)] for name, value in values.items()}
    after = {name: texts for name, texts in after.items() if texts}
    if after != before:
        _write(after)


def keep_address() -> None:
    """Write the address out again: after a link to the page it is on a browser still shows the one before."""
    _write(_address())


def _address() -> dict[str, list[str]]:
    return {name: st.query_params.get_all(name) for name in st.query_params}


def _write(address: Mapping[str, list[str]]) -> None:
    if address:
        st.query_params.from_dict(address)
    else:
        st.query_params.clear()


def put(key: str, value: Any) -> None:
    """Set a control from the address before it is drawn.

    One that shows the value already is left alone: to set it would undo what the viewer does to it meanwhile.
    """
    if key not in st.session_state or st.session_state[key] != value:
        st.session_state[key] = value


def _changed(name: str, key: str, default: Any) -> None:
    value = st.session_state[key]
    to_address(**{name: None if value == default else value})


def _segment_changed(name: str, key: str, default: Any) -> None:
    """Write the choice to the address; the chosen one that is pressed again stays chosen."""
    if st.session_state[key] is not None:
        _changed(name, key, default)


Options = Sequence[Any] | Mapping[Any, str]
"""What can be chosen: values, or words by value."""


def _among(options: Options, default: Any, words: Callable[[Any], str] | None) -> tuple[list[Any], Any, Any]:
    """Return what can be chosen, what is usual, the first unless it is given, and what names each."""
    every, named = list(options), options.__getitem__ if isinstance(options, Mapping) else str
    return every, every[0] if default is None else default, words or named


def segmented(
    name: str,
    label: str,
    options: Options,
    default: Any = None,
    words: Callable[[Any], str] | None = None,
    **more: Any,
) -> Any:
    """Draw a row of choices and return the chosen one."""
    every, default, named = _among(options, default, words)
    key = f"address-{name}"
    current = from_address(name, every, default)
    put(key, current)
    chosen = st.segmented_control(
        label,
        every,
        key=key,
        format_func=named,
        label_visibility="collapsed",
        on_change=_segment_changed,
        args=(name, key, default),
        **more,
    )
    return current if chosen is None else chosen


SECTION = "section"
"""Name in the address of the openers that are open."""


@contextmanager
def section(name: str, label: str, controls: Sequence[str] = (), address: str = SECTION) -> Iterator[bool]:
    """Draw an opener and yield whether it is open; what is drawn inside the block is inside it.

    A link opens it by its name, or by naming a control that is inside it; a reader who closes it then keeps it closed.

    Args:
        name: value in the address that opens it.
        label: of the opener.
        controls: names in the address of what is inside.
        address: name in the address of the openers that are open.
    """
    key = f"section-{name}"
    linked: dict[str, str | bool] = {one: st.query_params.get(one, "") for one in controls}
    linked[address] = name in st.query_params.get_all(address)
    before = st.session_state.get(f"{key}-linked", {}) if key in st.session_state else {}
    if any(value and value != before.get(one) for one, value in linked.items()):
        st.session_state[key] = True
    elif key not in st.session_state:
        st.session_state[key] = False
    st.session_state[f"{key}-linked"] = linked
    place = st.expander(label, key=key, on_change=_section_changed, args=(name, key, address))
    with place:
        yield bool(place.open)


def _section_changed(name: str, key: str, address: str) -> None:
    """Write to the address that an opener is open; one that is closed leaves it."""
    others = [one for one in st.query_params.get_all(address) if one != name]
    opened = [*others, name] if st.session_state[key] else others
    if opened:
        st.query_params[address] = opened
    else:
        st.query_params.pop(address, None)


def choose(
    name: str,
    label: str,
    options: Options,
    default: Any = None,
    words: Callable[[Any], str] | None = None,
    **more: Any,
) -> Any:
    """Draw a drop-down list and return the chosen option."""
    every, default, named = _among(options, default, words)
    key = f"address-{name}"
    put(key, from_address(name, every, default))
    return st.selectbox(label, every, key=key, format_func=named, on_change=_changed, args=(name, key, default), **more)


def slide(
    name: str, label: str, options: Sequence[Any], default: Any, words: Callable[[Any], str] = str, **more: Any
) -> Any:
    """Draw a slider over rising options and return the chosen one; of one there is nothing to choose."""
    if len(options) < 2:
        return default
    key = f"address-{name}-{len(options)}"
    put(key, from_address(name, options, default))
    return st.select_slider(
        label, options, key=key, format_func=words, on_change=_changed, args=(name, key, default), **more
    )


def step_slider(last: int, bound: int) -> int:
    """Draw the step control and return the chosen step; without one in the address it is the last.

    A slider whose end moves with the run is a new one at each step: it flickers, and the browser answers with the value
    of the one before, which looks like a choice. So its end stays, and at its end it means the last step.

    Args:
        last: step that the run has reached.
        bound: end of the slider, constant while the run trains: `run_summary.last_planned_step`.
    """
    if last < 1:
        return last
    value = st.query_params.get("step", "")
    current = min(int(value), bound) if value.isdecimal() and len(value) < 12 else bound
    put("address-step", current)
    st.session_state[BOUND] = bound
    _say_reached(last, bound)
    chosen = st.slider(
        "Step",
        0,
        bound,
        key="address-step",
        on_change=_step_changed,
        help="All views show this step, or the last evaluation up to it. The end is the newest step.",
    )
    return min(chosen, last)


def _say_reached(last: int, bound: int) -> None:
    """Say how far a run is whose slider ends later."""
    if last < bound:
        st.caption(f"The run is at step {last:,} of {bound:,}. The end of the slider is the newest step.")


def _step_changed() -> None:
    chosen = st.session_state["address-step"]
    to_address(step=None if chosen >= st.session_state[BOUND] else chosen)


def addressed_range(last: int) -> tuple[int, int]:
    """Return the ends of the range of steps in the address; without one in it, everything up to `last`."""
    bounds = brushed_steps()
    if last < 1 or bounds is None:
        return 0, last
    first, end = bounds
    first = min(first, last - 1)
    return first, max(last if end is None else min(end, last), first + 1)


def brushed_steps() -> tuple[int, int | None] | None:
    """Return the ends of the range of steps as the address has them, the second None for the newest; None for all."""
    bounds = re.fullmatch(r"(\d{1,12})-(\d{0,12})", st.query_params.get("steps", ""))
    return None if bounds is None else (int(bounds[1]), int(bounds[2]) if bounds[2] else None)


def step_range(last: int, bound: int, label: str = "Steps shown") -> None:
    """Draw the range of steps that a map shows; `addressed_range` reads it.

    The end of the slider means the newest step, so that a view of a running run keeps growing; see `step_slider`.

    Args:
        last: step that the run has reached.
        bound: end of the slider, constant while the run trains.
        label: of the control.
    """
    if last < 1:
        return
    put("address-steps", addressed_range(bound))
    st.session_state[BOUND] = bound
    _say_reached(last, bound)
    st.slider(
        label,
        0,
        bound,
        key="address-steps",
        on_change=_range_changed,
        help="The map and the rank transfers show these steps, at the full recorded resolution. The end is the newest "
        "step.",
    )


def _range_changed() -> None:
    """Write the range to the address; whatever slider answers, the bound is that of the one which is shown."""
    first, end = st.session_state["address-steps"]
    is_open = end >= st.session_state[BOUND]
    to_address(steps=None if is_open and first == 0 else f"{first}-{'' if is_open else end}")


def chosen_step(first: int, last: int) -> int:
    """Return the step in the address, held between `first` and `last`; without one it is `last`."""
    value = st.query_params.get("step", "")
    return min(max(int(value), first), last) if value.isdecimal() and len(value) < 12 else last


def remember_address() -> None:
    """Note the address that the whole page is drawn for; called once each time a page with live parts is drawn."""
    st.session_state["drawn-for"] = st.query_params.to_dict()


OF_ONE_PART = {SECTION, "signal", "rows", "open", "flow"}
"""Names in the address that concern one live part of a page alone."""


def follow_address() -> None:
    """Redraw the whole page when a control in a live part has changed what the other parts show too."""
    before, now = st.session_state.get("drawn-for", {}), st.query_params.to_dict()
    if any(before.get(name) != now.get(name) for name in {*before, *now} - OF_ONE_PART):
        st.rerun()


MOST_HIDDEN = 200
"""Most runs that an address hides."""


def hidden_runs() -> frozenset[str]:
    """Return the ids of the hidden runs; none that lists hold is one by chance, so nothing is checked."""
    return frozenset(st.query_params.get("hide", "").split(",")[:MOST_HIDDEN]) - {""}


def hide(ids: Iterable[str]) -> None:
    """Hide these runs and no others."""
    chosen = sorted(set(ids))[:MOST_HIDDEN]
    to_address(hide=",".join(chosen) or None)


def several(
    name: str,
    label: str,
    options: Sequence[str],
    words: Mapping[str, str],
    width: Any = 160,
    none: str = "all",
) -> tuple[str, ...]:
    """Draw a choice of several options and return those chosen; `none` says what it means to choose none."""
    key = f"address-{name}"
    values = {text for value in st.query_params.get_all(name) for text in (value, _without_fidelity(value))}
    put(key, [option for option in options if option in values])
    chosen = st.multiselect(
        label,
        options,
        key=key,
        placeholder=none,
        width=width,
        on_change=_several_changed,
        args=(name, key),
        format_func=lambda option: one_line(words.get(option, option), 40),
    )
    return tuple(chosen)


def _several_changed(name: str, key: str) -> None:
    if st.session_state[key]:
        st.query_params[name] = list(st.session_state[key])
    else:
        st.query_params.pop(name, None)


_FORM, _ADDRESS = "kept-form", "kept-address"


def start_from(start: Mapping[str, Any]) -> None:
    """Forget what was entered on top of other starting values; called before the form is drawn.

    Args:
        start: starting values of the form, by name.
    """
    form = st.session_state.setdefault(_FORM, {"start": None, "values": {}})
    if form["start"] != dict(start):
        st.session_state[_FORM] = {"start": dict(start), "values": {}}


def kept(key: str, widget: Callable[..., Any], value: Any, /, *arguments: Any, **options: Any) -> Any:
    """Draw a widget and return what it holds: what was entered when the page was left, else at first `value`.

    Args:
        key: of the widget.
        widget: draws it.
        value: that it begins with; the options give none, as streamlit warns of two.
        arguments: of the widget.
        options: of the widget, by name.
    """
    if key not in st.session_state:
        st.session_state[key] = _values().get(key, value)
    entered = widget(*arguments, key=key, **options)
    _values()[key] = st.session_state[key]
    return entered


def _values() -> dict[str, Any]:
    return st.session_state.setdefault(_FORM, {"start": None, "values": {}})["values"]


def restore_address(names: tuple[str, ...], control: str) -> None:
    """Write the address of the form as it was left; an address that names something itself is left alone.

    Args:
        names: what the form keeps in its address.
        control: key of a control that every draw of the form has: where it is missing, the form was just opened.
    """
    if control not in st.session_state and not any(name in st.query_params for name in names):
        to_address(**{name: value for name, value in st.session_state.get(_ADDRESS, {}).items() if name in names})


def keep_form_address(names: tuple[str, ...]) -> None:
    """Remember what the form has in its address."""
    st.session_state[_ADDRESS] = {name: st.query_params[name] for name in names if name in st.query_params}


STARTED_IN_VARIABLE = "DYNLORA_STARTED_IN"
"""Folder that `dynlora ui` was started in."""


def from_where_it_started(text: str) -> Path:
    """Return a path as it is meant in the folder that the dashboard was started in; children start elsewhere."""
    return Path(os.environ.get(STARTED_IN_VARIABLE) or os.getcwd()) / Path(os.path.expanduser(text))
