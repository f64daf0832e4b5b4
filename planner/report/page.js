// Draws the charts of the page in the colours of its theme, again when the theme changes and when it is printed.
"use strict";
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const PAPER = 640; // width of a chart on paper, in CSS pixels
  const themed = ["ink", "muted", "faint", "line"];

  const colours = () => {
    const style = getComputedStyle(document.documentElement);
    return Object.fromEntries([...themed, "card"].map((name) => [name, style.getPropertyValue("--" + name).trim()]));
  };

  // A copy of a value with the names of theme colours, where a colour stands, replaced.
  const painted = (value, palette) => {
    if (Array.isArray(value)) return value.map((item) => painted(item, palette));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) =>
      [key, key === "color" && themed.includes(item) ? palette[item] : painted(item, palette)]));
  };

  const axis = (given, palette) => ({
    gridcolor: palette.line, linecolor: palette.line, tickcolor: palette.line, zerolinecolor: palette.line,
    ticks: "outside", ticklen: 4, fixedrange: true, ...given,
    title: { font: { size: 12, color: palette.muted }, ...(given || {}).title },
  });

  const draw = (width) => {
    const palette = colours();
    charts.forEach((chart, index) => {
      const height = Math.round(chart.height * (width && chart.height > 300 ? 0.78 : 1));
      document.getElementById("chart-" + index).style.height = height + "px";
      const layout = painted(chart.layout, palette);
      Plotly.react("chart-" + index, painted(chart.traces, palette), {
        margin: { t: 12, r: 30, b: 48, l: 66 },
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
        font: { family: getComputedStyle(document.documentElement).fontFamily, size: 12, color: palette.muted },
        hoverlabel: { bgcolor: palette.card, bordercolor: palette.line, font: { color: palette.ink, size: 12 }, align: "left" },
        showlegend: false, height, ...(width ? { width } : { autosize: true }),
        ...layout, xaxis: axis(layout.xaxis, palette), yaxis: axis(layout.yaxis, palette),
      }, { displayModeBar: false, responsive: true });
    });
  };

  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw());
  matchMedia("print").addEventListener("change", (event) => draw(event.matches ? PAPER : undefined));
  addEventListener("beforeprint", () => draw(PAPER));
  addEventListener("afterprint", () => draw());
})();
