// What the reader chooses, and the start.
const state = { protocol: data.protocols[0], preset: null, hidden: new Set(), edits: "log", values: "log", bands: "items" };
const drawn = [];

const redraw = () => {
  tip.hidden = true;
  for (const { chart, figure, plot } of drawn) {
    figure.hidden = !isShown(chart);
    if (!figure.hidden) drawChart(chart, plot);
  }
  if (data.heat.counts.length) drawHeat();
  if (data.scatter.some((points) => points.length)) drawScatter();
  if (data.cases.length) drawCase();
  const view = state.preset === null ? state.protocol : `preset ${state.preset}`;
  for (const group of new Set([...document.querySelectorAll("[data-view]")].map((one) => one.parentNode))) {
    const tables = [...group.querySelectorAll(":scope > [data-view]")]; // without a table for the preset, that of the protocol stays
    const wanted = tables.some((one) => one.dataset.view === view) ? view : state.protocol;
    for (const one of tables) one.hidden = one.dataset.view !== wanted;
  }
};

const makeScoring = () => {
  const all = [];
  const choose = (made) => press(all, made);
  all.push(...choices("protocols", "Protocol", data.protocols.map((one) => [one, one.replaceAll("_", " ")]), state.protocol, (value) => {
    Object.assign(state, { protocol: value, preset: null });
  }));
  if (data.presets.length)
    all.push(...choices("presets", "As in", data.presets.map((one) => [one, one]), state.preset, (value) => { state.preset = value; }));
  for (const one of all) one.addEventListener("click", () => choose(one)); // one choice over both groups
};

const makeMethods = () => {
  const group = document.getElementById("methods"), buttons = [];
  group.append(element("span", { class: "name" }, "Methods"));
  const showHidden = () => buttons.forEach((one, index) => one.setAttribute("aria-pressed", !state.hidden.has(index)));
  const hideAllBut = (kept) => {
    state.hidden = new Set(data.lines.keys());
    for (const index of kept) state.hidden.delete(index);
    showHidden();
  };
  data.lines.forEach((line, index) => {
    const made = button(group, line.name, true, () => {
      state.hidden.has(index) ? state.hidden.delete(index) : state.hidden.add(index);
      showHidden();
    });
    made.title = "Double click: this one alone";
    made.ondblclick = () => {
      const isAlone = state.hidden.size === data.lines.length - 1 && !state.hidden.has(index);
      hideAllBut(isAlone ? data.lines.keys() : [index]);
      redraw();
    };
    made.style.setProperty("--color", color(index));
    buttons.push(made);
  });
  for (const [name, kept] of [["all", [...data.lines.keys()]], ["none", []]]) button(group, name, null, () => hideAllBut(kept)).className = "plain";
};

const makeCharts = () => {
  for (const chart of data.charts) {
    const figure = element("figure"), caption = element("figcaption"), plot = element("div", { class: "plot", tabindex: 0 });
    caption.append(element("h3", {}, chart.title), chart.hint);
    figure.append(caption, plot);
    document.querySelector(`[data-group="${chart.group}"]`).append(figure);
    drawn.push({ chart, figure, plot });
  }
  if (data.heat.counts.length) {
    const choice = document.getElementById("heat-method");
    data.lines.forEach((line, index) => choice.append(element("option", { value: index }, line.name)));
    choice.onchange = () => { tip.hidden = true; drawHeat(); };
    drawLegend(document.querySelector("#heat .scale"));
  } else document.getElementById("heat").remove();
  if (!data.scatter.some((points) => points.length)) document.getElementById("scatter").remove();
  if (data.cases.length) fillCases();
  else document.getElementById("cases").remove();
};

makeScoring();
makeMethods();
const axis = [["log", "log"], ["linear", "linear"]];
choices("edits", "Edits", axis, state.edits, (value) => { state.edits = value; });
choices("values", "Perplexity, norms, seconds", axis, state.values, (value) => { state.values = value; });
const bands = [["items", "95 % of items"], ...(data.has_orders ? [["orders", "range over orders"]] : []), ["none", "none"]];
choices("bands", "Bands", bands, state.bands, (value) => { state.bands = value; });
for (const one of document.querySelectorAll("[data-script]")) one.hidden = false;
makeCharts();
redraw();
let seen = innerWidth;
addEventListener("resize", () => { if (innerWidth !== seen) { seen = innerWidth; redraw(); } });
addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
