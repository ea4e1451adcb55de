// Shared by the pages of the site: the address, filters, and tables that can be sorted.
const byId = (id) => document.getElementById(id);
const MOST_ROWS = 100; // a table shows so many until the reader asks for more

// ---- the address: what the reader chose is its hash
const readAddress = () => new URLSearchParams(location.hash.slice(1));
const addressOf = (pairs) => {
  const kept = pairs.filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return new URLSearchParams(kept).toString().replaceAll("%2F", "/");
};
const writeAddress = (pairs) => {
  const address = addressOf(pairs);
  if (address !== location.hash.slice(1)) history.replaceState(null, "", address ? `#${address}` : location.pathname + location.search);
};
const among = (value, options, other) => (options.includes(value) ? value : other);

// ---- filters
const fillSelect = (select, options, chosen) => {
  select.replaceChildren(...options.map(([value, text]) => element("option", { value }, text)));
  select.value = chosen;
};
const words = (text) => text.toLowerCase().split(/\s+/).filter(Boolean);
const matches = (text, wanted) => wanted.every((word) => text.includes(word));
const nameOf = (protocol) => protocol.replaceAll("_", " ");

// ---- tables
const compareValues = (one, other) => {
  const missing = (value) => value === null || value === undefined || value === "";
  if (missing(one) || missing(other)) return missing(one) - missing(other);
  return typeof one === "number" && typeof other === "number" ? one - other : String(one).localeCompare(String(other), "en", { numeric: true });
};

// Sorted by the column whose key `sort` names, "-" in front of it for the largest first; what is missing comes last.
const sorted = (rows, columns, sort) => {
  const isDown = sort.startsWith("-"), column = columns.find((one) => one.key === sort.replace(/^-/, ""));
  if (!column) return rows;
  const order = (one, other) => {
    const [a, b] = [column.value(one), column.value(other)], found = compareValues(a, b);
    return isDown && compareValues(a, null) < 0 && compareValues(b, null) < 0 ? -found : found;
  };
  return [...rows].sort(order);
};

// A column: {key, name, isText, isLong, isLow (small is good), value: row -> what is sorted, fill: (cell, row) -> its content; without it the value}
const drawTable = (place, columns, rows, sort, onSort, all = false) => {
  const table = element("table"), head = element("tr"), body = element("tbody");
  for (const column of columns) {
    const way = sort === column.key ? "ascending" : sort === `-${column.key}` ? "descending" : "none";
    const cell = element("th", { scope: "col", class: column.isText ? "text" : "", ...(onSort ? { "aria-sort": way } : {}) });
    if (onSort) {
      const made = element("button", { type: "button", "data-key": column.key }, column.name);
      const first = column.isText || column.isLow ? column.key : `-${column.key}`, other = first === column.key ? `-${column.key}` : column.key;
      made.onclick = () => {
        onSort(sort === first ? other : first);
        place.querySelector(`[data-key="${column.key}"]`)?.focus();
      };
      cell.append(made);
    } else cell.append(column.name);
    head.append(cell);
  }
  const shownRows = sorted(rows, columns, sort), some = all ? shownRows : shownRows.slice(0, MOST_ROWS);
  for (const row of some) {
    const made = element("tr");
    for (const column of columns) {
      const cell = element("td", column.isText ? { class: column.isLong ? "text long" : "text" } : {});
      if (column.fill) column.fill(cell, row);
      else cell.append(...breakable(said(column.value(row))));
      made.append(cell);
    }
    body.append(made);
  }
  const box = element("div", { class: "scroll", tabindex: 0 });
  const top = element("thead");
  top.append(head);
  table.append(top, body);
  box.append(table);
  const left = place.querySelector(".scroll")?.scrollLeft ?? 0;
  place.replaceChildren(box);
  box.scrollLeft = left; // a table that is sorted stays where it was
  if (some.length < rows.length) {
    const more = element("button", { type: "button" }, `Show all ${count(rows.length)} rows`);
    more.onclick = () => drawTable(place, columns, rows, sort, onSort, true);
    place.append(more);
  }
};

const DASH = "–";
const said = (value) => (value === null || value === undefined || value === "" ? DASH : typeof value === "number" ? short(value) : String(value));
const breakable = (text) => text.split(/(?<=[/_,])/).flatMap((part, index) => (index ? [element("wbr"), part] : [part])); // long names
const small = (text, kind = "") => element("small", kind ? { class: kind } : {}, text);
const link = (href, text) => element("a", { href }, text);
const duration = (seconds) => {
  if (seconds === null) return DASH;
  const whole = Math.round(seconds), minutes = Math.floor(whole / 60);
  return whole < 60 ? `${whole} s` : minutes < 60 ? `${minutes} min ${whole % 60} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
};

const start = (read, draw) => {
  for (const one of document.querySelectorAll("[data-script]")) one.hidden = false;
  read();
  draw();
  addEventListener("hashchange", () => { read(); draw(); });
  let seen = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== seen) { seen = innerWidth; draw(); } });
  addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
};
