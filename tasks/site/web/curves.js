// The curves of any trajectories of any runs, laid over each other.
const MEASURES = [
  ["reliability", "Reliability", "Edit prompts answered with the new fact.", "share"],
  ["generalization", "Generalization", "Other phrasings of them answered with the new fact.", "share"],
  ["locality", "Locality", "Prompts about other facts answered as before editing.", "share"],
  ["portability", "Portability", "Prompts whose answers follow from the new facts.", "share"],
  ["capability", "Capability", "Mean of the general benchmarks; the same under every protocol.", "share"],
  ["perplexity", "Perplexity ×", "Of held-out text, over the pristine model's.", "positive"],
].map(([key, title, hint, y]) => ({ key, title, hint, y, isCommon: key === "capability" || key === "perplexity" }));
const FIRST = ["reliability", "capability"], AXIS = [["log", "log"], ["linear", "linear"]], BANDS = [["items", "95 %"], ["none", "none"]];
const MOST_AT_FIRST = 8;
const state = { q: "", protocol: "", preset: null, hidden: new Set(), edits: "log", values: "log", bands: "items", measures: new Set(FIRST), chosen: new Map() };
data.lines.forEach((line) => {
  const run = data.runs[line.run];
  Object.assign(line, { color: 0, order: 0, text: [line.label, line.method, run.name, line.model, line.dataset].join(" ").toLowerCase() });
});
const places = new Map(data.lines.map((line, index) => [line.id, index]));
const boxes = []; // the checkbox of each line

// ---- what is chosen: line -> place among the colors, the lowest that is free
const choose = (index) => {
  if (state.chosen.has(index)) return;
  const taken = new Set(state.chosen.values());
  let place = 0;
  while (taken.has(place)) place += 1;
  state.chosen.set(index, place);
  Object.assign(data.lines[index], { color: place, order: Math.floor(place / COLORS) });
};

const pointsOf = (line, measure) => {
  const name = measure.isCommon ? measure.key : `${measure.key} ${state.protocol}`;
  return (data.lines[line].series[name] ?? []).map(([x, y, low, high, n]) => ({ x, y, low, high, n }));
};

// ---- the charts
const drawn = new Map();
const figureOf = (measure) => {
  if (!drawn.has(measure.key)) {
    const figure = element("figure"), caption = element("figcaption"), plot = element("div", { class: "plot", tabindex: 0 });
    caption.append(element("h3", {}, measure.title), measure.hint);
    figure.append(caption, plot);
    drawn.set(measure.key, { figure, plot });
  }
  return drawn.get(measure.key);
};

const drawCharts = () => {
  const lines = [...state.chosen.keys()];
  const shownMeasures = MEASURES.filter((measure) => state.measures.has(measure.key));
  const charts = shownMeasures.map((measure) => ({
    ...measure,
    lines: { all: lines.map((line) => ({ line, points: pointsOf(line, measure) })).filter((one) => one.points.length) },
    missing: lines.length ? `not measured${measure.isCommon ? "" : " under this protocol"}` : "choose a trajectory",
  }));
  data.edit_counts = [...new Set(charts.flatMap((chart) => chart.lines.all.flatMap((one) => one.points.map((point) => point.x))))].sort((a, b) => a - b);
  document.querySelector("#curve .charts").replaceChildren(...shownMeasures.map((measure) => figureOf(measure).figure));
  for (const chart of charts) drawChart(chart, figureOf(chart).plot);
};

// ---- the legend: the line, the name, and a click takes it away
const sample = (index) => {
  const svg = element("svg", { viewBox: "0 0 34 14", "aria-hidden": "true" });
  svg.append(element("line", { x1: 1, x2: 33, y1: 7, y2: 7, stroke: color(index), "stroke-width": 2.2, "stroke-dasharray": dashes(index) }), marker(index, 17, 7));
  return svg;
};

const drawLegend = () => {
  const dim = (kept) => {
    for (const one of document.querySelectorAll("#curve [data-line]")) one.classList.toggle("dim", kept !== null && Number(one.dataset.line) !== kept);
  };
  byId("legend").replaceChildren(...[...state.chosen.keys()].map((index) => {
    const item = element("li"), made = element("button", { type: "button", title: "Take away" });
    made.append(sample(index), element("span", {}, data.lines[index].name));
    made.onclick = () => { state.chosen.delete(index); redraw(); };
    made.onpointerenter = made.onfocus = () => dim(index);
    made.onpointerleave = made.onblur = () => dim(null);
    item.append(made);
    return item;
  }));
};

const nameLines = () => {
  const all = [...state.chosen.keys()].map((index) => data.lines[index]), isOneRun = new Set(all.map((line) => line.run)).size === 1;
  for (const line of all) line.name = isOneRun ? line.label : `${line.label} · ${data.runs[line.run].name}`;
};

// ---- the list
const makeList = () => {
  data.runs.forEach((run, number) => {
    const group = element("fieldset"), about = element("small");
    group.append(element("legend", {}, run.name), about);
    about.append(`${run.models.join(", ")} on ${run.datasets.join(", ")} `);
    if (run.report) about.append(link(run.report, "report"));
    data.lines.forEach((line, index) => {
      if (line.run !== number) return;
      const label = element("label"), box = element("input", { type: "checkbox" });
      box.onchange = () => { box.checked ? choose(index) : state.chosen.delete(index); redraw(); };
      boxes[index] = box;
      label.append(box, line.label, element("span", { class: "key" }));
      group.append(label);
    });
    byId("list").append(group);
  });
};

const drawList = () => {
  const wanted = words(state.q);
  data.lines.forEach((line, index) => {
    const label = boxes[index].parentNode, place = state.chosen.get(index);
    boxes[index].checked = place !== undefined;
    label.hidden = !matches(line.text, wanted);
    label.querySelector(".key").style.setProperty("--color", place === undefined ? "transparent" : color(index));
  });
  for (const group of document.querySelectorAll("#list fieldset")) group.hidden = !group.querySelector("label:not([hidden])");
  byId("said").textContent = `${count(state.chosen.size)} of ${count(data.lines.length)} chosen`;
};

// ---- the page
const redraw = () => {
  tip.hidden = true;
  writeAddress([
    ["measure", [...state.measures].join() === FIRST.join() ? "" : [...state.measures].join(" ")],
    ["protocol", state.protocol === data.protocols[0] ? "" : state.protocol],
    ["edits", state.edits === "log" ? "" : state.edits], ["values", state.values === "log" ? "" : state.values],
    ["bands", state.bands === "items" ? "" : state.bands],
    ...(state.chosen.size ? [...state.chosen.keys()].map((index) => ["line", data.lines[index].id]) : [["line", "none"]]),
  ]);
  nameLines();
  drawList();
  drawLegend();
  drawCharts();
};

const makeControls = () => {
  for (const id of ["measures", "protocols", "edits", "values", "bands"]) byId(id).replaceChildren();
  byId("measures").append(element("span", { class: "name" }, "Measures"));
  for (const { key, title } of MEASURES)
    button(byId("measures"), title, state.measures.has(key), (made) => {
      state.measures.has(key) ? state.measures.delete(key) : state.measures.add(key);
      state.measures = new Set(MEASURES.map((one) => one.key).filter((one) => state.measures.has(one)));
      made.setAttribute("aria-pressed", state.measures.has(key));
    });
  choices("protocols", "Protocol", data.protocols.map((name) => [name, nameOf(name)]), state.protocol, (value) => { state.protocol = value; });
  choices("edits", "Edits", AXIS, state.edits, (value) => { state.edits = value; });
  choices("values", "Perplexity", AXIS, state.values, (value) => { state.values = value; });
  choices("bands", "Bands", BANDS, state.bands, (value) => { state.bands = value; });
};

const read = () => {
  const address = readAddress(), asked = address.getAll("line");
  const keys = (address.get("measure") ?? "").split(" "), known = MEASURES.map((one) => one.key).filter((key) => keys.includes(key));
  state.measures = new Set(known.length ? known : FIRST);
  state.protocol = among(address.get("protocol"), data.protocols, data.protocols[0] ?? "");
  state.edits = among(address.get("edits"), ["log", "linear"], "log");
  state.values = among(address.get("values"), ["log", "linear"], "log");
  state.bands = among(address.get("bands"), ["items", "none"], "items");
  state.chosen.clear();
  const lines = asked.length ? asked.map((id) => places.get(id)) : [...data.lines.keys()].slice(0, MOST_AT_FIRST);
  for (const index of lines) if (index !== undefined) choose(index);
  makeControls();
};

byId("q").oninput = () => { state.q = byId("q").value; drawList(); };
byId("all").onclick = () => { boxes.forEach((box, index) => { if (!box.parentNode.hidden) choose(index); }); redraw(); };
byId("none").onclick = () => { state.chosen.clear(); redraw(); };
makeList();
start(read, redraw);
