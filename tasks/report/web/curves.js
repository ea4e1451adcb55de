// The curves: a line per trajectory over edit counts or categories, such as ages.
// A chart may bring functions of its own: `extras(line, point, x, y)` draws more at a point, `says(line, point)` adds to
// its row of the tooltip, `places` has the tooltip's words for the categories, and `rules` the categories to be marked.
const MOST_TOLD = 16; // rows of a tooltip

const isShown = (chart) =>
  chart.preset ? chart.preset === state.preset : !(state.preset && chart.group === "curve" && chart.by === "protocol");

const seriesOf = (chart) => {
  const key = chart.by === "protocol" ? state.protocol : "all";
  const merged = state.bands === "orders" ? chart.orders?.[key] : undefined;
  if (merged) return merged.filter((one) => one.members.some((line) => !state.hidden.has(line)));
  return (chart.lines[key] ?? []).filter((one) => !state.hidden.has(one.line));
};

const drawChart = (chart, plot) => {
  plot.replaceChildren();
  const isDrawn = (point) => point.y !== null && (!isLog(chart.y) || point.y > 0);
  const series = seriesOf(chart).map((one) => ({ ...one, points: one.points.filter(isDrawn) }));
  if (!series.some((one) => one.points.length)) {
    const why = state.hidden.size === data.lines.length ? "no method is chosen" : chart.missing;
    plot.append(element("div", { class: "empty" }, why ?? "not measured under this protocol"));
    for (const type of ["pointermove", "pointerdown", "pointerleave", "blur", "keydown"]) plot[`on${type}`] = null;
    return;
  }
  const area = frame(plot, `${chart.title} by ${chart.over ?? (chart.categories ? "age" : "edits")}; the tables hold its numbers`);
  const { svg, width, left, right, top, bottom } = area;
  const values = series.flatMap((one) => one.points.flatMap((point) => [point.y, point.low ?? point.y, point.high ?? point.y]));
  const x = chart.categories ? categoryScale(chart.categories, left + 6, right) : editScale(data.edit_counts, left + 6, right);
  const y = valueScale(chart.y, isLog(chart.y) ? values.filter((value) => value > 0) : values, bottom, top);
  drawAxes(svg, x, y, area, chart.over ?? (chart.categories ? "edits since" : "edits"));
  if (chart.reference) {
    const at = y.at(chart.reference.y);
    svg.append(element("line", { class: "reference", x1: left, x2: right + 8, y1: at, y2: at }));
    svg.append(element("text", { x: left + 6, y: at - 5 }, chart.reference.name));
  }
  for (const place of chart.rules ?? []) svg.append(element("line", { class: "baseline", x1: x.at(place), x2: x.at(place), y1: top, y2: bottom }));
  const faint = Math.min(0.12, 0.6 / series.length); // the more bands, the fainter
  for (const one of series) {
    const group = element("g", { "data-line": one.line });
    group.append(...drawSeries(chart, one, x, y, faint));
    svg.append(group);
  }
  const rule = element("line", { class: "rule", y1: top, y2: bottom, visibility: "hidden" });
  svg.append(rule);
  plot.append(svg);
  listenToCurves(chart, plot, svg, series, { x, y }, rule, width);
};

const drawSeries = (chart, { line, points, members }, x, y, faint) => {
  const at = (point, value) => `${x.at(point.x).toFixed(1)} ${y.at(value).toFixed(1)}`;
  const path = (list, value) => list.map((point, i) => `${i ? "L" : "M"}${at(point, value(point))}`).join("");
  const edited = chart.categories ? points : points.filter((point) => point.x > 0);
  const banded = state.bands === "none" ? [] : edited.filter((point) => point.low !== null && point.high !== null);
  const parts = [];
  if (banded.length) {
    const back = [...banded].reverse().map((point) => `L${at(point, point.low)}`).join("");
    const outline = `${path(banded, (point) => point.high)}${back}Z`;
    parts.push(element("path", { class: "band", d: outline, fill: color(line), opacity: members ? 2 * faint : faint }));
  }
  const stroke = { fill: "none", stroke: color(line), "stroke-linejoin": "round" };
  if (edited.length < points.length) // no curve between the pristine model and the first edit count
    parts.push(element("path", { class: "lead", d: path(points.slice(0, 2), (point) => point.y) }));
  const dashed = members ? "" : dashes(line);
  parts.push(element("path", { ...stroke, class: "curve", d: path(edited, (point) => point.y), "stroke-width": 2.2, "stroke-dasharray": dashed }));
  for (const point of points) parts.push(marker(chart.categories || point.x > 0 ? line : null, x.at(point.x), y.at(point.y)));
  const collapsed = chart.categories || members ? undefined : points.find((point) => point.x === data.lines[line].collapse_at);
  if (collapsed) parts.push(element("circle", { ...stroke, class: "collapse", cx: x.at(collapsed.x), cy: y.at(collapsed.y), r: 9, "stroke-width": 1.6 }));
  if (chart.extras) for (const point of points) parts.push(...chart.extras(line, point, x, y));
  return parts;
};

const listenToCurves = (chart, plot, svg, series, { x, y }, rule, width) => {
  const places = [...new Set(series.flatMap((one) => one.points.map((point) => point.x)))].sort((a, b) => a - b);
  let now = -1;
  const hide = () => { tip.hidden = true; rule.setAttribute("visibility", "hidden"); now = -1; };
  const show = (index, clientX, clientY) => {
    now = index;
    const here = places[index];
    rule.setAttribute("x1", x.at(here));
    rule.setAttribute("x2", x.at(here));
    rule.setAttribute("visibility", "visible");
    const where = chart.places ? chart.places[here] : chart.categories ? `${chart.categories[here]} edits ago` : edits(here);
    const told = series.flatMap((one) => one.points.filter((point) => point.x === here).map((point) => [one, point]));
    const height = clientY - svg.getBoundingClientRect().top, distance = ([, point]) => Math.abs(y.at(point.y) - height);
    const kept = new Set(told.length > MOST_TOLD ? [...told].sort((one, other) => distance(one) - distance(other)).slice(0, MOST_TOLD) : told);
    const rows = told.filter((one) => kept.has(one)).map(([one, point]) => curveRow(chart, one, point));
    if (kept.size < told.length) rows.push(tipRow(null, "", `and ${count(told.length - kept.size)} farther away`));
    tell(`${chart.title}, ${where}`, rows, clientX, clientY);
  };
  const nearest = (clientX) => {
    const box = svg.getBoundingClientRect(), at = ((clientX - box.left) / box.width) * width;
    return places.reduce((best, one, i) => (Math.abs(x.at(one) - at) < Math.abs(x.at(places[best]) - at) ? i : best), 0);
  };
  plot.onpointermove = plot.onpointerdown = (event) => show(nearest(event.clientX), event.clientX, event.clientY);
  plot.onpointerleave = plot.onblur = hide;
  plot.onkeydown = (event) => {
    const step = arrow(event, hide);
    if (!step) return;
    const index = Math.max(0, Math.min(places.length - 1, now < 0 && step < 0 ? places.length - 1 : now + step));
    const box = svg.getBoundingClientRect();
    show(index, box.left + (x.at(places[index]) / width) * box.width, box.top + 20);
  };
};

const curveRow = (chart, { line, name, members }, point) => {
  const range = point.low === null ? "" : `${shown(chart, point.low)} to ${shown(chart, point.high)}`;
  const size = point.n === null ? "" : members ? `${point.n} orders` : `n ${count(point.n)}`;
  return tipRow(line, `${name ?? data.lines[line].name}: ${shown(chart, point.y)}`, [range, size, chart.says?.(line, point)].filter(Boolean).join(", "));
};
