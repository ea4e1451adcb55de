// The leaderboard: a row per trajectory, at its last edit count or at a chosen one.
const LAST = "last";
const SORT = "-reliability";
const state = { q: "", model: "", dataset: "", protocol: "", edits: LAST, without: new Set(), sort: SORT };
const models = [...new Set(data.lines.map((line) => line.model))].sort();
const datasets = [...new Set(data.lines.map((line) => line.dataset))].sort();
const methods = [...new Set(data.lines.map((line) => line.method))].sort();
const methodName = (method) => {
  const names = new Set(data.lines.filter((line) => line.method === method).map((line) => line.method_name));
  return names.size === 1 ? [...names][0] : method;
};
for (const line of data.lines) line.text = [line.label, line.method, data.runs[line.run].name, line.model, line.dataset].join(" ").toLowerCase();

const editsOf = (line) => (state.edits === LAST ? line.measured : Number(state.edits));
const at = (line, name) => line.series[name]?.find((point) => point[0] === editsOf(line));
const seriesName = (measure) => (["capability", "perplexity", "seconds"].includes(measure) ? measure : `${measure} ${state.protocol}`);
const isMeasured = (line) => state.edits === LAST || Object.values(line.series).some((points) => points.some((point) => point[0] === Number(state.edits)));

const share = (measure) => ({
  key: measure,
  name: measure[0].toUpperCase() + measure.slice(1),
  value: (line) => at(line, seriesName(measure))?.[1],
  fill: (cell, line) => {
    const point = at(line, seriesName(measure));
    if (!point) return cell.append(DASH);
    cell.append((100 * point[1]).toFixed(1));
    if (point[2] !== null) cell.append(small(`${(100 * point[2]).toFixed(1)} to ${(100 * point[3]).toFixed(1)}`));
    cell.title = point[4] === null ? "" : `n ${count(point[4])}`;
  },
});
const amount = (measure, name) => ({
  key: measure,
  name,
  isLow: true,
  value: (line) => { const point = at(line, measure); return point && (point[1] ?? Infinity); },
  fill: (cell, line) => { const point = at(line, measure); cell.append(point ? (point[1] === null ? "not finite" : short(point[1])) : DASH); },
});
const COLUMNS = [
  {
    key: "method", name: "Method", isText: true, value: (line) => line.label,
    fill: (cell, line) => {
      cell.append(link(`curves.html#${addressOf([["line", line.id]])}`, line.label.replace("(order ", "(order\u00a0")));
      if (line.status === "failed") { cell.append(small("failed", "bad")); cell.title = line.error ?? ""; }
      if (line.status === null) cell.append(small("not ended"));
    },
  },
  {
    key: "run", name: "Run", isText: true, value: (line) => data.runs[line.run].name,
    fill: (cell, line) => { const run = data.runs[line.run]; cell.append(run.report ? link(run.report, run.name) : run.name); },
  },
  { key: "model", name: "Model", isText: true, isLong: true, value: (line) => line.model },
  { key: "dataset", name: "Data", isText: true, value: (line) => line.dataset },
  { key: "edits", name: "Edits", value: editsOf, fill: (cell, line) => cell.append(editsOf(line) === null ? DASH : count(editsOf(line))) },
  ...["reliability", "generalization", "locality", "portability", "capability"].map(share),
  amount("perplexity", "Perpl. ×"),
  amount("seconds", "s/edit"),
  {
    key: "collapse", name: "Collapse at", isText: true, value: (line) => line.collapse_at ?? (line.measured === null ? null : Infinity),
    fill: (cell, line) => {
      cell.append(line.measured === null ? DASH : line.collapse_at === null ? "none" : count(line.collapse_at));
      if (line.reason) cell.append(small(line.reason));
    },
  },
];

const found = () => {
  const wanted = words(state.q);
  return data.lines.filter((line) =>
    (!state.model || line.model === state.model) && (!state.dataset || line.dataset === state.dataset) &&
    !state.without.has(line.method) && isMeasured(line) && matches(line.text, wanted));
};

const draw = () => {
  writeAddress([
    ["q", state.q], ["model", state.model], ["dataset", state.dataset],
    ["protocol", state.protocol === data.protocols[0] ? "" : state.protocol], ["edits", state.edits === LAST ? "" : state.edits],
    ...[...state.without].sort().map((method) => ["without", method]), ["sort", state.sort === SORT ? "" : state.sort],
  ]);
  const lines = found();
  byId("said").textContent = `${count(lines.length)} of ${count(data.lines.length)} trajectories`;
  const laid = sorted(lines, COLUMNS, state.sort).slice(0, 12), lay = byId("lay");
  lay.textContent = laid.length < lines.length ? `Curves of the first ${laid.length}` : "Curves of these";
  lay.href = `curves.html#${addressOf(laid.map((line) => ["line", line.id]))}`;
  lay.hidden = !laid.length;
  drawTable(document.querySelector("#table .rows"), COLUMNS, lines, state.sort, (sort) => { state.sort = sort; draw(); });
};

const read = () => {
  const address = readAddress();
  state.q = address.get("q") ?? "";
  state.model = among(address.get("model"), models, "");
  state.dataset = among(address.get("dataset"), datasets, "");
  state.protocol = among(address.get("protocol"), data.protocols, data.protocols[0] ?? "");
  state.edits = among(address.get("edits"), data.edit_counts.filter((edits) => edits > 0).map(String), LAST);
  state.without = new Set(address.getAll("without").filter((method) => methods.includes(method)));
  state.sort = among(address.get("sort"), COLUMNS.flatMap(({ key }) => [key, `-${key}`]), SORT);
  byId("q").value = state.q;
  fillSelect(byId("model"), [["", "all"], ...models.map((name) => [name, name])], state.model);
  fillSelect(byId("dataset"), [["", "all"], ...datasets.map((name) => [name, name])], state.dataset);
  fillSelect(byId("protocol"), data.protocols.map((name) => [name, nameOf(name)]), state.protocol);
  fillSelect(byId("edits"), [[LAST, "the last measured"], ...data.edit_counts.filter((edits) => edits > 0).map((edits) => [edits, count(edits)])], state.edits);
  for (const box of document.querySelectorAll("#methods input")) box.checked = !state.without.has(box.value);
};

const drawRuns = (sort) => {
  const all = data.runs.map((run, index) => ({ ...run, lines: data.lines.filter((line) => line.run === index) }));
  const columns = [
    { key: "run", name: "Run", isText: true, value: (run) => run.name },
    { key: "models", name: "Model", isText: true, isLong: true, value: (run) => run.models.join(", ") },
    { key: "datasets", name: "Data", isText: true, value: (run) => run.datasets.join(", ") },
    {
      key: "lines", name: "Trajectories", value: (run) => run.lines.length,
      fill: (cell, run) => {
        cell.append(count(run.lines.length));
        if (run.failed) cell.append(small(`${count(run.failed)} failed`, "bad"));
        if (run.unfinished) cell.append(small(`${count(run.unfinished)} not ended`));
      },
    },
    { key: "begun", name: "Begun, UTC", isText: true, value: (run) => run.begun },
    { key: "engine", name: "Engine", isText: true, value: (run) => run.engine },
    { key: "hardware", name: "Hardware", isText: true, value: (run) => run.hardware },
    {
      key: "report", name: "Pages", isText: true, value: (run) => run.report,
      fill: (cell, run) => {
        const links = element("span", { class: "links" });
        links.append(run.report ? link(run.report, "report") : element("span", {}, "no report"));
        links.append(link(`curves.html#${addressOf(run.lines.slice(0, 12).map((line) => ["line", line.id]))}`, "curves"));
        if (run.recorded) links.append(link(`history.html#${addressOf([["run", run.name]])}`, "history"));
        cell.append(links);
      },
    },
  ];
  drawTable(document.querySelector("#runs .rows"), columns, all, sort, drawRuns);
};

for (const method of methods) {
  const label = element("label"), box = element("input", { type: "checkbox", value: method });
  box.onchange = () => { box.checked ? state.without.delete(method) : state.without.add(method); draw(); };
  label.append(box, methodName(method));
  byId("methods").append(label);
}
byId("q").oninput = () => { state.q = byId("q").value; draw(); };
for (const name of ["model", "dataset", "protocol", "edits"]) byId(name).onchange = () => { state[name] = byId(name).value; draw(); };
byId("reset").onclick = () => { history.replaceState(null, "", location.pathname + location.search); read(); draw(); };
start(read, draw);
drawRuns("run");
