// The history of a run: each headline number over its instances, what the gates said, and the instances themselves.
const ORDER = ["reliability", "generalization", "locality", "portability", "capability", "perplexity"];
const LOG = [["log", "log"], ["linear", "linear"]], BANDS = [["items", "95 %"], ["none", "none"]];
const VERDICTS = ["moved", "within noise", "not comparable"];
const state = { protocol: "", preset: null, hidden: new Set(), edits: "linear", values: "log", bands: "items", run: null, count: 0, instance: 0, verdict: "" };
const isAmount = (measure) => measure.includes("perplexity");
const inOrder = (measure) => (ORDER.includes(measure) ? ORDER.indexOf(measure) : ORDER.length);
const titleOf = (measure) => `${measure[0].toUpperCase()}${measure.slice(1).replaceAll("_", " ")}`;
const shortId = (id) => (id.includes("-") ? id.slice(id.lastIndexOf("-") + 1) : id);

// ---- what the gates said
const GATE = ["instance", "baseline", "before", "after", "difference", "low", "high", "n", "p", "verdict", "reason", "limit", "failed"];
const gatesOf = (comparison) => comparison.gates.map((row) => {
  const gate = Object.fromEntries(GATE.map((name, place) => [name, row[place]]));
  for (const name of ["verdict", "reason"]) gate[name] = gate[name] === null ? null : state.run.words[gate[name]];
  return gate;
});
const signed = (value) => `${value < 0 ? "−" : "+"}${(100 * Math.abs(value)).toFixed(1)}`;
const changed = (measure, value) => (isAmount(measure) ? `× ${short(value)}` : signed(value)); // of perplexities the ratio
const differenceOf = (measure, gate) => (gate.difference === null ? DASH : `${changed(measure, gate.difference)}${isAmount(measure) ? "" : " points"}`);
const intervalOf = (measure, gate) => (gate.low === null || gate.high === null ? "" : `${changed(measure, gate.low)} to ${changed(measure, gate.high)}`);

// ---- the charts
const lookOf = (gate) => (gate.failed ? "failed" : gate.verdict === "moved" ? "moved" : gate.verdict === "not comparable" ? "unknown" : null);
const chartOf = (measure) => {
  const own = state.run.numbers.filter((one) => one.measure === measure && one.count === state.count && (one.protocol === null || one.protocol === state.protocol));
  const compared = state.run.comparisons.filter((one) => one.measure === measure && one.count === state.count && (one.protocol === null || one.protocol === state.protocol) && (one.part === null || isAmount(measure)));
  const gates = new Map(compared.flatMap((one) => gatesOf(one).flatMap((gate) => one.lines.map((line) => [`${line} ${gate.instance}`, gate]))));
  const { instances } = state.run, at = (line, point) => gates.get(`${line} ${point.x}`);
  return {
    title: titleOf(measure),
    hint: own.some((one) => one.protocol !== null) ? `At ${edits(state.count)}, ${nameOf(state.protocol)} protocol.` : `At ${edits(state.count)}.`,
    y: isAmount(measure) ? "positive" : "share",
    over: "instance",
    categories: ticksOf(instances),
    places: instances.map((one) => `${one.began ?? ""} · ${shortId(one.id)}${one.commit ? ` · commit ${one.commit.slice(0, 7)}` : ""}${one.is_baseline ? " · baseline" : ""}`),
    lines: { all: own.map((one) => ({ line: one.line, points: one.points.map(([x, y, low, high, n]) => ({ x, y, low, high, n })) })) },
    missing: "not measured under this protocol",
    rules: instances.flatMap((one, index) => (one.is_baseline ? [index] : [])),
    extras: (line, point, x, y) => {
      const gate = at(line, point), look = gate && lookOf(gate), place = [x.at(point.x), y.at(point.y)].map((value) => value.toFixed(1));
      if (!look) return [];
      if (look === "unknown") return [element("path", { class: look, d: "M-5-5l10 10M5-5l-10 10", transform: `translate(${place.join(" ")})` })];
      return [element("circle", { class: look, cx: place[0], cy: place[1], r: 9 })];
    },
    says: (line, point) => {
      const gate = at(line, point);
      if (!gate) return "";
      const than = gate.baseline === null ? "" : ` against ${shortId(instances[gate.baseline].id)}`;
      return gate.difference === null ? `${gate.verdict}${gate.reason ? `: ${gate.reason}` : ""}` : `${gate.verdict}: ${differenceOf(measure, gate)}${than}${gate.failed ? ", the gate failed" : ""}`;
    },
  };
};

const ticksOf = (instances) => {
  const days = instances.map((one) => one.began?.slice(5, 10) ?? shortId(one.id));
  return days.map((day, index) => (days.indexOf(day) === days.lastIndexOf(day) ? day : instances[index].began?.slice(5) ?? day));
};

const drawCharts = () => {
  const measures = [...new Set(state.run.numbers.filter((one) => one.count === state.count).map((one) => one.measure))].sort((a, b) => inOrder(a) - inOrder(b) || a.localeCompare(b));
  const figures = measures.map((measure) => {
    const chart = chartOf(measure), figure = element("figure"), caption = element("figcaption"), plot = element("div", { class: "plot", tabindex: 0 });
    caption.append(element("h3", {}, chart.title), chart.hint);
    figure.append(caption, plot);
    return { chart, figure, plot };
  });
  document.querySelector("#curve .charts").replaceChildren(...figures.map((one) => one.figure)); // all, or the first one would be too wide
  for (const { chart, plot } of figures) drawChart(chart, plot);
};

// ---- the tables
const drawGates = (sort = "verdict") => {
  const { run } = state;
  const all = run.comparisons.flatMap((number) => gatesOf(number).filter((gate) => gate.instance === state.instance).map((gate) => ({ ...gate, number })));
  const rows = all.filter((row) => !state.verdict || row.verdict === state.verdict);
  const of = (row, value) => (value === null ? DASH : isAmount(row.number.measure) ? short(value) : (100 * value).toFixed(1));
  const columns = [
    { key: "verdict", name: "Verdict", isText: true, value: (row) => `${row.failed ? 0 : 1}${VERDICTS.indexOf(row.verdict)}`,
      fill: (cell, row) => {
        cell.append(row.verdict ?? DASH);
        if (row.failed) cell.append(small(row.limit === null ? "the gate failed" : `the gate failed: limit ${row.limit}`, "bad"));
        if (row.reason) cell.append(small(row.reason));
      } },
    { key: "method", name: "Method", isText: true, value: (row) => row.number.name,
      fill: (cell, row) => { cell.append(row.number.name); if (row.number.lines.length > 1) cell.append(small(`${count(row.number.lines.length)} orders together`)); } },
    { key: "measure", name: "Measure", isText: true, isLong: true, value: (row) => `${inOrder(row.number.measure)} ${row.number.measure} ${row.number.part ?? ""} ${row.number.protocol ?? ""}`,
      fill: (cell, row) => { cell.append(titleOf(row.number.measure)); for (const more of [row.number.part, row.number.protocol]) if (more) cell.append(small(nameOf(more))); } },
    { key: "edits", name: "Edits", value: (row) => row.number.count, fill: (cell, row) => cell.append(count(row.number.count)) },
    { key: "before", name: "Before", value: (row) => row.before, fill: (cell, row) => cell.append(of(row, row.before)) },
    { key: "after", name: "After", value: (row) => row.after, fill: (cell, row) => cell.append(of(row, row.after)) },
    { key: "difference", name: "Difference", value: (row) => row.difference,
      fill: (cell, row) => { cell.append(differenceOf(row.number.measure, row)); const range = intervalOf(row.number.measure, row); if (range) cell.append(small(range)); } },
    { key: "n", name: "Items", value: (row) => row.n },
    { key: "p", name: "p, Holm", isLow: true, value: (row) => row.p },
  ];
  const place = document.querySelector("#gates .rows"), shownInstance = run.instances[state.instance];
  byId("said").textContent = all.length
    ? `${count(rows.length)} of ${count(all.length)} numbers${all[0].baseline === null ? "" : `, against ${run.instances[all[0].baseline].id}`}`
    : `Not compared: ${shownInstance.verdict ?? "no number has a baseline"}.`;
  place.hidden = !rows.length;
  drawTable(place, columns, rows, sort, drawGates);
};

const listed = (instance) => {
  const list = element("dl");
  for (const [key, before, after] of instance.changes) list.append(element("dt", {}, key), element("dd", {}, before || after ? `${before || "(none)"} → ${after || "(none)"}` : ""));
  return list;
};
const folded = (title, content) => {
  const made = element("details");
  made.append(element("summary", {}, title), content);
  return made;
};

const drawInstances = (sort = "-began") => {
  const { instances } = state.run;
  const columns = [
    { key: "began", name: "Instance", isText: true, isLong: true, value: (one) => one.number,
      fill: (cell, one) => {
        cell.append(one.id, small(`${one.began ? `${one.began} UTC` : ""}${one.seconds === null ? "" : `, ${duration(one.seconds)}`}`));
        if (one.is_baseline) cell.append(small("baseline"));
        for (const { at, by, note } of one.accepted) cell.append(small(`accepted ${at ?? ""} by ${by ?? "unknown"}${note ? `: ${note}` : ""}`));
      } },
    { key: "verdict", name: "Verdict", isText: true, value: (one) => one.verdict,
      fill: (cell, one) => {
        cell.append(one.verdict ?? DASH);
        if (one.gate) cell.append(small(`gate ${one.gate}`, one.gate === "failed" ? "bad" : ""));
        if (one.status !== "completed") cell.append(small(one.status ?? "", "bad"));
        if (one.error) cell.append(small(one.error, "bad"));
      } },
    { key: "commit", name: "Commit", isText: true, value: (one) => one.commit,
      fill: (cell, one) => { cell.append(one.commit ? one.commit.slice(0, 10) : DASH); cell.title = one.commit ?? ""; if (one.dirty) cell.append(small("with uncommitted changes")); } },
    { key: "changes", name: "What changed", isText: true, isLong: true, value: (one) => one.changes.length,
      fill: (cell, one) => cell.append(one.changes.length > 2 ? folded(`${count(one.changes.length)} changes`, listed(one)) : one.changes.length ? listed(one) : DASH) },
    { key: "files", name: "Files", value: (one) => one.computed,
      fill: (cell, one) => { cell.append(one.computed === null ? DASH : `${count(one.computed)} new`); if (one.shared !== null) cell.append(small(`${count(one.shared)} taken over`)); } },
    { key: "by", name: "Asked by", isText: true, value: (one) => one.requested_by,
      fill: (cell, one) => {
        cell.append(one.requested_by ?? DASH);
        if (one.hardware) cell.append(small(one.hardware));
        if (one.versions) cell.append(folded("versions", element("pre", {}, typeof one.versions === "string" ? one.versions : Object.entries(one.versions).map(([name, version]) => `${name} ${version}`).join("\n"))));
      } },
  ];
  drawTable(document.querySelector("#instances .rows"), columns, instances.map((one, number) => ({ ...one, number })), sort, drawInstances);
};

// ---- the page
const write = () => writeAddress([
  ["run", state.run.name], ["edits", state.count === countsOf(state.run).at(-1) ? "" : state.count],
  ["protocol", state.protocol === protocolsOf(state.run)[0] ? "" : state.protocol],
  ...[...state.hidden].sort((a, b) => a - b).map((line) => ["without", data.lines[line].name]),
  ["values", state.values === "log" ? "" : state.values], ["bands", state.bands === "items" ? "" : state.bands],
  ["instance", state.instance === state.run.instances.length - 1 ? "" : state.run.instances[state.instance].id], ["verdict", state.verdict],
]);
const redraw = () => { tip.hidden = true; write(); drawCharts(); };
const countsOf = (run) => [...new Set(run.numbers.map((one) => one.count))].sort((a, b) => a - b);
const protocolsOf = (run) => ["generated", "teacher_forced", "probability"].filter((name) => run.numbers.some((one) => one.protocol === name));

const makeControls = () => {
  const { run } = state;
  fillSelect(byId("run"), data.runs.map((one) => [one.name, one.name]), run.name);
  fillSelect(byId("count"), countsOf(run).map((value) => [value, value ? count(value) : "0: pristine model"]), state.count);
  fillSelect(byId("instance"), run.instances.map((one, index) => [index, `${one.id}${one.is_baseline ? ", baseline" : ""}`]).reverse(), state.instance);
  fillSelect(byId("verdict"), [["", "all"], ...VERDICTS.map((name) => [name, name])], state.verdict);
  for (const id of ["protocols", "methods", "values", "bands"]) byId(id).replaceChildren();
  choices("protocols", "Protocol", protocolsOf(run).map((name) => [name, nameOf(name)]), state.protocol, (value) => { state.protocol = value; });
  byId("methods").append(element("span", { class: "name" }, "Methods"));
  data.lines.forEach((line, index) => {
    const made = button(byId("methods"), line.name, !state.hidden.has(index), () => {
      state.hidden.has(index) ? state.hidden.delete(index) : state.hidden.add(index);
      made.setAttribute("aria-pressed", !state.hidden.has(index));
    });
    made.style.setProperty("--color", color(index));
  });
  choices("values", "Perplexity", LOG, state.values, (value) => { state.values = value; });
  choices("bands", "Bands", BANDS, state.bands, (value) => { state.bands = value; });
  const report = byId("report");
  report.hidden = !run.report;
  report.textContent = "The run's report";
  if (run.report) report.href = run.report;
};

const read = (address = readAddress()) => {
  const run = data.runs.find((one) => one.name === address.get("run")) ?? data.runs[0], ids = run.instances.map((one) => one.id);
  const counts = countsOf(run), asked = address.getAll("without");
  data.lines = run.lines;
  Object.assign(state, {
    run,
    count: address.has("edits") ? among(Number(address.get("edits")), counts, counts.at(-1)) : counts.at(-1),
    protocol: among(address.get("protocol"), protocolsOf(run), protocolsOf(run)[0] ?? ""),
    hidden: new Set([...run.lines.keys()].filter((line) => asked.includes(run.lines[line].name))),
    values: among(address.get("values"), ["log", "linear"], "log"),
    bands: among(address.get("bands"), ["items", "none"], "items"),
    instance: ids.includes(address.get("instance")) ? ids.indexOf(address.get("instance")) : ids.length - 1,
    verdict: among(address.get("verdict"), VERDICTS, ""),
  });
  makeControls();
};
const drawAll = () => { redraw(); drawGates(); drawInstances(); };

byId("run").onchange = () => { read(new URLSearchParams([["run", byId("run").value]])); drawAll(); };
byId("count").onchange = () => { state.count = Number(byId("count").value); redraw(); };
byId("instance").onchange = () => { state.instance = Number(byId("instance").value); write(); drawGates(); };
byId("verdict").onchange = () => { state.verdict = byId("verdict").value; write(); drawGates(); };
if (data.runs.length) start(read, drawAll);
else byId("without").hidden = false;
