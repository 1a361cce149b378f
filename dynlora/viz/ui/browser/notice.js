// Tells that a run has ended: in the tab's title until the tab is looked at, and as a notification of the browser where
// the switch is on. It is off until somebody presses it, and the press asks the browser's permission. Nothing is sent.

const CHOICE = "dynlora-notify";

export default function ({ data, parentElement }) {
  const told = (window.dynloraTold = window.dynloraTold || new Notice());
  draw(parentElement, told);
  told.hear(data.ended);
}

class Notice {
  constructor() {
    this.known = new Set();
    this.unread = 0;
    for (const event of ["visibilitychange", "focus"]) window.addEventListener(event, () => this.seen());
    document.addEventListener("visibilitychange", () => this.seen());
    new MutationObserver(() => this.title()).observe(document.head, { childList: true, subtree: true, characterData: true });
  }

  get is_on() {
    return "Notification" in window && Notification.permission === "granted" && localStorage.getItem(CHOICE) === "on";
  }

  hear(ended) {
    const fresh = ended.filter((run) => !this.known.has(run.id + run.status));
    fresh.forEach((run) => this.known.add(run.id + run.status));
    if (fresh.length && !(document.visibilityState === "visible" && document.hasFocus())) this.unread += fresh.length;
    this.title();
    if (this.is_on) fresh.forEach((run) => new Notification(`${run.name}: ${run.status}`, { body: "dynlora", tag: run.id }));
  }

  seen() {
    if (document.visibilityState === "visible") this.unread = 0;
    this.title();
  }

  title() {
    const plain = document.title.replace(/^\(\d+ ended\) /, "");
    const wanted = this.unread ? `(${this.unread} ended) ${plain}` : plain;
    if (document.title !== wanted) document.title = wanted;
  }
}

function draw(parent, told) {
  if (parent.querySelector("label") || !("Notification" in window)) return;
  const label = document.createElement("label"), box = document.createElement("input");
  Object.assign(box, { type: "checkbox", checked: told.is_on });
  box.onchange = async () => {
    const allowed = box.checked && (await Notification.requestPermission()) === "granted";
    localStorage.setItem(CHOICE, allowed ? "on" : "off");
    label.title = box.checked && !allowed ? "The browser does not allow notifications for this address." : "";
    box.checked = allowed;
  };
  label.className = "notice";
  box.setAttribute("aria-label", "Notify when a run ends");
  label.append(box, "Notify when done");
  parent.append(label);
}
