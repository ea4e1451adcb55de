// Shared by all charts, the site's too: the data, formatted numbers, scales, and the tooltip. The last script of a page
// defines `state`, the choices of the reader, and `redraw`.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const tip = document.getElementById("tip");

const COLORS = 10; // as many as in the style sheet
const color = (line) => `var(--c${data.lines[line].color % COLORS})`;
const dashes = (line) => ["", "6 3", "2 3", "8 3 2 3"][data.lines[line].order % 4]; // one per order of the edits

const SVG_NAMES = new Set(["svg", "g", "path", "line", "text", "circle", "rect"]);
const element = (name, attributes = {}, text) => {
  const made = SVG_NAMES.has(name) ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
};

// ---- numbers
const count = (value) => value.toLocaleString("en-US");
const short = (value) =>
  value >= 1e6 || (value < 1e-3 && value > 0) ? value.toExponential(0).replace("e+", "e") : count(Number(value.toPrecision(3)));
const percent = (value) => `${(100 * value).toFixed(1)} %`;
const shown = (chart, value) => (chart.y === "share" ? percent(value) : short(value));
const edits = (value) => (value === 0 ? "pristine model" : value === 1 ? "1 edit" : `${count(value)} edits`);

// ---- scales: {at: value -> pixels, ticks: [[value, text], ...]}
const niceSteps = (largest) => {
  const unit = 10 ** Math.floor(Math.log10(largest / 4));
  const step = [1, 2, 2.5, 5, 10].map((k) => k * unit).find((size) => size * 4 >= largest * 0.999);
  return [0, 1, 2, 3, 4].map((k) => k * step);
};

// of ticks that would overlap only some are kept, including the first and the last
const roomy = (ticks, at) => {
  const half = ([, text]) => text.length * 3.4 + 4;
  const kept = ticks.slice(0, 1), last = ticks.at(-1);
  for (const tick of ticks.slice(1, -1))
    if (at(tick[0]) - half(tick) > at(kept.at(-1)[0]) + half(kept.at(-1)) && at(tick[0]) + half(tick) < at(last[0]) - half(last)) kept.push(tick);
  return ticks.length > 1 ? [...kept, last] : kept;
};

const editScale = (counts, left, right) => {
  const edited = counts.filter((x) => x > 0), newest = edited.at(-1) ?? 1;
  if (state.edits === "linear") {
    const at = (x) => left + (x / newest) * (right - left);
    return { at, ticks: roomy([...niceSteps(newest).filter((x) => x < newest), newest].map((x) => [x, count(x)]), at) };
  }
  const [first, last] = [Math.log10(edited[0] ?? 1), Math.log10(newest)];
  const start = left + Math.min(56, (right - left) * 0.14); // the pristine model is set apart, as log 0 does not exist
  const at = (x) => (x === 0 ? left : last === first ? right : start + ((Math.log10(x) - first) / (last - first)) * (right - start));
  const powers = edited.length <= 6 ? edited : edited.filter((x) => Number.isInteger(Math.log10(x)));
  const chosen = powers.length > 1 ? powers : [...new Set([edited[0], newest])].filter((x) => x !== undefined);
  return { at, ticks: roomy([[0, "base"], ...chosen.map((x) => [x, count(x)])], at) };
};

const categoryScale = (categories, left, right) => {
  const step = (right - left) / Math.max(1, categories.length - 1);
  const at = (x) => (categories.length === 1 ? (left + right) / 2 : left + x * step);
  return { at, ticks: roomy(categories.map((name, index) => [index, name]), at) };
};

const valueScale = (axis, values, from, to, isTight = false) => {
  const between = (low, high, of) => (value) =>
    from + ((of(Math.min(Math.max(value, low), high)) - of(low)) / (of(high) - of(low) || 1)) * (to - from);
  if (axis === "share") return { at: between(0, 1, (v) => v), ticks: [0, 0.25, 0.5, 0.75, 1].map((v) => [v, `${100 * v} %`]) };
  if (isLog(axis)) {
    const few = Math.min(...values), many = Math.max(...values), decades = Math.log10(many / few);
    const low = decades > 0.8 && !isTight ? 10 ** Math.floor(Math.log10(few)) : few / 1.1;
    const high = decades > 0.8 && !isTight ? 10 ** Math.ceil(Math.log10(many)) : many * 1.1;
    const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high)), step = Math.ceil((last - first) / 6);
    const digits = decades > (isTight ? 2.5 : 0.8) ? [1] : decades > 0.8 ? [1, 2, 5] : [1, 1.2, 1.5, 2, 3, 5, 7];
    const ticks = [];
    for (let power = Math.ceil(first / step) * step; power <= last; power += step)
      for (const digit of digits) ticks.push(Number((digit * 10 ** power).toPrecision(2)));
    const inside = ticks.filter((v) => v >= low * 0.999 && v <= high * 1.001);
    return { at: between(low, high, Math.log10), ticks: (inside.length ? inside : [few]).map((v) => [v, short(v)]) };
  }
  const steps = niceSteps(Math.max(...values, 1e-9));
  return { at: between(0, steps.at(-1), (v) => v), ticks: steps.map((v) => [v, short(v)]) };
};

const isLog = (axis) => axis === "positive" && state.values === "log";

const marker = (line, x, y) => {
  const shapes = ["M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0", "M-3.6-3.6h7.2v7.2h-7.2z", "M0-4.6L4.4 3.4h-8.8z", "M0-4.8L4.4 0 0 4.8-4.4 0z"];
  const transform = `translate(${x.toFixed(1)} ${y.toFixed(1)})`; // all lines have the same pristine model
  if (line === null) return element("path", { d: shapes[0], transform, class: "base" });
  const place = data.lines[line].color;
  return element("path", { d: shapes[(place + Math.floor(place / COLORS)) % 4], transform, fill: color(line) });
};

// ---- axes
const drawAxes = (svg, x, y, { left, right, top, bottom }, name) => {
  for (const [tick, text] of y.ticks) {
    svg.append(element("line", { class: "grid", x1: left, x2: right + 8, y1: y.at(tick), y2: y.at(tick) }));
    svg.append(element("text", { x: left - 8, y: y.at(tick) + 4, "text-anchor": "end" }, text));
  }
  for (const [tick, text] of x.ticks) {
    svg.append(element("line", { class: "axis", x1: x.at(tick), x2: x.at(tick), y1: bottom, y2: bottom + 5 }));
    const isWide = x.at(tick) + text.length * 3.4 > right + 22; // it would leave the chart
    svg.append(element("text", { x: isWide ? right + 22 : x.at(tick), y: bottom + 19, "text-anchor": isWide ? "end" : "middle" }, text));
  }
  svg.append(element("text", { x: (left + right) / 2, y: bottom + 38, "text-anchor": "middle" }, name));
};

const frame = (plot, name, height = 250) => {
  const width = Math.max(240, plot.clientWidth);
  const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": name });
  return { svg, width, height, left: 48, right: width - 24, top: 10, bottom: height - 42 };
};

// ---- the tooltip
const tell = (title, rows, clientX, clientY) => {
  tip.replaceChildren(element("strong", {}, title), ...rows);
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(8, Math.min(clientX + 14, innerWidth - box.width - 8))}px`;
  tip.style.top = `${clientY + 18 + box.height > innerHeight ? Math.max(8, clientY - box.height - 12) : clientY + 18}px`;
};

const tipRow = (line, text, small = "") => {
  const row = element("div"), key = element("i"), said = element("span", {}, `${text} `);
  if (line !== null) key.style.background = color(line);
  said.append(element("small", {}, small));
  row.append(...(line === null ? [] : [key]), said);
  return row;
};

// The direction of an arrow key, -1 or 1; undefined for other keys. Escape hides the tooltip.
const arrow = (event, hide) => {
  if (event.key === "Escape") hide();
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step) event.preventDefault();
  return step;
};
