// Keys that work anywhere on a page but in a field: G and a letter opens a page, / leads to the search, ? to the list of
// keys, Space starts and stops the player. The middle button on a row of the table of runs opens the run in a new tab.

const WAIT_MS = 1200;
const RUN = /^run\?run=[\w-]+$/, ROW_PX = 35;
const FIELDS = "input, textarea, select, [contenteditable=true], [role=combobox], [role=listbox], [role=slider]";

export default function ({ data }) {
  if (!window.dynloraKeys) {
    window.dynloraKeys = { places: {}, began: 0 };
    for (const kind of ["pointerdown", "pointerup", "mousedown", "mouseup", "auxclick"]) document.addEventListener(kind, middle, true);
    document.addEventListener("keydown", (event) => pressed(event, window.dynloraKeys));
  }
  window.dynloraKeys.places = data.places;
}

function pressed(event, keys) {
  const at = document.activeElement;
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || (at && at.matches(FIELDS))) return;
  const follows = Date.now() - keys.began < WAIT_MS;
  keys.began = event.key.toLowerCase() === "g" && !follows ? Date.now() : 0;
  if (follows && event.key.toLowerCase() in keys.places) return open(event, keys.places[event.key.toLowerCase()]);
  // A live page draws an open table again, and the focus leaves it: Escape closes it all the same.
  if (event.key === "Escape" && (!at || at === document.body)) return go(event, document.querySelector('[data-testid="stDialog"] button[aria-label="Close"]'), "click");
  if (event.key === "/") return go(event, document.querySelector(".st-key-address-q input"), "focus");
  if (event.key === "?") return go(event, document.querySelector(".st-key-keyboard button"), "click");
  if (event.key === " " && (!at || at === document.body)) return go(event, player(), "click");
}

function player() {
  for (const element of document.querySelectorAll('[data-testid="stBidiComponentRegular"], [data-testid="stBidiComponentIsolated"], [class*="st-key-replay"] *')) {
    const button = (element.shadowRoot || element).querySelector(".replay .controls button");
    if (button) return button;
  }
  return null;
}

function open(event, page) {
  const links = [...document.querySelectorAll('section[data-testid="stSidebar"] a[href]')];
  go(event, links.find((link) => link.getAttribute("href").split("?")[0].split("/").pop() === page), "click");
}

function go(event, element, act) {
  if (!element) return;
  event.preventDefault();
  element[act]();
}

// The table is drawn on a canvas: which row was meant follows from the place, what it leads to from the cells that the
// canvas holds for screen readers. The table itself would take the middle button for the left one.
function middle(event) {
  const table = event.button === 1 && event.target.closest && event.target.closest('.st-key-list [data-testid="stDataFrame"]');
  const canvas = table && table.querySelector("canvas");
  if (!canvas) return;
  event.preventDefault();
  event.stopPropagation();
  if (event.type !== "auxclick") return;
  const scroller = table.querySelector(".dvn-scroller");
  const y = event.clientY - canvas.getBoundingClientRect().top - ROW_PX + (scroller ? scroller.scrollTop : 0);
  const row = y < 0 ? null : canvas.querySelector(`tr[aria-rowindex="${Math.trunc(y / ROW_PX) + 2}"]`);
  const cell = row && [...row.querySelectorAll("td")].find((one) => RUN.test(one.textContent));
  if (cell) window.open(new URL(cell.textContent, document.baseURI), "_blank", "noopener");
}
