// Keys that work anywhere on a page but in a field: G and a letter opens a page, / leads to the search, ? to the list of
// keys, Space starts and stops the player.

const WAIT_MS = 1200;
const FIELDS = "input, textarea, select, [contenteditable=true], [role=combobox], [role=listbox], [role=slider]";

export default function ({ data }) {
  if (!window.dynloraKeys) {
    window.dynloraKeys = { places: {}, began: 0 };
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
  if (event.key === "/") return go(event, document.querySelector(".st-key-address-q input"), "focus");
  if (event.key === "?") return go(event, document.querySelector(".st-key-keyboard button"), "click");
  if (event.key === " " && (!at || at === document.body)) return go(event, player(), "click");
}

function player() {
  for (const element of document.querySelectorAll('[data-testid="stBidiComponentRegular"], [data-testid="stBidiComponentIsolated"], [class*="st-key-replay"] *')) {
    const found = (element.shadowRoot || element).querySelector(".replay button");
    if (found) return found;
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
