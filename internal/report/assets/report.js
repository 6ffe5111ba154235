(function () {
"use strict";
// Everything from a bundle is put in place as text: no markup is made of it.
const D = JSON.parse(document.getElementById("data").textContent);
for (const key of ["axes", "curves", "grids", "judged", "alphas", "skews", "drifts", "steps", "findings"]) D[key] = D[key] || [];
const colors = ["--a", "--b", "--c", "--d"];
const dashes = [[], [7, 4], [2, 3], [9, 3, 2, 3]];
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const byId = (id) => document.getElementById(id);
const unique = (list) => [...new Set(list)];
const many = D.bundles.length > 1;
const plots = new Set();

function el(tag, attributes, ...children) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(attributes || {})) {
    if (v === undefined || v === false) continue;
    if (k === "class") e.className = v; else e.setAttribute(k, v === true ? "" : v);
  }
  e.append(...children.filter((c) => c !== undefined && c !== null));
  return e;
}
function num(v, digits) {
  if (v === null || v === undefined || !isFinite(v)) return "–";
  return String(Number(v.toPrecision(digits || 4)));
}
const percent = (v) => (v > 0 ? "+" : "") + (Math.abs(v) >= 100 ? v.toFixed(0) : v.toFixed(2)) + "%";
const who = (s) => (many ? D.bundles[s.bundle].letter + " " : "") + "tp" + s.tp;

// A select with a label, in a row of controls.
function choice(label, options, change) {
  const select = el("select", {});
  select.setOptions = (list) => {
    const before = select.value;
    select.replaceChildren(...list.map(([value, text]) => el("option", { value: value }, text)));
    if (list.some(([value]) => String(value) === before)) select.value = before;
  };
  select.setOptions(options);
  select.addEventListener("change", change);
  return { select: select, label: el("label", {}, label + " ", select) };
}

// The table behind a figure, made when it is opened.
function tableBehind(host, title, make) {
  const details = el("details", { class: "data" }, el("summary", {}, "Table"));
  details.addEventListener("toggle", () => {
    if (!details.open || details.childElementCount > 1) return;
    const t = make();
    details.append(el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title + ", table" },
      el("table", {}, el("thead", {}, el("tr", {}, ...t.columns.map((c) => el("th", { scope: "col" }, c)))),
        el("tbody", {}, ...t.rows.map((r) => el("tr", {}, ...r.map((c) => typeof c === "number" || c === null ? el("td", { class: "n" }, num(c, 6)) : el("td", {}, String(c)))))))));
  });
  host.append(details);
}

// Ticks of a logarithmic axis, at most so many: the finest of these steps that
// are few enough.
const every = (part) => Array.from({ length: 9 * part }, (_, k) => 1 + k / part);
const tickSteps = [every(10), every(2), every(1), [1, 1.5, 2, 3, 5, 7], [1, 2, 5], [1]];
function logTicks(low, high, most) {
  let ticks = [];
  for (const steps of tickSteps) {
    ticks = [];
    for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++)
      for (const s of steps) {
        const v = Number((s * Math.pow(10, e)).toPrecision(3));
        if (v >= low && v <= high) ticks.push(v);
      }
    if (ticks.length <= most) return ticks;
  }
  while (ticks.length > most) ticks = ticks.filter((_, k) => k % 2 === 0);
  return ticks;
}
function short(v) {
  if (v === null) return "";
  const a = Math.abs(v);
  if (a >= 1e6) return num(v / 1e6, 3) + "M";
  if (a >= 1e4) return num(v / 1e3, 3) + "k";
  return num(v, 4);
}

// draw makes a plot. spec: label, x, series [{label, y, color, dash, points, marks, width}],
// xLabel, yLabel, xLog, yLog, cloud, bars, read(i, s), table().
function draw(host, spec) {
  const box = el("div", { class: "plot", tabindex: "0", role: "application", "aria-roledescription": "plot", "aria-label": spec.label + ". Arrow keys move along it; the values are read below." });
  const out = el("output", { "aria-live": "polite" });
  host.append(box, out);
  // Until something is pointed at: from where to where it goes.
  const extent = (list) => list.reduce((e, v) => (v === null || v === undefined ? e : [Math.min(e[0], v), Math.max(e[1], v)]), [Infinity, -Infinity]).map((v) => num(v, 4));
  if (spec.x.length) {
    const y = extent(spec.series.filter((s) => !s.roof).flatMap((s) => s.y)).join("…");
    out.append(spec.xLabel + " " + extent(spec.x).join("…") + ": " + (/^(µs|%)$/.test(spec.yLabel) ? y + " " + spec.yLabel : spec.yLabel + " " + y));
  }
  const line = (name) => () => css(name);
  const range = (log) => (u, low, high) => {
    if (low === null || high === null) return log ? [1, 10] : [0, 1];
    if (log) return [low * 0.87, high * 1.15];
    const pad = (high - low || Math.abs(high) || 1) * 0.06;
    return [spec.zero && low >= 0 ? 0 : low - pad, high + pad];
  };
  const axis = (label, log, side) => ({
    label: label, side: side, stroke: line("--muted"), font: "12px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif",
    labelSize: 18, size: side === 3 ? 52 : 30, gap: 4, grid: { stroke: line("--grid"), width: 1 }, ticks: { stroke: line("--line"), width: 1, size: 4 },
    space: side === 3 ? 26 : 44,
    values: (u, list) => list.map(short),
    ...(log ? { splits: (u, i, low, high) => {
      return logTicks(low, high, Math.max(2, side === 3 ? u.height / 34 : u.width / 52));
    }, filter: (u, t) => t } : {}),
  });
  const ring = (u) => {
    const c = u.ctx;
    c.save();
    c.lineWidth = 2 * devicePixelRatio;
    c.strokeStyle = css("--ring");
    c.setLineDash([]); // the last series' is still set
    spec.series.forEach((s) => (s.marks || []).forEach((i) => {
      if (s.y[i] === null || s.y[i] === undefined) return;
      c.beginPath();
      c.arc(u.valToPos(spec.x[i], "x", true), u.valToPos(s.y[i], "y", true), 6 * devicePixelRatio, 0, 7);
      c.stroke();
    }));
    c.restore();
  };
  const dot = el("div", { class: "u-cursor-pt" });
  let at = -1;
  const read = (i, s) => {
    at = i;
    out.replaceChildren(...spec.read(i, s));
  };
  // The nearest point of a cloud, in pixels.
  const nearest = (u, left, top) => {
    let best = null, least = 40 * 40;
    spec.series.forEach((s, k) => s.y.forEach((y, i) => {
      if (y === null || y === undefined) return;
      const dx = u.valToPos(spec.x[i], "x") - left, dy = u.valToPos(y, "y") - top, d = dx * dx + dy * dy;
      if (d < least) { least = d; best = [i, k]; }
    }));
    return best;
  };
  const place = (u, i, k) => {
    const s = spec.series[k];
    dot.style.width = dot.style.height = "12px";
    dot.style.margin = "-6px 0 0 -6px";
    dot.style.border = "2px solid " + css("--fg");
    dot.style.transform = "translate(" + u.valToPos(spec.x[i], "x") + "px," + u.valToPos(s.y[i], "y") + "px)";
    dot.hidden = false;
  };
  const width = () => Math.max(200, box.clientWidth || 360);
  const u = new uPlot({
    width: width(), height: spec.height || 230, legend: { show: false }, pxAlign: true,
    cursor: { drag: { x: false, y: false }, points: { show: !spec.cloud, size: 9 }, x: !spec.cloud, y: false },
    scales: { x: { time: false, distr: spec.xLog ? 3 : 1, range: range(spec.xLog) }, y: { distr: spec.yLog ? 3 : 1, range: range(spec.yLog) } },
    axes: [axis(spec.xLabel, spec.xLog, 2), axis(spec.yLabel, spec.yLog, 3)],
    series: [{}].concat(spec.series.map((s) => ({
      label: s.label, scale: "y", stroke: line(s.color), width: s.width === undefined ? 1.75 : s.width, dash: s.dash, spanGaps: true,
      paths: spec.bars ? uPlot.paths.bars({ size: [0.9, 100] }) : spec.cloud ? () => null : undefined,
      fill: spec.bars ? line(s.color) : undefined,
      points: { show: spec.cloud ? true : !spec.bars && s.points !== false && spec.x.length <= 60, size: spec.cloud ? 5 : 4, stroke: line(s.color), fill: spec.cloud ? "transparent" : line(s.color), width: 1 },
    }))),
    hooks: {
      draw: [ring, spec.over || (() => {})],
      setCursor: [(u) => {
        if (u.cursor.left < 0) return;
        if (!spec.cloud) { if (u.cursor.idx !== null) read(u.cursor.idx); return; }
        const found = nearest(u, u.cursor.left, u.cursor.top);
        dot.hidden = !found;
        if (found) { place(u, found[0], found[1]); read(found[0], found[1]); }
      }],
    },
  }, [spec.x].concat(spec.series.map((s) => s.y)), box);
  box.querySelectorAll("canvas").forEach((c) => c.setAttribute("aria-hidden", "true"));
  if (spec.cloud) { dot.hidden = true; u.over.append(dot); }
  box.addEventListener("keydown", (event) => {
    const n = spec.x.length;
    const step = { ArrowRight: 1, ArrowLeft: -1, PageDown: 10, PageUp: -10, Home: -n, End: n }[event.key];
    if (step === undefined || n === 0 || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const i = Math.min(n - 1, Math.max(0, at < 0 ? (step > 0 && event.key !== "End" ? 0 : event.key === "End" ? n - 1 : 0) : at + step));
    if (spec.cloud) {
      const k = spec.series.findIndex((s) => s.y[i] !== null && s.y[i] !== undefined);
      if (k >= 0) { place(u, i, k); read(i, k); }
      return;
    }
    const y = spec.series.map((s) => s.y[i]).find((v) => v !== null && v !== undefined);
    u.setCursor({ left: u.valToPos(spec.x[i], "x"), top: y === undefined ? 0 : u.valToPos(y, "y") }, false);
    read(i);
  });
  const plot = { u: u, box: box, redraw: () => u.redraw(true, true) };
  new ResizeObserver(() => { if (box.isConnected && Math.abs(width() - u.width) > 1) u.setSize({ width: width(), height: spec.height || 230 }); }).observe(box);
  plots.add(plot);
  if (spec.table) tableBehind(host, spec.label, spec.table);
  return plot;
}
function clear(host, keep) {
  for (const p of plots) if (host.contains(p.box)) { p.u.destroy(); plots.delete(p); }
  host.replaceChildren(...(keep || []));
}
const b = (text) => el("b", {}, text);
function joined(parts) { // nodes with commas between
  return parts.flatMap((p, i) => (i ? [", "] : []).concat(p));
}

// Latency by layer.
function unionX(lists) { return unique(lists.flat()).sort((x, y) => x - y); }
function onto(x, xs, ys) {
  const at = new Map(xs.map((v, i) => [v, ys[i]]));
  return x.map((v) => (at.has(v) ? at.get(v) : null));
}
const tps = unique(D.curves.flatMap((c) => c.series.map((s) => s.tp))).sort((x, y) => x - y);
const dashOf = (tp) => dashes[Math.max(0, tps.indexOf(tp)) % dashes.length];
function curveFigure(figure, c, show, log) {
  clear(figure, [...figure.querySelectorAll(":scope > .anchor, :scope > figcaption")]);
  const lines = [];
  for (const s of c.series) {
    const xs = D.axes[s.x], base = { bundle: s.bundle, tp: s.tp, color: colors[s.bundle], dash: dashOf(s.tp) };
    const roofX = s.roof_x === undefined ? null : D.axes[s.roof_x];
    if (show === "us") {
      lines.push({ ...base, label: who(s), xs: xs, ys: s.y, marks: (s.marks || []).map((i) => xs[i]) });
      if (roofX) lines.push({ ...base, label: who(s) + " roofline", xs: roofX, ys: s.roof_y, color: "--roof", width: 1, points: false, roof: true });
    } else if (show === "roof" && roofX) {
      const at = new Map(xs.map((v, i) => [v, s.y[i]]));
      lines.push({ ...base, label: who(s) + " ÷ roofline", xs: roofX, ys: roofX.map((v, i) => (at.has(v) && s.roof_y[i] > 0 ? at.get(v) / s.roof_y[i] : null)) });
    } else if (show === "ratio" && s.bundle > 0) {
      const first = c.series.find((o) => o.bundle === 0 && o.tp === s.tp);
      if (!first) continue;
      const at = new Map(D.axes[first.x].map((v, i) => [v, first.y[i]]));
      const common = xs.map((v, i) => [v, at.has(v) ? s.y[i] / at.get(v) : null]).filter((p) => p[1] !== null);
      lines.push({ ...base, label: who(s) + " ÷ A", xs: common.map((p) => p[0]), ys: common.map((p) => p[1]) });
    }
  }
  let x = unionX(lines.map((l) => l.xs));
  if (log) x = x.filter((v) => v > 0);
  if (!lines.length || !x.length) {
    figure.append(el("p", {}, show === "ratio" ? "The bundles hold no row of it in common." : "No roofline is known for it."));
    return;
  }
  const series = lines.map((l) => {
    const marked = new Set(l.marks || []);
    return { ...l, y: onto(x, l.xs, l.ys), marks: x.map((v, i) => (marked.has(v) ? i : -1)).filter((i) => i >= 0) };
  });
  const unit = show === "us" ? " µs" : "×";
  draw(figure, {
    label: c.layer + " over " + c.axis, x: x, series: series, xLog: log, yLog: log && show === "us", xLabel: c.axis, yLabel: show === "us" ? "µs" : "ratio", zero: true,
    read: (i) => [b(c.axis + " " + x[i]), ": "].concat(joined(series.filter((s) => s.y[i] !== null).map((s) => [s.label + " ", b(num(s.y[i], 5) + unit)]))),
    table: () => ({ columns: [c.axis].concat(series.map((s) => s.label + (show === "us" ? ", µs" : ""))), rows: x.map((v, i) => [v].concat(series.map((s) => s.y[i]))) }),
  });
}
function curves() {
  const show = byId("latency-show"), scale = byId("latency-scale");
  const all = () => document.querySelectorAll("figure.curve").forEach((figure) =>
    curveFigure(figure, D.curves.find((c) => c.id === figure.dataset.curve), show.value, scale.value === "log"));
  show.addEventListener("change", all);
  scale.addEventListener("change", all);
  all();
  const swatch = (color, dash, width) => {
    const ns = "http://www.w3.org/2000/svg", svg = document.createElementNS(ns, "svg"), l = document.createElementNS(ns, "line");
    for (const [k, v] of Object.entries({ width: 30, height: 10, "aria-hidden": "true" })) svg.setAttribute(k, v);
    for (const [k, v] of Object.entries({ x1: 0, x2: 30, y1: 5, y2: 5, stroke: "var(" + color + ")", "stroke-width": width || 2, "stroke-dasharray": dash.join(" ") })) l.setAttribute(k, v);
    svg.append(l);
    return svg;
  };
  const seen = unique(D.curves.flatMap((c) => c.series.map((s) => s.bundle + " " + s.tp))).map((k) => k.split(" ").map(Number)).sort((x, y) => x[0] - y[0] || x[1] - y[1]);
  const items = seen.map(([bundle, tp]) => el("li", {}, swatch(colors[bundle], dashOf(tp)), who({ bundle: bundle, tp: tp })));
  if (D.curves.some((c) => c.series.some((s) => s.roof_x !== undefined))) items.push(el("li", {}, swatch("--roof", [], 1), "roofline, computed"));
  byId("latency-legend").replaceChildren(...items);
}

// Heat maps: tables whose cells have a colour.
const viridis = [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141], [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37]];
const diverging = [[33, 102, 172], [146, 197, 222], [247, 247, 247], [244, 165, 130], [178, 24, 43]];
function blend(stops, share) {
  const p = Math.min(1, Math.max(0, share)) * (stops.length - 1), i = Math.min(stops.length - 2, Math.floor(p));
  return stops[i].map((v, k) => Math.round(v + (p - i) * (stops[i + 1][k] - v)));
}
function paint(cell, rgb) {
  const lum = rgb.map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : Math.pow((v + 0.055) / 1.055, 2.4)));
  const l = 0.2126 * lum[0] + 0.7152 * lum[1] + 0.0722 * lum[2];
  cell.style.backgroundColor = "rgb(" + rgb.join(",") + ")";
  cell.style.color = 1.05 / (l + 0.05) > (l + 0.05) / 0.05 ? "#fff" : "#000";
}
const tip = byId("tip");
// heat makes a map. spec: caption, rowName, colName, rows, cols (of [{text, groups}]), cells[r][c] = {text, rgb, mark, tip, key} or null.
function heat(spec, out) {
  const table = el("table", { class: "heat", role: "grid", "aria-label": spec.caption });
  table.append(el("caption", {}, spec.caption, " ", el("small", {}, "rows " + spec.rowName + ", columns " + spec.colName)));
  const head = el("thead", {});
  if (spec.groups) {
    head.append(el("tr", { role: "row" }, el("th", { role: "columnheader" }), ...spec.groups.map((g, i) => el("th", { role: "columnheader", scope: "colgroup", colspan: g.n, class: "axis" + (i ? " group" : "") }, g.text))));
  }
  const starts = new Set();
  if (spec.groups) spec.groups.reduce((n, g) => { if (n) starts.add(n); return n + g.n; }, 0);
  head.append(el("tr", { role: "row" }, el("th", { role: "columnheader", scope: "col" }, "↓ →"),
    ...spec.cols.map((c, k) => el("th", { role: "columnheader", scope: "col", class: starts.has(k) ? "group" : undefined }, String(c)))));
  const body = el("tbody", {});
  const tds = [];
  spec.rows.forEach((row, r) => {
    const tr = el("tr", { role: "row" }, el("th", { role: "rowheader", scope: "row" }, String(row)));
    tds.push(spec.cols.map((_, k) => {
      const c = spec.cells[r][k];
      const td = el("td", { role: "gridcell", tabindex: "-1", class: (c ? (c.mark ? "mark" : "") : "none") + (starts.has(k) ? " group" : "") }, c ? c.text : "·");
      if (c) {
        paint(td, c.rgb);
        td.dataset.key = c.key;
        td.dataset.bundle = spec.bundle;
      }
      tr.append(td);
      return td;
    }));
    body.append(tr);
  });
  table.append(head, body);
  const spot = (td) => { for (let r = 0; r < tds.length; r++) { const k = tds[r].indexOf(td); if (k >= 0) return [r, k]; } return null; };
  const say = (r, k, where) => {
    const c = spec.cells[r][k];
    const text = c ? c.tip : spec.rowName + " " + spec.rows[r] + ", " + spec.colName + " " + spec.cols[k] + "\nnot measured";
    out.replaceChildren(...text.split("\n").flatMap((t, i) => (i ? ["; "] : []).concat(i === 1 ? b(t) : t)));
    if (!where) return;
    tip.textContent = text;
    tip.hidden = false;
    const w = tip.offsetWidth, h = tip.offsetHeight;
    tip.style.left = Math.max(4, Math.min(innerWidth - w - 4, where[0] + 14)) + "px";
    tip.style.top = (where[1] + 18 + h > innerHeight ? where[1] - h - 10 : where[1] + 18) + "px";
  };
  body.addEventListener("mousemove", (e) => { const p = e.target.closest("td") && spot(e.target.closest("td")); if (p) say(p[0], p[1], [e.clientX, e.clientY]); });
  body.addEventListener("mouseleave", () => { tip.hidden = true; });
  body.addEventListener("focusin", (e) => { const p = spot(e.target); if (p) { tds.flat().forEach((t) => { t.tabIndex = -1; }); e.target.tabIndex = 0; say(p[0], p[1]); } });
  body.addEventListener("keydown", (e) => {
    const p = spot(e.target), move = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0], Home: [0, -1e6], End: [0, 1e6], PageUp: [-1e6, 0], PageDown: [1e6, 0] }[e.key];
    if (!p || !move) return;
    e.preventDefault();
    tds[Math.min(tds.length - 1, Math.max(0, p[0] + move[0]))][Math.min(spec.cols.length - 1, Math.max(0, p[1] + move[1]))].focus();
  });
  if (tds.length && tds[0].length) tds[0][0].tabIndex = 0;
  return el("div", { class: "map" }, el("div", { class: "scroll" }, table));
}
function scaleBar(stops, low, high, note) {
  const bar = el("i", {});
  bar.style.background = "linear-gradient(to right," + stops.map((c) => "rgb(" + c.join(",") + ")").join(",") + ")";
  return el("p", { class: "scale", "aria-hidden": "true" }, el("span", {}, low), bar, el("span", {}, high), el("span", {}, note || ""));
}

function grids(host) {
  const kind = host.dataset.kind, list = D.grids.filter((g) => g.kind === kind);
  if (!list.length) {
    if (kind === "attention") host.append(el("p", {}, "No bundle here holds attention.csv."));
    return;
  }
  host.closest("section").hidden = false;
  const rowName = kind === "moe" ? "tokens" : "n_decode", colName = kind === "moe" ? "activated_experts" : "kv_decode";
  const refresh = () => render();
  const tp = choice("Degree", unique(list.map((g) => g.tp)).sort((x, y) => x - y).map((v) => [v, "tp" + v]), refresh);
  const pc = choice("Prefill chunk", [], refresh), kp = choice("over a history of", [], refresh);
  const what = choice("Show", [["us", "latency, µs"], ["least", "times the least time"]], refresh);
  const out = el("output", { "aria-live": "polite" });
  const body = el("div", {});
  const controls = el("div", { class: "controls" }, tp.label);
  if (kind === "attention") controls.append(pc.label, kp.label);
  if (list.some((g) => g.maps.some((m) => m.least))) controls.append(what.label);
  host.append(controls, body, out);
  const at = () => list.filter((g) => g.tp === Number(tp.select.value));
  function render() {
    const grids = at();
    pc.select.setOptions(unique(grids.flatMap((g) => g.maps.map((m) => m.pc))).sort((x, y) => x - y).map((v) => [v, v === 0 ? "0, decode only" : v]));
    kp.select.setOptions(unique(grids.flatMap((g) => g.maps.filter((m) => m.pc === Number(pc.select.value)).map((m) => m.kp))).sort((x, y) => x - y).map((v) => [v, v]));
    const shown = grids.map((g) => ({ g: g, m: g.maps.find((m) => m.pc === Number(pc.select.value) && m.kp === Number(kp.select.value)) })).filter((s) => s.m);
    const least = what.select.value === "least";
    const value = (m, i) => (m.z[i] === null || m.z[i] === undefined ? null : !least ? m.z[i] : m.least && m.least[i] ? m.z[i] / m.least[i] : null);
    let low = Infinity, high = -Infinity;
    for (const s of shown) s.m.z.forEach((_, i) => { const v = value(s.m, i); if (v !== null) { low = Math.min(low, v); high = Math.max(high, v); } });
    const place = (pcv, kpv) => (kind === "moe" ? "" : pcv > 0 ? "prefill_chunk " + pcv + " over kv_prefill " + kpv : "no prefill");
    const maps = shown.map((s) => {
      const marks = new Set((s.g.marks || []).map(String));
      return heat({
        caption: (many ? D.bundles[s.g.bundle].letter + " · " : "") + "tp" + s.g.tp, rowName: rowName, colName: colName, rows: s.m.rows, cols: s.m.cols, bundle: s.g.bundle,
        cells: s.m.rows.map((row, r) => s.m.cols.map((col, k) => {
          const i = r * s.m.cols.length + k, v = value(s.m, i);
          if (v === null) return null;
          const key = [s.m.pc, s.m.kp, row, col].join(",");
          const facts = [rowName + " " + row + ", " + colName + " " + col + (place(s.m.pc, s.m.kp) && ", " + place(s.m.pc, s.m.kp)), who({ bundle: s.g.bundle, tp: s.g.tp }) + ": " + num(s.m.z[i], 6) + " µs"];
          if (s.m.least && s.m.least[i]) facts.push("at least " + num(s.m.least[i], 3) + " µs by the device's peak rates: " + num(s.m.z[i] / s.m.least[i], 3) + " times that");
          if (marks.has(key)) facts.push("lint names this row");
          return { text: num(v, v >= 1000 ? 4 : 3), rgb: blend(viridis, high > low ? Math.log(v / low) / Math.log(high / low) : 0.5), mark: marks.has(key), tip: facts.join("\n"), key: key };
        })),
      }, out);
    });
    const first = shown.find((s) => s.g.bundle === 0);
    if (first) for (const s of shown.filter((o) => o.g.bundle > 0)) {
      const z = new Map();
      first.m.rows.forEach((row, r) => first.m.cols.forEach((col, k) => z.set(row + "," + col, first.m.z[r * first.m.cols.length + k])));
      const letter = D.bundles[s.g.bundle].letter;
      maps.push(heat({
        caption: letter + " ÷ A · tp" + s.g.tp, rowName: rowName, colName: colName, rows: s.m.rows, cols: s.m.cols,
        cells: s.m.rows.map((row, r) => s.m.cols.map((col, k) => {
          const mine = s.m.z[r * s.m.cols.length + k], other = z.get(row + "," + col);
          if (!mine || !other) return null;
          const q = mine / other;
          return { text: num(q, 3), rgb: blend(diverging, 0.5 + Math.log2(q) / 4), key: "ratio",
            tip: rowName + " " + row + ", " + colName + " " + col + "\n" + letter + " ÷ A: " + num(q, 4) + "\n" + num(mine, 6) + " and " + num(other, 6) + " µs" };
        })),
      }, out));
    }
    out.replaceChildren(maps.length ? "Point at a cell, or move through a map with the arrow keys." : "");
    const bars = shown.length && isFinite(low) ? [scaleBar(viridis, num(low, 3), num(high, 3) + (least ? "×" : " µs"), first && shown.length > 1 ? "ratios: blue is faster, red slower, white equal" : "")] : [];
    body.replaceChildren(...bars, el("div", { class: "maps" }, ...maps), ...(shown.length ? [] : [el("p", {}, "Not measured at this choice.")]));
  }
  host.reveal = (finding) => {
    tp.select.value = String(finding.tp || tp.select.value);
    const key = (finding.keys || [])[0];
    what.select.value = "us";
    render();
    if (!key) return;
    pc.select.value = String(key[0]);
    render();
    kp.select.value = String(key[1]);
    render();
    const cell = [...host.querySelectorAll("td")].find((td) => td.dataset.key === key.join(",") && td.dataset.bundle === String(finding.bundle));
    if (cell) cell.focus({ preventScroll: true });
  };
  render();
}

// Measured against predicted.
function judged() {
  const host = byId("judged");
  if (!D.judged.length) return;
  const refresh = () => render();
  const name = (j) => j.layer + ", " + j.rules;
  const tp = choice("Degree", unique(D.judged.map((j) => j.tp)).sort((x, y) => x - y).map((v) => [v, "tp" + v]), refresh);
  const what = choice("Layer and rules", unique(D.judged.map(name)).map((n) => [n, n]), refresh);
  const body = el("div", {});
  host.append(el("div", { class: "controls" }, tp.label, what.label), body);
  const kindColors = ["--a", "--b", "--c", "--d", "--roof", "--ring"];
  function render() {
    clear(body);
    const at = D.judged.filter((j) => j.tp === Number(tp.select.value) && name(j) === what.select.value);
    if (!at.length) body.append(el("p", {}, "Nothing to judge at this choice."));
    for (const j of at) {
      const title = (many ? D.bundles[j.bundle].letter + ": " : "") + j.layer + ", " + j.rules + " (" + j.source + ")";
      const order = (j.measured || []).map((_, i) => i).sort((x, y) => j.measured[x] - j.measured[y]);
      const x = order.map((i) => j.measured[i]);
      const series = j.kinds.map((kind, k) => ({ label: kind, color: kindColors[k % kindColors.length], width: 0, y: order.map((i) => (j.kind[i] === k ? j.predicted[i] : null)) }));
      const cloud = el("figure", { class: "judged" }, el("figcaption", {}, title, " ", el("small", {}, "predicted over measured" + (x.length < j.n ? ", " + x.length + " of " + j.n : ""))));
      const pair = el("div", { class: "pair" }, cloud);
      body.append(pair);
      cloud.append(el("ul", { class: "legend" }, ...series.map((s) => { const i = el("span", {}, "○ "); i.style.color = "var(" + s.color + ")"; return el("li", {}, i, s.label); })));
      const error = (i) => 100 * (j.predicted[i] / j.measured[i] - 1);
      draw(cloud, {
        label: title + ", predicted over measured", x: x, series: series, cloud: true, xLog: true, yLog: true, xLabel: "measured, µs", yLabel: "predicted, µs", height: 280,
        over: (u) => { // equal
          const c = u.ctx, low = Math.max(u.scales.x.min, u.scales.y.min), high = Math.min(u.scales.x.max, u.scales.y.max);
          if (!(high > low)) return;
          c.save(); c.strokeStyle = css("--muted"); c.lineWidth = devicePixelRatio; c.setLineDash([4 * devicePixelRatio, 4 * devicePixelRatio]); c.beginPath();
          c.moveTo(u.valToPos(low, "x", true), u.valToPos(low, "y", true)); c.lineTo(u.valToPos(high, "x", true), u.valToPos(high, "y", true)); c.stroke(); c.restore();
        },
        read: (n) => { const i = order[n]; return [j.kinds[j.kind[i]] + ": measured ", b(num(j.measured[i], 5) + " µs"), ", predicted ", b(num(j.predicted[i], 5) + " µs"), " (" + percent(error(i)) + "); " + j.shapes[i]]; },
        table: () => ({ columns: ["kind", "batch", "measured, µs", "predicted, µs", "error, %"], rows: order.slice().sort((p, q) => Math.abs(error(q)) - Math.abs(error(p))).map((i) => [j.kinds[j.kind[i]], j.shapes[i], j.measured[i], j.predicted[i], error(i)]) }),
      });
      const bins = (j.histogram || []).map((_, i) => Number((j.bin_low + (i + 0.5) * j.bin_width).toPrecision(6)));
      const label = (i) => (i === 0 ? "below " + num(j.bin_low + j.bin_width) + "%" : i === bins.length - 1 ? num(j.bin_low + i * j.bin_width) + "% and more" : num(j.bin_low + i * j.bin_width) + "% to " + num(j.bin_low + (i + 1) * j.bin_width) + "%");
      const hist = el("figure", { class: "judged" }, el("figcaption", {}, title, " ", el("small", {}, "signed error of all " + j.n)));
      pair.append(hist);
      draw(hist, {
        label: title + ", distribution of the error", x: bins, series: [{ label: "share", color: colors[j.bundle], width: 0, y: (j.histogram || []).map((n) => (100 * n) / j.n) }], bars: true, zero: true,
        xLabel: "predicted ÷ measured − 1, %", yLabel: "share, %", height: 280,
        read: (i) => [label(i) + ": ", b(j.histogram[i] + " of " + j.n), " (" + num((100 * j.histogram[i]) / j.n, 3) + "%)"],
        table: () => ({ columns: ["error", "count", "share, %"], rows: bins.map((_, i) => [label(i), j.histogram[i], (100 * j.histogram[i]) / j.n]) }),
      });
    }
  }
  render();
}

// Alpha by bucket.
function alphas() {
  const host = byId("alphas"), list = D.alphas;
  if (!list.length) { host.append(el("p", {}, "No bundle here holds skew_fit.csv: heterogeneous decodes are looked up without an alpha of their own.")); return; }
  const refresh = () => render();
  const tp = choice("Degree", unique(list.map((a) => a.tp)).sort((x, y) => x - y).map((v) => [v, "tp" + v]), refresh);
  const pc = choice("Prefill chunk", [], refresh), kp = choice("history of the prefill", [], refresh);
  const out = el("output", { "aria-live": "polite" }), body = el("div", {});
  host.append(el("div", { class: "controls" }, tp.label, pc.label, kp.label), body, out);
  function render() {
    const at = list.filter((a) => a.tp === Number(tp.select.value));
    pc.select.setOptions(unique(at.flatMap((a) => a.pcs)).sort((x, y) => x - y).map((v) => [v, v === 0 ? "0, decode only" : v]));
    const held = at.map((a) => ({ a: a, of: (a.buckets || []).map((q, i) => [q, i]).filter(([q]) => a.pcs[q[0]] === Number(pc.select.value)) }));
    kp.select.setOptions(unique(held.flatMap((h) => h.of.map(([q]) => h.a.kps[q[1]]))).map((v) => [v, v]));
    const maps = held.map(({ a, of }) => {
      const here = of.filter(([q]) => a.kps[q[1]] === kp.select.value);
      if (!here.length) return null;
      const by = new Map(here.map(([q, i]) => [q.slice(2).join(","), i])), marks = new Set(a.marks || []);
      const rows = a.ns.map((_, n) => n).filter((n) => here.some(([q]) => q[2] === n));
      const cols = [];
      a.rates.forEach((_, r) => a.kvs.forEach((_, v) => { if (here.some(([q]) => q[3] === r && q[4] === v)) cols.push([r, v]); }));
      const groups = [];
      for (const [r] of cols) { const last = groups[groups.length - 1]; if (last && last.r === r) last.n++; else groups.push({ r: r, n: 1, text: a.rates[r] }); }
      return heat({
        caption: who(a) + ", elsewhere alpha " + num(a.default), rowName: "decodes", colName: "longest history, by skew rate", rows: rows.map((n) => a.ns[n]), cols: cols.map(([, v]) => a.kvs[v]), groups: groups, bundle: a.bundle,
        cells: rows.map((n) => cols.map(([r, v]) => {
          const i = by.get([n, r, v].join(","));
          if (i === undefined) return null;
          const alpha = a.alphas[i];
          return { text: num(alpha, 3), rgb: blend(diverging, (alpha + 1) / 2), mark: marks.has(i), key: "alpha",
            tip: [a.ns[n], a.rates[r], a.kvs[v], kp.select.value].join(", ") + "\nalpha " + num(alpha, 6) + "\n" + a.samples[i] + " rows of skew.csv" + (marks.has(i) ? "\nlint names this bucket" : "") };
        })),
      }, out);
    }).filter(Boolean);
    out.replaceChildren("Point at a bucket, or move through a map with the arrow keys.");
    body.replaceChildren(scaleBar(diverging, "−1", "1", "white: 0, the time at the mean length"), el("div", { class: "maps" }, ...maps));
  }
  host.reveal = (finding) => {
    const a = list.find((o) => o.bundle === finding.bundle && finding.plot === "tp" + o.tp + "-skew_fit");
    if (!a) return;
    tp.select.value = String(a.tp);
    render();
    const i = (a.marks || [])[0];
    if (i === undefined) return;
    pc.select.value = String(a.pcs[a.buckets[i][0]]);
    render();
    kp.select.value = a.kps[a.buckets[i][1]];
    render();
    const cell = host.querySelector("td.mark[data-bundle='" + finding.bundle + "']");
    if (cell) cell.focus({ preventScroll: true });
  };
  render();
}
function skews() {
  const host = byId("skews");
  if (!D.skews.length) { host.append(el("p", {}, "No bundle here holds skew.csv.")); return; }
  const body = el("div", { class: "figures" });
  host.append(body);
  for (const s of D.skews) {
    const order = s.lines.map((_, i) => i).sort((x, y) => s.tokens[x] - s.tokens[y]), marks = new Set(s.marks || []);
    const x = order.map((i) => Math.max(1, s.tokens[i]));
    const series = ["without a prefill", "beside a prefill"].map((label, mixed) => ({
      label: label, color: mixed ? "--b" : "--a", width: 0, y: order.map((i) => (s.mixed[i] === mixed ? s.ratio[i] : null)),
      marks: order.map((i, n) => (marks.has(i) && s.mixed[i] === mixed ? n : -1)).filter((n) => n >= 0),
    })).filter((l) => l.y.some((v) => v !== null));
    const figure = el("figure", { class: "skew" }, el("figcaption", {}, who(s), " ", el("small", {}, "t_max ÷ t_mean" + (s.lines.length < s.rows ? ", " + s.lines.length + " of " + s.rows + " cases" : ", " + s.rows + " cases"))));
    body.append(figure);
    figure.append(el("ul", { class: "legend" }, ...series.map((l) => { const i = el("span", {}, "○ "); i.style.color = "var(" + l.color + ")"; return el("li", {}, i, l.label); })));
    draw(figure, {
      label: who(s) + ", t_max over t_mean", x: x, series: series, cloud: true, xLog: true, yLog: false, xLabel: "decodes × mean history, tokens", yLabel: "t_max ÷ t_mean", height: 260,
      read: (n) => { const i = order[n]; return ["line " + s.lines[i] + ": " + s.tokens[i] + " tokens, t_mean ", b(num(s.mean[i], 5) + " µs"), " as in the file, t_max ", b(num(s.ratio[i], 4) + " times that")]; },
      table: () => ({ columns: ["line of skew.csv", "beside a prefill", "tokens", "t_mean_us", "t_max ÷ t_mean"], rows: order.map((i) => [s.lines[i], s.mixed[i] ? "yes" : "no", s.tokens[i], s.mean[i], s.ratio[i]]) }),
    });
  }
}

// Whole steps, the modes of a bundle in one plot.
const modeColors = { graph_sync: "--a", graph_async: "--b", eager_sync: "--c", eager_async: "--d" };
function steps() {
  const host = byId("stepplots");
  if (!host) return;
  const groups = new Map();
  for (const s of D.steps) {
    const key = [s.bundle, s.tp, s.depth].join(" ");
    groups.set(key, (groups.get(key) || []).concat(s));
  }
  const legend = (modes, mark, more) => el("ul", { class: "legend" }, ...modes.map((mode) => { const i = el("span", {}, mark); i.style.color = "var(" + modeColors[mode] + ")"; return el("li", {}, i, mode); }), ...(more ? [el("li", {}, more)] : []));
  for (const list of groups.values()) {
    const body = el("div", { class: "pair" });
    host.append(body);
    const name = who(list[0]) + ", " + list[0].depth + " layers";
    decodeSteps(body, list.filter((s) => (s.decodes || []).length), name, legend);
    prefillSteps(body, list.filter((s) => (s.lines || []).length), name, legend);
  }
}
function decodeSteps(body, list, name, legend) {
  if (!list.length) return;
  const x = unionX(list.map((s) => s.decodes)), sizes = unique(list.flatMap((s) => s.sizes || [])).sort((p, q) => p - q);
  const at = list.map((s) => new Map(s.decodes.map((n, i) => [n, i])));
  const pick = (k, key) => x.map((n) => (at[k].has(n) ? list[k][key][at[k].get(n)] : null));
  const forward = list.some((s) => s.forward_us.some((v) => v !== null));
  const series = list.flatMap((s, k) => [{ label: s.mode, color: modeColors[s.mode], y: pick(k, "us"), points: false, marks: x.map((n, i) => ((s.marks || []).includes(at[k].get(n)) ? i : -1)).filter((i) => i >= 0) }]
    .concat(forward ? [{ label: s.mode + " forward", color: modeColors[s.mode], y: pick(k, "forward_us"), dash: [4, 3], width: 1, points: false }] : []));
  const figure = el("figure", { class: "steps" }, el("figcaption", {}, name + ": decodes ", el("small", {}, "the median step" + (forward ? "; dashed, the device's forward" : ""))));
  body.append(figure);
  figure.append(legend(list.map((s) => s.mode), "━ "));
  const spread = (k, i) => { const j = at[k].get(x[i]); return j === undefined ? "" : " (" + num(list[k].low_us[j], 4) + "…" + num(list[k].high_us[j], 4) + ")"; };
  draw(figure, {
    label: name + ", time of a decode step over the number of decodes", x: x, series: series, xLabel: "n_decode", yLabel: "µs", yLog: true, height: 280,
    over: (u) => { // captured sizes
      const c = u.ctx, bottom = u.bbox.top + u.bbox.height;
      c.save(); c.strokeStyle = css("--muted"); c.lineWidth = devicePixelRatio; c.setLineDash([]); c.beginPath();
      for (const n of sizes) {
        if (n < u.scales.x.min || n > u.scales.x.max) continue;
        const left = u.valToPos(n, "x", true);
        c.moveTo(left, bottom); c.lineTo(left, bottom - 8 * devicePixelRatio);
      }
      c.stroke(); c.restore();
    },
    read: (i) => [b("n_decode " + x[i]), ": "].concat(joined(list.map((s, k) => [k, at[k].get(x[i])]).filter(([k, j]) => j !== undefined).map(([k, j]) => [list[k].mode + " ", b(num(list[k].us[j], 5) + " µs"), spread(k, i) + (list[k].forward_us[j] === null ? "" : ", forward " + num(list[k].forward_us[j], 5) + " µs")]))),
    table: () => ({
      columns: ["n_decode"].concat(list.flatMap((s) => [s.mode + ", µs", "p10", "p90", "forward, µs", "steps"])),
      rows: x.map((n) => [n].concat(list.flatMap((s, k) => { const j = at[k].get(n); return j === undefined ? [null, null, null, null, null] : [s.us[j], s.low_us[j], s.high_us[j], s.forward_us[j], s.counts[j]]; }))),
    }),
  });
}
function prefillSteps(body, list, name, legend) {
  if (!list.length) return;
  const points = list.flatMap((s, k) => s.lines.map((_, i) => [k, i])).filter(([k, i]) => list[k].prefill_us[i] !== null).sort((p, q) => list[p[0]].tokens[p[1]] - list[q[0]].tokens[q[1]]);
  if (!points.length) return;
  const series = list.map((s, k) => ({
    label: s.mode, color: modeColors[s.mode], width: 0, y: points.map(([p, i]) => (p === k ? s.prefill_us[i] : null)),
    marks: points.map(([p, i], n) => (p === k && (s.prefill_marks || []).includes(i) ? n : -1)).filter((n) => n >= 0),
  }));
  const figure = el("figure", { class: "steps" }, el("figcaption", {}, name + ": with a prefill ", el("small", {}, points.length + " rows")));
  body.append(figure);
  figure.append(legend(list.map((s) => s.mode), "○ "));
  draw(figure, {
    label: name + ", time of a step with a prefill over its tokens", x: points.map(([k, i]) => Math.max(1, list[k].tokens[i])), series: series, cloud: true, xLog: true, yLog: true, xLabel: "tokens of the step", yLabel: "µs", height: 280,
    read: (n) => { const [k, i] = points[n], s = list[k]; return [s.mode + ", line " + s.lines[i] + ": " + s.tokens[i] + " tokens, " + s.beside[i] + " decodes beside, ", b(num(s.prefill_us[i], 5) + " µs"), s.prefill_forward_us[i] === null ? "" : ", forward " + num(s.prefill_forward_us[i], 5) + " µs"]; },
    table: () => ({ columns: ["mode", "line of step.csv", "tokens", "decodes", "step, µs", "forward, µs"], rows: points.map(([k, i]) => { const s = list[k]; return [s.mode, s.lines[i], s.tokens[i], s.beside[i], s.prefill_us[i], s.prefill_forward_us[i]]; }) }),
  });
}

// Anchors over the run.
function drifts() {
  const host = byId("drifts");
  const body = el("div", { class: "figures" });
  D.bundles.forEach((bundle, n) => {
    const list = D.drifts.filter((d) => d.bundle === n);
    if (!list.length) return;
    const points = list.flatMap((d, k) => d.minutes.map((t, i) => [t, k, i])).sort((p, q) => p[0] - q[0]);
    const series = list.map((d, k) => ({ label: "tp" + d.tp + " " + d.shape, color: colors.concat(["--roof", "--ring"])[k % 6], width: 1, y: points.map((p) => (p[1] === k ? d.percent[p[2]] : null)) }));
    const figure = el("figure", { class: "drift" }, el("figcaption", {}, (many ? bundle.letter + ": " : "") + "anchors ", el("small", {}, "against their median")));
    body.append(figure);
    figure.append(el("ul", { class: "legend" }, ...series.map((s) => { const i = el("span", {}, "● "); i.style.color = "var(" + s.color + ")"; return el("li", {}, i, s.label); })));
    draw(figure, {
      label: "anchors over the run", x: points.map((p) => p[0]), series: series, xLabel: "minutes since the first", yLabel: "%", height: 260,
      read: (i) => { const [t, k, j] = points[i], d = list[k]; return ["tp" + d.tp + " " + d.shape + " at " + num(t) + " min: ", b(percent(d.percent[j])), " (" + num(d.us[j], 5) + " µs)" + (d.clock_mhz[j] ? ", " + d.clock_mhz[j] + " MHz" : "") + (d.temperature_c[j] ? ", " + d.temperature_c[j] + " °C" : "")]; },
      table: () => ({ columns: ["minutes", "tp", "anchor", "µs", "of the median, %", "SM clock, MHz", "°C"], rows: points.map(([t, k, j]) => { const d = list[k]; return [t, d.tp, d.shape, d.us[j], d.percent[j], d.clock_mhz[j], d.temperature_c[j]]; }) }),
    });
  });
  if (body.childElementCount) host.append(body);
}

// A finding's link shows its rows.
function links() {
  document.querySelectorAll("a.show").forEach((a) => a.addEventListener("click", (event) => {
    const finding = D.findings.find((f) => f.id === a.dataset.finding);
    document.querySelectorAll(".hit").forEach((e) => e.classList.remove("hit"));
    const target = byId(finding.plot);
    if (!target) return;
    const figure = target.closest("figure");
    if (figure) figure.classList.add("hit");
    const kind = /^tp\d+-(attention|moe|skew_fit)$/.exec(finding.plot);
    if (!kind) return;
    const host = kind[1] === "skew_fit" ? byId("alphas") : document.querySelector(".grids[data-kind=" + kind[1] + "]");
    if (!host || !host.reveal) return;
    // Following the link would take the focus from the row.
    event.preventDefault();
    history.pushState(null, "", "#" + finding.plot);
    host.closest("section").scrollIntoView();
    host.reveal(finding);
  }));
}
function themes() {
  const select = byId("theme");
  const again = () => requestAnimationFrame(() => plots.forEach((p) => p.redraw()));
  select.addEventListener("change", () => {
    if (select.value) document.documentElement.dataset.theme = select.value; else delete document.documentElement.dataset.theme;
    again();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
}
function where() {
  const nav = new Map([...document.querySelectorAll("nav a")].map((a) => [a.getAttribute("href").slice(1), a]));
  const seen = new IntersectionObserver((entries) => entries.forEach((e) => {
    const a = nav.get(e.target.id);
    if (!a || !e.isIntersecting) return;
    nav.forEach((o) => o.removeAttribute("aria-current"));
    a.setAttribute("aria-current", "true");
  }), { rootMargin: "-20% 0px -75% 0px" });
  document.querySelectorAll("main > section").forEach((s) => seen.observe(s));
}

curves();
document.querySelectorAll(".grids").forEach(grids);
judged();
alphas();
skews();
steps();
drifts();
links();
themes();
where();
document.documentElement.dataset.ready = "true";
})();
