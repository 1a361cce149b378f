// The model as a picture, at each of at most 60 steps: a cell per module, a row per kind and a column per layer, with its
// rank, its share of the importance of the step, or its change of rank since the first step. All frames come with the
// first drawing; playing, scrubbing and switching ask the server for nothing. The step one stops on is handed back once,
// so that it can stand in the page's address. A picture that plays by itself begins again and again, and waits to be
// started where a viewer asked for less motion. With cues it speaks: it stops at their frames, with the sentences below
// and the cells that they are about marked; whoever asked for less motion has all sentences as a list.

const SVG = "http://www.w3.org/2000/svg";
const LEFT = 78, TOP = 20, GAP = 3, LEAST = 9, MOST = 44, ROOM = 300; // pixels: beside, above, between and of cells
const FOOT = 44, BAR = 110, LETTER = 7.5; // of what is below the cells, of the colours in it, and of a digit
const NAMES = { rank: "Rank", importance: "Importance", change: "Change" };
const PLAY_MS = 8000, SETTLE_MS = 450, REST_MS = 2500;
const READ_MS = 1400, LETTER_MS = 32; // of a sentence: at least, and more for each letter

export default function ({ data, parentElement, setTriggerValue }) {
  let root = parentElement.querySelector(".replay");
  if (!root) {
    root = document.createElement("div");
    root.className = "replay";
    parentElement.appendChild(root);
    root.player = new Player(root);
  }
  root.player.show(data, data.linked ? (step) => setTriggerValue("step", step) : () => {});
}

class Player {
  constructor(root) {
    this.root = root;
    this.svg = element("svg", { role: "img" });
    this.button = document.createElement("button");
    this.slider = document.createElement("input");
    this.output = document.createElement("output");
    this.save = document.createElement("button");
    Object.assign(this.button, { type: "button", onclick: () => (this.timer ? this.pause() : this.play()) });
    Object.assign(this.save, { type: "button", className: "save", textContent: "⤓", title: "Save as SVG", ariaLabel: "Save as SVG", onclick: () => this.download() });
    Object.assign(this.slider, { type: "range", min: 0, step: 1, oninput: () => this.scrub() });
    this.slider.setAttribute("aria-label", "Step shown");
    const controls = document.createElement("div");
    controls.className = "controls";
    controls.append(this.button, this.slider, this.output, this.save);
    this.choice = document.createElement("div");
    this.choice.className = "choice";
    this.speech = document.createElement("div");
    this.speech.className = "speech";
    this.sentences = document.createElement("ol");
    this.sentences.className = "sentences";
    root.append(this.choice, this.svg, this.speech, controls, this.sentences);
    this.cue = null;
    this.spoken = 0;
    new ResizeObserver(() => this.layout()).observe(root);
  }

  show(data, settled) {
    const same = this.data && this.data.version === data.version;
    this.settled = settled;
    this.root.classList.toggle("large", Boolean(data.large));
    if (same) return;
    const playing = Boolean(this.timer);
    this.data = { cues: [], due: [], ...data };
    data = this.data;
    this.sentences.replaceChildren(...data.cues.map((cue) => sentence("li", cue.words)));
    this.root.classList.toggle("speaks", data.cues.length > 0);
    this.slider.max = data.steps.length - 1;
    if (this.offered !== data.quantity) this.quantity = this.offered = data.quantity;
    const isMeasured = data.share.some((shares) => shares.some((share) => share !== null));
    this.choice.replaceChildren(...Object.keys(NAMES).filter((name) => name !== "importance" || isMeasured).map((name) => this.option(name)));
    if (!playing || this.frame >= data.steps.length) this.frame = data.frame;
    if (!playing) this.cue = this.here() ?? this.lastMove();
    this.width = 0;
    this.layout();
    this.label();
    if (data.plays && !this.started && !matchMedia("(prefers-reduced-motion: reduce)").matches) this.play();
    this.started = true;
  }

  play() {
    if (this.frame >= this.data.steps.length - 1) {
      this.frame = 0;
      this.cue = null;
      this.paint();
    }
    this.spoken = 0;
    this.wait();
    this.label();
  }

  wait() {
    const read = this.cue ? this.cue.words.reduce((ms, words) => ms + READ_MS + LETTER_MS * words.length, 0) : 0;
    this.timer = setTimeout(() => this.tick(), read || Math.max(60, PLAY_MS / this.data.steps.length));
  }

  tick() {
    if (!this.root.isConnected) return this.pause();
    const cues = this.data.cues.filter((cue) => cue.frame === this.frame);
    this.cue = cues[this.spoken] ?? null;
    this.spoken += 1;
    if (this.cue) {
      this.speak();
      return this.wait();
    }
    if (this.frame >= this.data.steps.length - 1) return this.end();
    this.frame += 1;
    this.spoken = 0;
    this.moved = true;
    this.paint();
    if (this.frame < this.data.steps.length - 1 || this.data.cues.length) return this.wait();
    this.end();
  }

  end() {
    if (!this.data.plays) return this.pause();
    this.timer = setTimeout(() => this.play(), REST_MS);
  }

  here() {
    return this.data.cues.findLast((cue) => cue.frame === this.frame) ?? null;
  }

  lastMove() {
    return this.data.cues.findLast((cue) => cue.rows.length > 1 && cue.frame <= this.frame) ?? null;
  }

  pause() {
    clearTimeout(this.timer);
    this.timer = null;
    this.label();
    this.tell(false);
    this.settle(0);
  }

  scrub() {
    clearTimeout(this.timer);
    this.timer = null;
    this.frame = Number(this.slider.value);
    this.cue = this.here();
    this.moved = true;
    this.label();
    this.paint();
    this.settle(SETTLE_MS);
  }

  settle(wait) {
    clearTimeout(this.pending);
    this.pending = setTimeout(() => this.settled(this.data.steps[this.frame]), wait);
  }

  label() {
    this.button.textContent = this.timer ? "❚❚ Pause" : "▶ Play";
    this.button.setAttribute("aria-label", this.timer ? "Pause" : "Play training");
  }

  layout() {
    const width = Math.floor(this.root.clientWidth);
    if (!this.data || !width || width === this.width) return;
    this.width = width;
    this.root.style.colorScheme = this.data.colours.mode;
    const { modules, kinds, layers, colours } = this.data, muted = { fill: colours.muted, "text-anchor": "middle" };
    this.wide = (width - LEFT) / layers.length;
    this.high = Math.min(MOST, Math.max(LEAST, ROOM / kinds.length));
    const size = this.data.large ? 15 : 11, each = Math.ceil((LETTER * layers.at(-1).length + 8) / this.wide);
    this.svg.replaceChildren();
    layers.forEach((name, column) => {
      if (column % each === 0) this.svg.append(text(name, LEFT + (column + 0.5) * this.wide, TOP - 7, muted));
    });
    const every = Math.ceil((size + 2) / this.high);
    kinds.forEach((name, row) => {
      if (row % every === 0) this.svg.append(text(name, LEFT - 8, TOP + (row + 0.5) * this.high, { fill: colours.text, "text-anchor": "end", "dominant-baseline": "central" }));
    });
    const members = new Map();
    modules.forEach((module, index) => {
      const key = `${module.row} ${module.column}`;
      members.set(key, [...(members.get(key) ?? []), index]);
    });
    this.cells = [...members.values()].map((indices) => this.cell(indices, modules[indices[0]]));
    const bottom = TOP + kinds.length * this.high;
    this.legend = element("g");
    this.svg.append(this.legend);
    if (this.data.outlined) {
      const words = text(this.data.outlined, width - 1, bottom + 36, { fill: colours.muted, "text-anchor": "end" });
      this.svg.append(words);
      const x = width - 16 - (words.getComputedTextLength() || 60);
      this.svg.append(element("rect", { x, y: bottom + 27, width: 10, height: 10, rx: 2, fill: "none", stroke: colours.needed, "stroke-width": 1.6 }));
    }
    this.svg.setAttribute("viewBox", `0 0 ${width} ${bottom + FOOT}`);
    this.svg.style.height = `${bottom + FOOT}px`;
    this.arc = element("path", { fill: "none", stroke: colours.mark, "stroke-width": 1.8, "stroke-dasharray": "1 4", "stroke-linecap": "round", "pointer-events": "none" });
    this.svg.append(this.arc);
    this.paint();
  }

  option(name) {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", textContent: NAMES[name], onclick: () => { this.quantity = name; this.paint(); } });
    button.dataset.quantity = name;
    return button;
  }

  cell(indices, { row, column }) {
    const { modules, colours } = this.data, x = LEFT + column * this.wide, y = TOP + row * this.high;
    const gap = Math.min(this.wide, this.high) > 3 * GAP ? GAP : 0.5, width = Math.max(1, this.wide - gap), height = this.high - gap;
    const box = element("rect", { class: "cell", x, y, width, height, rx: Math.min(4, width / 4) });
    const title = element("title");
    box.append(title);
    this.svg.append(box);
    const edge = { x, y, width, height, rx: Math.min(4, width / 4), fill: "none", "pointer-events": "none" };
    if (indices.some((index) => modules[index].needed)) this.svg.append(element("rect", { ...edge, stroke: colours.needed, "stroke-width": 2 }));
    const mark = element("rect", { ...edge, stroke: colours.mark, "stroke-width": 2.2 });
    this.svg.append(mark);
    const words = text("", x + width / 2, y + height / 2, { "text-anchor": "middle", "dominant-baseline": "central", "pointer-events": "none" });
    if (height > 12) this.svg.append(words);
    const names = indices.map((index) => `${modules[index].short}\n${modules[index].name}`).join("\n");
    return { box, title, words, mark, indices, names, width, middle: { x: x + width / 2, y: y + height / 2 } };
  }

  paint() {
    const { steps, rank, share, about, due, colours, ends } = this.data;
    const step = steps[this.frame], ranks = rank[this.frame], shares = share[this.frame], first = rank[0];
    const name = this.quantity, end = ends[name], isChange = name === "change";
    const read = { rank: (index) => ranks[index], importance: (index) => shares[index], change: (index) => ranks[index] - first[index] }[name];
    for (const { box, title, words, names, width, indices } of this.cells) {
      const known = indices.map(read).filter((one) => one !== null), mean = known.reduce((sum, one) => sum + one, 0) / known.length;
      const fill = known.length ? mixed(colours[name], isChange ? (mean / end + 1) / 2 : mean / end) : colours.sunken;
      box.setAttribute("fill", fill);
      const number = known.length ? written(mean, name, width) : "";
      words.textContent = width >= LETTER * number.length + 2 ? number : "";
      words.setAttribute("fill", readable(fill, colours));
      const facts = indices.map((index) => `rank ${ranks[index]}` + (shares[index] === null ? "" : `, ${shares[index]} % of the importance`));
      title.textContent = `${names}\n${facts.join("\n")}`;
    }
    this.explain();
    for (const option of this.choice.children) option.setAttribute("aria-pressed", option.dataset.quantity === name);
    this.slider.value = this.frame;
    this.slider.setAttribute("aria-valuetext", `step ${step}`);
    this.output.textContent = `step ${step.toLocaleString("en")}${due[this.frame] ? ` · ${due[this.frame]}` : ""}`;
    this.svg.setAttribute("aria-label", `${about} Step ${step}.`);
    this.root.dataset.step = step;
    this.speak();
    if (this.moved) this.tell(Boolean(this.timer));
  }

  explain() {
    const { colours, ends, uniform, rank, kinds } = this.data, name = this.quantity, end = ends[name];
    const y = TOP + kinds.length * this.high + 14, isChange = name === "change", number = (value) => value.toLocaleString("en", { maximumFractionDigits: 1 });
    const parts = Array.from({ length: BAR / 2 }, (_, at) => element("rect", { x: LEFT + 2 * at, y, width: 2.2, height: 9, fill: mixed(colours[name], 2 * at / BAR) }));
    const isAbove = name === "importance" || (name === "rank" && rank.some((ranks) => ranks.some((one) => one > end)));
    const unit = name === "importance" ? " % of the step" : "", more = isAbove ? " or more" : "";
    const marks = [[isChange ? `−${number(end)}` : "0", 0], [`${isChange ? "+" : ""}${number(end)}${unit}${more}`, BAR]];
    if (name === "rank" && uniform) marks.push([`${uniform} uniform`, BAR / 2]);
    const places = { 0: "start", [BAR]: "start" };
    marks.forEach(([words, at]) => {
      const isEnd = at === BAR;
      parts.push(text(words, LEFT + (isEnd ? BAR + 6 : at), isEnd ? y + 9 : y + 22, { fill: colours.muted, "text-anchor": places[at] ?? "middle" }));
    });
    this.legend.replaceChildren(...parts);
  }

  speak() {
    const cue = this.cue, { modules } = this.data, rows = cue ? cue.rows : [];
    for (const { mark, indices } of this.cells) {
      const isMarked = indices.some((index) => rows.includes(index) || (!rows.length && modules[index].marked));
      mark.setAttribute("visibility", isMarked ? "visible" : "hidden");
    }
    const points = rows.map((row) => this.cells.find(({ indices }) => indices.includes(row)).middle);
    this.arc.setAttribute("d", points.length > 1 ? arc(points[0], points[1]) : "");
    if (this.speech.cue === cue) return;
    this.speech.cue = cue;
    this.speech.replaceChildren(...(cue ? [sentence("p", cue.words)] : []));
  }

  tell(plays) {
    const { steps, rank, share, modules } = this.data;
    const detail = { step: steps[this.frame], ranks: rank[this.frame], shares: share[this.frame], positions: modules.map((one) => one.position), plays };
    document.dispatchEvent(new CustomEvent("dynlora-step", { detail }));
  }

  download() {
    const copy = this.svg.cloneNode(true);
    copy.setAttribute("xmlns", SVG);
    copy.setAttribute("font-family", "system-ui, sans-serif");
    copy.insertBefore(element("rect", { width: "100%", height: "100%", fill: this.data.colours.panel }), copy.firstChild);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" }));
    link.download = `model-step-${this.data.steps[this.frame]}.svg`;
    link.click();
    URL.revokeObjectURL(link.href);
  }
}

function sentence(tag, words) {
  const made = document.createElement(tag);
  made.textContent = `${words.join(", ").replace(/\.$/, "")}.`;
  return made;
}

function arc(from, to) {
  const bend = Math.abs(from.x - to.x) < 1 ? 30 : 0;
  return `M ${from.x} ${from.y} Q ${(from.x + to.x) / 2 + bend} ${(from.y + to.y) / 2 - 24} ${to.x} ${to.y}`;
}

function written(value, name, width) {
  const rounded = name === "importance" && value < 9.95 && width > 30 ? value.toFixed(1) : String(Math.round(Math.abs(value)));
  if (name !== "change") return rounded;
  return rounded === "0" ? "" : `${value > 0 ? "+" : "−"}${rounded}`;
}

function element(name, attributes = {}) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function text(words, x, y, attributes) {
  const made = element("text", { x, y, "font-size": 11, ...attributes });
  made.textContent = words;
  return made;
}

function mixed(scale, share) {
  const place = Math.min(Math.max(share, 0), 1) * (scale.length - 1);
  const low = Math.min(Math.floor(place), scale.length - 2);
  const mix = [0, 1, 2].map((at) => Math.round(part(scale[low], at) + (part(scale[low + 1], at) - part(scale[low], at)) * (place - low)));
  return `#${mix.map((one) => one.toString(16).padStart(2, "0")).join("")}`;
}

const part = (colour, at) => parseInt(colour.slice(1 + 2 * at, 3 + 2 * at), 16);
const light = (colour) => 0.3 * part(colour, 0) + 0.59 * part(colour, 1) + 0.11 * part(colour, 2);

// The colour of words on a cell: the one of the panel's and the text's that is farther from the cell's own.
function readable(fill, { text, panel }) {
  return Math.abs(light(text) - light(fill)) > Math.abs(light(panel) - light(fill)) ? text : panel;
}
