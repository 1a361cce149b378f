// Draws the charts of a report: unpacks plotly.js, which lies in the page, and follows light and dark.
(() => {
  "use strict";
  const PRINT_WIDTH = 660;
  const CONFIG = {
    displaylogo: false, displayModeBar: "hover", modeBarButtons: [["toImage"]], responsive: true, scrollZoom: false,
    doubleClick: "reset", toImageButtonOptions: { format: "svg", filename: "chart" },
  };
  const root = document.documentElement;
  const plots = [...document.querySelectorAll(".plot")];
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const system = matchMedia("(prefers-color-scheme: dark)");
  const button = document.getElementById("mode");
  let printing = false;

  const isDark = () => !printing && (root.dataset.mode ?? (system.matches ? "dark" : "light")) === "dark";

  function figure(chart) {
    const drawn = structuredClone(chart.figure);
    if (isDark()) {
      for (const [place, value] of chart.dark) {
        const last = place.at(-1);
        const owner = place.slice(0, -1).reduce((part, key) => part[key], drawn);
        owner[last] = value;
      }
    }
    if (printing) drawn.layout.width = PRINT_WIDTH;
    return drawn;
  }

  function draw(plot) {
    const { data, layout } = figure(charts[plot.dataset.chart]);
    return window.Plotly.react(plot, data, layout, CONFIG);
  }

  async function unpacked(text) {
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }

  function drawAll() {
    button.textContent = isDark() ? "Light" : "Dark";
    if (window.Plotly) plots.forEach(draw);
  }

  function follow() {
    button.hidden = false;
    button.addEventListener("click", () => {
      root.dataset.mode = isDark() ? "light" : "dark";
      drawAll();
    });
    system.addEventListener("change", drawAll);
    addEventListener("beforeprint", () => { printing = true; drawAll(); });
    addEventListener("afterprint", () => { printing = false; drawAll(); });
  }

  async function start() {
    const script = document.createElement("script");
    script.textContent = await unpacked(document.getElementById("plotly").textContent);
    document.head.append(script);
    for (const plot of plots) {
      await draw(plot);
      await new Promise((done) => setTimeout(done)); // the page stays alive between two charts
    }
    root.dataset.drawn = plots.length;
  }

  follow();
  drawAll();
  start().catch((error) => {
    const trouble = document.getElementById("trouble");
    trouble.textContent = `The charts cannot be drawn in this browser (${error.message}); all numbers are in the tables.`;
    trouble.hidden = false;
  });
})();
