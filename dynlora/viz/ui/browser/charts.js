// For all charts of a page: entries of their menus that save a chart or show it on the full screen, and the step under the pointer, or
// that a player shows, as a line through every chart over steps. Steps that are drawn over in one chart are those of all. The server is
// told of two things alone: the module of a cell or a band that was clicked, and the steps of a page that has a range of steps.

const AXES = ["Step", "Training tokens", "Training examples", "Training time (s)", "Adapter parameters × steps"];
const RANKED = "scatter", LOOK_MS = 60, REST_MS = 700, SPARE = 60, FIT_MS = 150, TWICE_MS = 320;

export default function ({ data, setTriggerValue }) {
  window.dynloraCharts = window.dynloraCharts || new Charts();
  window.dynloraCharts.colours = data;
  window.dynloraCharts.tell = setTriggerValue;
  window.dynloraCharts.soon();
}

class Charts {
  constructor() {
    new MutationObserver(() => this.soon()).observe(document.body, { childList: true, subtree: true });
    document.addEventListener("dynlora-step", (event) => this.play(event.detail));
  }

  soon() {
    if (!this.waiting) this.waiting = setTimeout(() => { this.waiting = null; this.look(); }, LOOK_MS);
  }

  all() {
    return [...document.querySelectorAll(".js-plotly-plot")].filter((chart) => chart._fullLayout && chart.on);
  }

  look() {
    if (document.querySelector("[data-testid=stDialog]")) {  // a table was opened: its menu would be drawn over it
      document.querySelector('[class*="st-key-table-"] button[aria-expanded="true"]')?.click();
    }
    for (const chart of this.all()) {
      if (!chart.dynlora) {
        chart.dynlora = true;
        chart.addEventListener("pointermove", (event) => this.hovered(chart, event));
        chart.addEventListener("pointerleave", () => this.clear());
        chart.on("plotly_click", (event) => this.clicked(chart, event));
        chart.on("plotly_relayout", (changes) => this.brushed(chart, changes));
        chart.on("plotly_doubleclick", () => this.reset(chart));
      }
      this.tools(chart);
    }
  }

  hovered(chart, event) {
    const axis = chart._fullLayout.xaxis, size = chart._fullLayout._size, box = chart.getBoundingClientRect();
    const x = event.clientX - box.left - (axis ? axis._offset : 0), y = event.clientY - box.top - size.t;
    if (!AXES.includes(title(chart)) || x < 0 || x > axis._length || y < 0 || y > size.h) return this.clear();
    const place = axis.p2l(x);
    this.mark(axis.type === "log" ? 10 ** place : Math.round(place), title(chart), chart);
  }

  // Told after a moment: of a double click, which shows all steps again, the first click chooses nothing.
  clicked(chart, { points: [point], event }) {
    const place = point ? module(chart, point, event) : -1;
    if (place < 0 || this.pressed || event.detail > 1) return;
    const axis = chart._fullLayout.xaxis, x = event.clientX - chart.getBoundingClientRect().left - (axis ? axis._offset : 0);
    const step = title(chart) === "Step" && point.data?.meta?.places ? Math.max(0, Math.round(axis.p2d(x))) : null;
    this.pressed = setTimeout(() => { this.pressed = null; this.tell("click", { chart: name(chart), place, step }); }, TWICE_MS);
  }

  brushed(chart, { "xaxis.range[0]": first, "xaxis.range[1]": last }) {
    const from = Math.max(0, Math.round(first)), to = Math.round(last), begin = whole(chart)["xaxis.range"];
    if (first === undefined || (begin && first === begin[0] && last === begin[1])) return;
    this.follow(chart, () => ({ "xaxis.range": [first, last] }), to > from ? { first: from, last: to } : null);
  }

  reset(chart) {
    clearTimeout(this.pressed);
    this.pressed = null;
    this.follow(chart, whole, { all: true });
  }

  // A relayout tells of itself: what this sets in the other charts is no brush.
  follow(chart, range, steps) {
    const axis = title(chart);
    if (this.follows || !AXES.includes(axis)) return;
    this.follows = true;
    const others = this.all().filter((other) => other !== chart && title(other) === axis);
    Promise.all(others.map((other) => window.Plotly.relayout(other, range(other)))).finally(() => { this.follows = false; });
    if (steps && axis === "Step" && document.querySelector(".st-key-views-of-run")) this.tell("brush", steps);
  }

  mark(place, axis, from) {
    const words = `${axis === "Step" ? "step " : ""}${Math.round(place).toLocaleString("en")}`;
    for (const chart of this.all()) {
      if (title(chart) === axis) line(chart, place, this.colours, chart === from ? "" : words);
      else hide(chart);
    }
  }

  clear() {
    if (!this.playing) this.all().forEach(hide);
  }

  play({ step, ranks, shares, positions, plays }) {
    clearTimeout(this.rest);
    this.playing = true;
    this.mark(step, "Step", null);
    for (const chart of this.all()) if (name(chart) === RANKED) follow(chart, step, ranks, shares, positions, this.colours);
    if (!plays) this.rest = setTimeout(() => { this.playing = false; this.clear(); }, REST_MS);
  }

  tools(chart) {
    const key = name(chart), place = document.querySelector(files(key));  // there while the menu is open
    if (!place || !window.Plotly || place.querySelector(".dynlora-tools")) return;
    const now = () => this.all().find((other) => name(other) === key);  // a page drawn again may have another element
    const row = document.createElement("span");
    row.className = "dynlora-tools";
    row.append(
      button("PNG", "Save as PNG", () => save(now(), "png", this.colours)),
      button("SVG", "Save as SVG", () => save(now(), "svg", this.colours)),
      button("Full screen", "Full screen", () => this.enlarge(now())),
    );
    place.append(row);
  }

  // A copy, because streamlit gives its own chart its own height back.
  enlarge(chart) {
    const sheet = document.createElement("div"), head = document.createElement("div"), place = document.createElement("div");
    const words = document.createElement("strong"), card = chart.closest('[class*="st-key-card-"]');
    words.textContent = (card && card.querySelector("h5") || { textContent: "" }).textContent;
    const close = () => { sheet.remove(); if (document.fullscreenElement) document.exitFullscreen(); };
    head.append(words, button("✕", "Close", close));
    sheet.className = "dynlora-full";
    Object.assign(sheet.style, { background: this.colours.panel, color: this.colours.text });
    sheet.append(head, place);
    document.body.append(sheet);
    sheet.addEventListener("keydown", (event) => event.key === "Escape" && close());
    document.addEventListener("fullscreenchange", () => document.fullscreenElement || sheet.remove());
    head.lastChild.focus();
    const draw = () => window.Plotly.newPlot(place, structuredClone(chart.data), {
      ...structuredClone(chart.layout), autosize: true, width: undefined, height: window.innerHeight - head.offsetHeight - SPARE,
    }, { displayModeBar: false, responsive: true });
    return (sheet.requestFullscreen ? sheet.requestFullscreen() : Promise.reject()).catch(() => {}).then(() => setTimeout(draw, FIT_MS));
  }
}

function title(chart) {
  const axis = chart._fullLayout.xaxis;
  return axis && axis.type !== "category" && axis.title ? axis.title.text : null;
}

// What a double click leads back to: the range that a chart was drawn with, or that of its points.
function whole(chart) {
  const { _rangeInitial0: first, _rangeInitial1: last } = chart._fullLayout.xaxis;
  return first === undefined ? { "xaxis.autorange": true } : { "xaxis.range": [first, last] };
}

// Of a cell its module by the place on the axis along which the modules are; of a band its receiver.
function module(chart, point, event) {
  const meta = (point.data || point.trace || (chart.data.length === 1 && chart.data[0]) || {}).meta;
  if (!meta) return -1;
  if (meta.place !== undefined) return meta.place;  // a line that stands for something itself
  if (meta.bands) return (point.source === undefined ? meta.ends : meta.bands)[point.pointNumber] ?? -1;
  if (!meta.places) return -1;
  const axis = chart._fullLayout[`${meta.axis}axis`], box = chart.getBoundingClientRect();
  const at = axis.p2d((meta.axis === "x" ? event.clientX - box.left : event.clientY - box.top) - axis._offset);
  const away = meta.places.map((place) => Math.abs(place - at)), least = Math.min(...away);
  return least > 1 ? -1 : meta.positions[away.indexOf(least)];
}

function name(chart) {
  return (chart._context.toImageButtonOptions || {}).filename || "chart";
}

function files(name) {
  return `.st-key-csv-${CSS.escape(name.replace(/[^A-Za-z0-9_-]/g, "-"))}`;
}

function button(words, about, act) {
  const made = document.createElement("button");
  Object.assign(made, { type: "button", textContent: words, title: about, ariaLabel: about, onclick: act });
  return made;
}

function save(chart, format, colours) {
  const layout = { ...chart.layout, paper_bgcolor: colours.panel };
  const size = { format, width: chart._fullLayout.width, height: chart._fullLayout.height, scale: format === "png" ? 2 : 1 };
  return window.Plotly.downloadImage({ data: chart.data, layout }, { ...size, filename: name(chart) });
}

function sheet(chart) {
  const root = chart.querySelector(".svg-container");
  let mark = root && root.querySelector(":scope > .dynlora-mark");
  if (root && !mark) {
    mark = document.createElement("div");
    mark.className = "dynlora-mark";
    mark.append(document.createElement("span"));
    root.append(mark);
  }
  return mark;
}

function line(chart, place, colours, words) {
  const axis = chart._fullLayout.xaxis, size = chart._fullLayout._size, mark = sheet(chart);
  const x = axis.l2p(axis.type === "log" ? Math.log10(place) : place);
  if (!mark || !(x >= 0 && x <= axis._length)) return hide(chart);
  Object.assign(mark.style, {
    display: "block", left: `${axis._offset + x}px`, top: `${size.t}px`, height: `${size.h}px`, borderLeft: `1.6px dashed ${colours.line}`,
  });
  caption(mark, words, colours, x > axis._length / 2);
}

function caption(mark, words, colours, is_left) {
  const label = mark.firstChild;
  label.textContent = words;
  Object.assign(label.style, { color: colours.text, background: colours.panel, [is_left ? "right" : "left"]: "3px", [is_left ? "left" : "right"]: "auto" });
}

function hide(chart) {
  const mark = chart.querySelector(".dynlora-mark");
  if (mark) mark.style.display = "none";
}

function follow(chart, step, ranks, shares, positions, colours) {
  const total = (values) => values.reduce((sum, value) => sum + Math.max(0, value || 0), 0) || 1;
  const all = { x: total(shares), y: total(ranks) }, of = new Map(positions.map((position, place) => [position, place]));
  const share = (values, whole) => (point) => 100 * Math.max(0, values[of.get(point[point.length - 1])] || 0) / whole;
  const traces = chart.data.map((trace, place) => place).filter((place) => chart.data[place].customdata);
  window.Plotly.restyle(chart, {
    x: traces.map((place) => Array.from(chart.data[place].customdata, share(shares, all.x))),
    y: traces.map((place) => Array.from(chart.data[place].customdata, share(ranks, all.y))),
  }, traces);
  const mark = sheet(chart), size = chart._fullLayout._size;
  Object.assign(mark.style, { display: "block", left: `${size.l + size.w}px`, top: `${size.t}px`, height: "0px" });
  caption(mark, `step ${step.toLocaleString("en")}`, colours, true);
}
