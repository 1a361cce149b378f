// The model as a picture, at each of at most 60 steps: blocks stacked, a bar per module, its length the rank, its shade
// the importance. All frames come with the first drawing; playing and scrubbing ask the server for nothing. The step one
// stops on is handed back once, so that it can stand in the page's address. A picture that plays by itself begins again
// and again, and waits to be started where a viewer asked for less motion. With cues it speaks: it stops at their frames,
// each sentence beside the bar that it is about; whoever asked for less motion has all sentences as a list.

const SVG = "http://www.w3.org/2000/svg";
const BAR = 9, PITCH = 10.5, BLOCK_GAP = 14, LEFT = 62, RIGHT = 10, TOP = 8, AXIS = 40;
const ALL_BARS = 500, LEAST_PITCH = 2.4, LABEL = 13, LARGE = 19; // pixels of all bars, of one, and of a label
const PLAY_MS = 8000, SETTLE_MS = 450, REST_MS = 2500;
const READ_MS = 1400, LETTER_MS = 32; // of a sentence: at least, and more for each letter
const BUBBLE = 250, APART = 10, NEAR = 90; // widest bubble, its distance from its bar, and farthest above or below it, pixels

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
    this.bubbles = document.createElement("div");
    this.bubbles.className = "bubbles";
    this.sentences = document.createElement("ol");
    this.sentences.className = "sentences";
    const stage = document.createElement("div");
    stage.className = "stage";
    stage.append(this.svg, this.bubbles);
    root.append(stage, controls, this.sentences);
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
    this.sentences.replaceChildren(...data.cues.map((cue) => listed(cue.words)));
    this.root.classList.toggle("speaks", data.cues.length > 0);
    this.slider.max = data.steps.length - 1;
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
    const { blocks, modules, limit, uniform, ticks, colours } = this.data;
    this.unit = (width - LEFT - RIGHT) / limit;
    this.svg.replaceChildren();
    this.bars = [];
    const pitch = Math.min(PITCH, Math.max(LEAST_PITCH, ALL_BARS / modules.length)), scale = pitch / PITCH;
    const gap = Math.max(4, BLOCK_GAP * scale), inner = 5 * scale, outer = 4 * scale;
    const speaks = this.data.cues.length > 0;
    let y = TOP + (speaks && uniform ? LABEL : 0), index = 0, labelled = -Infinity;
    if (speaks && uniform) {
      const x = LEFT + uniform * this.unit, isLate = x > width / 2;
      this.svg.append(text(`uniform LoRA: rank ${uniform}`, x, LABEL - 4, { fill: colours.muted, "text-anchor": isLate ? "end" : "start" }));
    }
    for (const block of blocks) {
      const height = block.count * pitch + inner;
      this.svg.append(element("rect", {
        x: LEFT, y: y - outer, width: width - LEFT - RIGHT, height: height + outer / 2, rx: 3 * scale,
        fill: colours.sunken, stroke: colours.hairline,
      }));
      const middle = y + height / 2, isFirst = middle - labelled >= (this.data.large ? LARGE : LABEL);
      if (isFirst) labelled = middle;
      if (isFirst) this.svg.append(text(block.label, LEFT - 8, middle, { fill: colours.muted, "text-anchor": "end", "dominant-baseline": "middle" }));
      for (let row = 0; row < block.count; row += 1, index += 1) this.bars.push(this.bar(modules[index], y + row * pitch, pitch));
      if (uniform) {
        const x = LEFT + uniform * this.unit;
        this.svg.append(element("line", {
          x1: x, x2: x, y1: y - outer, y2: y + height - outer / 2, stroke: colours.muted, "stroke-width": 1.3, "stroke-dasharray": "4 3", "pointer-events": "none",
        }));
      }
      y += height + gap;
    }
    const bottom = y - gap + 14;
    for (const tick of ticks) {
      this.svg.append(text(String(tick), LEFT + tick * this.unit, bottom, { fill: colours.muted, "text-anchor": "middle" }));
    }
    this.svg.append(text("Rank (components)", LEFT + (width - LEFT - RIGHT) / 2, bottom + 17, { fill: colours.muted, "text-anchor": "middle" }));
    if (this.data.outlined) {
      this.svg.append(element("rect", { x: 1, y: bottom + 8, width: 10, height: 10, rx: 2, fill: "none", stroke: colours.needed, "stroke-width": 1.6 }));
      this.svg.append(text(this.data.outlined, 16, bottom + 17, { fill: colours.muted }));
    }
    const height = bottom + AXIS - 17;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.style.height = `${height}px`;
    this.arc = element("path", { fill: "none", stroke: colours.mark, "stroke-width": 1.6, "stroke-dasharray": "1 4", "stroke-linecap": "round", "pointer-events": "none" });
    this.dots = [0, 1].map(() => element("circle", { r: 4, fill: colours.mark, "pointer-events": "none", visibility: "hidden" }));
    this.svg.append(this.arc, ...this.dots);
    this.paint();
  }

  bar(module, y, pitch) {
    const height = BAR * pitch / PITCH;
    const bar = element("rect", { class: "bar", x: LEFT, y, height, width: 0, rx: Math.min(1, height / 4) });
    if (module.marked) {
      bar.setAttribute("stroke", this.data.colours.mark);
      bar.setAttribute("stroke-width", 1.8);
    }
    const zone = element("rect", { x: LEFT, y: y - (pitch - height) / 2, height: pitch, width: this.width - LEFT - RIGHT, fill: "transparent" });
    const title = element("title");
    zone.append(title);
    this.svg.append(bar);
    if (module.needed) {
      const edge = Math.max(0, (pitch - height) / 2 - 0.2);
      this.svg.append(element("rect", {
        x: LEFT - 2, y: y - edge, width: this.width - LEFT - RIGHT + 4, height: height + 2 * edge, rx: 2,
        fill: "none", stroke: this.data.colours.needed, "stroke-width": height < 5 ? 1 : 1.6, "pointer-events": "none",
      }));
    }
    this.svg.append(zone);
    return { bar, title, name: `${module.short}\n${module.name}`, middle: y + height / 2 };
  }

  paint() {
    const { steps, rank, shade, colours, about, due } = this.data;
    const step = steps[this.frame], ranks = rank[this.frame], shades = shade[this.frame];
    this.bars.forEach(({ bar, title, name }, index) => {
      bar.setAttribute("width", Math.max(0, ranks[index] * this.unit));
      bar.setAttribute("fill", shades[index] === null ? colours.muted : mixed(colours.scale, 0.16 + 0.84 * shades[index]));
      title.textContent = `${name}\nrank ${ranks[index]}` + (shades[index] === null ? "" : `\nimportance ${Math.round(100 * shades[index])} % of the highest`);
    });
    this.slider.value = this.frame;
    this.slider.setAttribute("aria-valuetext", `step ${step}`);
    this.output.textContent = `step ${step.toLocaleString("en")}${due[this.frame] ? ` · ${due[this.frame]}` : ""}`;
    this.svg.setAttribute("aria-label", `${about} Step ${step}.`);
    this.root.dataset.step = step;
    this.speak();
    if (this.moved) this.tell(Boolean(this.timer));
  }

  speak() {
    const cue = this.cue, { rank, colours } = this.data;
    const points = cue ? cue.rows.map((row) => ({ x: LEFT + rank[this.frame][row] * this.unit, y: this.bars[row].middle })) : [];
    this.dots.forEach((dot, index) => {
      const point = points[index];
      dot.setAttribute("visibility", point ? "visible" : "hidden");
      if (point) Object.entries({ cx: point.x, cy: point.y }).forEach(([key, value]) => dot.setAttribute(key, value));
    });
    this.arc.setAttribute("d", points.length > 1 ? arc(points[0], points[1]) : "");
    if (this.bubbles.cue === cue && this.bubbles.wide === this.width && this.bubbles.frame === this.frame) return;
    Object.assign(this.bubbles, { cue, wide: this.width, frame: this.frame });
    this.bubbles.replaceChildren(...points.map((_, index) => bubble(cue.words[index], colours)));
    const bars = this.bars.map(({ middle }, row) => ({ middle, end: LEFT + rank[this.frame][row] * this.unit }));
    place([...this.bubbles.children], points, this.width, this.svg.clientHeight - AXIS, bars);
  }

  tell(plays) {
    const { steps, rank, shade, modules } = this.data;
    const detail = { step: steps[this.frame], ranks: rank[this.frame], shares: shade[this.frame], positions: modules.map((one) => one.position), plays };
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

function listed(words) {
  const item = document.createElement("li");
  item.textContent = `${words.join(", ").replace(/\.$/, "")}.`;
  return item;
}

function bubble(words, colours) {
  const made = document.createElement("p");
  made.textContent = words;
  Object.assign(made.style, { background: colours.panel, borderColor: colours.mark, maxWidth: `${BUBBLE}px` });
  return made;
}

// Bubbles stand at the right of their points; where there is no room, at the edge, above or below, where they cover least.
// None covers another.
function place(bubbles, points, width, height, bars) {
  let taken = 0;
  const order = bubbles.map((made, index) => ({ made, point: points[index] })).sort((a, b) => a.point.y - b.point.y);
  for (const { made, point } of order) {
    const wide = made.offsetWidth, high = made.offsetHeight;
    const right = point.x + APART + 4, isRight = right + wide <= width;
    const left = isRight ? right : Math.max(0, width - wide);
    const beside = Math.max(taken, Math.min(point.y - high / 2, height - high));
    const top = isRight ? beside : free(left, high, point, taken, height, bars);
    taken = top + high + 4;
    Object.assign(made.style, { left: `${left}px`, top: `${top}px` });
  }
}

function free(left, high, point, from, height, bars) {
  let best = from, least = Infinity;
  for (let top = Math.max(from, point.y - NEAR - high); top <= Math.min(height - high, point.y + NEAR); top += 3) {
    const under = bars.filter(({ middle }) => middle > top - BAR / 2 && middle < top + high + BAR / 2);
    const covered = under.reduce((sum, { end }) => sum + Math.max(0, end - left), 0);
    const cost = covered + Math.abs(top + high / 2 - point.y);
    if (cost < least) [best, least] = [top, cost];
  }
  return best;
}

function arc(from, to) {
  const x = Math.max(from.x, to.x) + 24 + Math.abs(from.y - to.y) / 6;
  return `M ${from.x} ${from.y} C ${x} ${from.y}, ${x} ${to.y}, ${to.x} ${to.y}`;
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
  const part = (colour, at) => parseInt(colour.slice(at, at + 2), 16);
  const mix = [1, 3, 5].map((at) => Math.round(part(scale[low], at) + (part(scale[low + 1], at) - part(scale[low], at)) * (place - low)));
  return `rgb(${mix.join(", ")})`;
}
