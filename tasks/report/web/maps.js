// The heat map of retention, and perplexity against capability.
const VIRIDIS = ["#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"];

const shade = (value) => {
  const place = Math.min(Math.max(value, 0), 1) * (VIRIDIS.length - 1), low = Math.min(Math.floor(place), VIRIDIS.length - 2);
  const parts = (name) => [1, 3, 5].map((at) => parseInt(name.slice(at, at + 2), 16));
  const [from, to] = [parts(VIRIDIS[low]), parts(VIRIDIS[low + 1])];
  return `rgb(${from.map((part, i) => Math.round(part + (to[i] - part) * (place - low))).join(" ")})`;
};

const drawHeat = () => {
  const plot = document.querySelector("#heat .plot"), line = Number(document.getElementById("heat-method").value);
  plot.replaceChildren();
  const { counts, ages } = data.heat, cells = data.heat.cells[state.protocol]?.[line] ?? [];
  if (!cells.length) {
    plot.append(element("div", { class: "empty" }, "not measured under this protocol"));
    plot.onpointermove = plot.onpointerdown = plot.onkeydown = null;
    return;
  }
  const size = 38, left = Math.max(...ages.map((age) => age.length)) * 7 + 14, top = 6;
  const { svg, width } = frame(plot, `Retention of ${data.lines[line].name} by age and edit count; a table holds its numbers`, ages.length * size + 52);
  const step = (width - left - 4) / counts.length, bottom = top + ages.length * size;
  ages.forEach((age, i) => svg.append(element("text", { x: left - 8, y: top + i * size + size / 2 + 4, "text-anchor": "end" }, age)));
  const at = (i) => left + (i + 0.5) * step;
  for (const [i, text] of roomy(counts.map((value, i) => [i, count(value)]), at))
    svg.append(element("text", { x: at(i), y: bottom + 18, "text-anchor": "middle" }, text));
  svg.append(element("text", { x: (left + width) / 2, y: bottom + 38, "text-anchor": "middle" }, "edits"));
  for (const [age, place, value] of cells) {
    const corner = { x: left + place * step + 1, y: top + age * size + 1, width: Math.max(1, step - 2), height: size - 2 };
    svg.append(element("rect", { ...corner, rx: 3, fill: shade(value), class: "cell" }));
    if (step >= 34) {
      const ink = value > 0.55 ? "#101418" : "#ffffff";
      svg.append(element("text", { x: at(place), y: top + age * size + size / 2 + 4, "text-anchor": "middle", style: `fill:${ink}` }, (100 * value).toFixed(0)));
    }
  }
  const mark = element("rect", { class: "chosen", fill: "none", visibility: "hidden", width: step, height: size, rx: 4 });
  svg.append(mark);
  plot.append(svg);
  listenToHeat(plot, svg, { line, cells, mark, left, top, step, size, width });
};

const listenToHeat = (plot, svg, { line, cells, mark, left, top, step, size, width }) => {
  let now = -1;
  const hide = () => { tip.hidden = true; mark.setAttribute("visibility", "hidden"); now = -1; };
  const show = (index) => {
    now = index;
    const [age, place, value, low, high, n] = cells[index], box = svg.getBoundingClientRect();
    const x = left + place * step, y = top + age * size, ratio = box.width / width;
    for (const [key, of] of Object.entries({ x, y, visibility: "visible" })) mark.setAttribute(key, of);
    const range = low === null ? "" : `${percent(low)} to ${percent(high)}, n ${count(n)}`;
    const title = `After ${edits(data.heat.counts[place])}, ${data.heat.ages[age]} edits ago`;
    tell(title, [tipRow(line, `${data.lines[line].name}: ${percent(value)}`, range)], box.left + (x + step / 2) * ratio, box.top + y + size / 2);
  };
  plot.onpointermove = plot.onpointerdown = (event) => {
    const box = svg.getBoundingClientRect();
    const place = Math.floor((((event.clientX - box.left) / box.width) * width - left) / step), age = Math.floor((event.clientY - box.top - top) / size);
    const index = cells.findIndex((cell) => cell[0] === age && cell[1] === place);
    index < 0 ? hide() : show(index);
  };
  plot.onpointerleave = plot.onblur = hide;
  plot.onkeydown = (event) => {
    if (event.key === "Escape") hide();
    const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!move) return;
    event.preventDefault();
    const here = cells[Math.max(now, 0)];
    const next = cells.findIndex((cell) => cell[0] === here[0] + move[0] && cell[1] === here[1] + move[1]);
    show(now < 0 ? 0 : next < 0 ? now : next);
  };
};

const drawLegend = (place) => {
  const bar = element("span", { class: "ramp" });
  for (let i = 0; i < 20; i++) {
    const part = element("i");
    part.style.background = shade(i / 19);
    bar.append(part);
  }
  place.replaceChildren("0 %", bar, "100 % of the edit prompts answered with the new fact");
};

const drawScatter = () => {
  const plot = document.querySelector("#scatter .plot");
  plot.replaceChildren();
  const series = data.scatter.map((points, line) => ({ line, points })).filter(({ line, points }) => points.length && !state.hidden.has(line));
  if (!series.length) {
    plot.append(element("div", { class: "empty" }, "no method is chosen"));
    plot.onpointermove = plot.onpointerdown = plot.onkeydown = null;
    return;
  }
  const area = frame(plot, "Capability against perplexity, a point a checkpoint; the tables hold its numbers", 330);
  const { svg, width, left, right, top, bottom } = area;
  const x = valueScale("positive", series.flatMap(({ points }) => points.map((point) => point.x)), left + 10, right, true);
  const y = valueScale("share", [], bottom, top);
  drawAxes(svg, { ...x, ticks: roomy(x.ticks, x.at) }, y, area, "perplexity over the pristine model's");
  const all = [];
  for (const { line, points } of series) {
    const d = points.map((point, i) => `${i ? "L" : "M"}${x.at(point.x).toFixed(1)} ${y.at(point.y).toFixed(1)}`).join("");
    svg.append(element("path", { class: "track", d, fill: "none", stroke: color(line), "stroke-width": 1.2, opacity: 0.6, "stroke-dasharray": dashes(line) }));
    for (const point of points) {
      const made = marker(point.count === 0 ? null : line, x.at(point.x), y.at(point.y));
      made.classList.add("checkpoint");
      svg.append(made);
      if (point.count > 0 && point.count === data.lines[line].collapse_at)
        svg.append(element("circle", { cx: x.at(point.x), cy: y.at(point.y), r: 9, fill: "none", stroke: color(line), "stroke-width": 1.6 }));
      all.push({ line, point, at: [x.at(point.x), y.at(point.y)] });
    }
  }
  const ring = element("circle", { r: 7, class: "chosen", fill: "none", visibility: "hidden" });
  svg.append(ring);
  plot.append(svg);
  listenToScatter(plot, svg, all, ring, width);
};

const listenToScatter = (plot, svg, all, ring, width) => {
  let now = -1;
  const hide = () => { tip.hidden = true; ring.setAttribute("visibility", "hidden"); now = -1; };
  const show = (index) => {
    now = index;
    const { line, point, at } = all[index], box = svg.getBoundingClientRect(), ratio = box.width / width;
    for (const [key, of] of Object.entries({ cx: at[0], cy: at[1], visibility: "visible" })) ring.setAttribute(key, of);
    const range = point.low === null ? "" : `${percent(point.low)} to ${percent(point.high)}`;
    const rows = [tipRow(line, `Capability ${percent(point.y)}`, range), tipRow(null, `Perplexity × ${short(point.x)}`)];
    tell(`${data.lines[line].name}, ${edits(point.count)}`, rows, box.left + at[0] * ratio, box.top + at[1] * ratio);
  };
  plot.onpointermove = plot.onpointerdown = (event) => {
    const box = svg.getBoundingClientRect(), ratio = box.width / width;
    const away = ({ at }) => Math.hypot(box.left + at[0] * ratio - event.clientX, box.top + at[1] * ratio - event.clientY);
    const best = all.reduce((found, one, i) => (away(one) < away(all[found]) ? i : found), 0);
    away(all[best]) < 40 ? show(best) : hide();
  };
  plot.onpointerleave = plot.onblur = hide;
  plot.onkeydown = (event) => {
    const step = arrow(event, hide);
    if (!step) return;
    show(Math.max(0, Math.min(all.length - 1, now + step)));
  };
};
