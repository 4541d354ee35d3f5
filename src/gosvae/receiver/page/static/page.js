"use strict";
// Fetches the state of the receiver four times a second and draws it. Text is always set as text, never as markup.
const PERIOD_MS = 250;
const STAGES = [
  ["queue_ms", "queue", "#94a3b8"], ["entropy_ms", "entropy decoding", "#f59e0b"],
  ["reconstruct_ms", "decoder", "#38bdf8"], ["expert_ms", "expert", "#2dd4bf"], ["answer_ms", "answer", "#a78bfa"],
];
const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);
const put = (id, text) => { byId(id).textContent = text; };
const number = (value, digits) => value === null || value === undefined ? "–" : value.toFixed(digits);
const percent = (share) => share === null ? "–" : share > 0 && share < 0.0005 ? "< 0.1 %" : `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;
const age = (seconds) => seconds < 120 ? `${seconds.toFixed(0)} s` : `${(seconds / 60).toFixed(0)} min`;
const OLD_S = 3;
let frameNote = "", selected = null, shown = null, classes = [], classPixels = null, layers = null;

function element(tag, text, ...children) {
  const node = document.createElement(tag);
  if (text !== null) node.textContent = text;
  node.append(...children);
  return node;
}

function vector(tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

function swatch(colour) {
  const icon = vector("svg", { viewBox: "0 0 10 10" });
  icon.append(vector("rect", { width: 10, height: 10, rx: 2.5, fill: colour }));
  return icon;
}

function drawCurve(id, values) {
  const svg = byId(id), known = values.filter((v) => v !== null);
  svg.replaceChildren();
  svg.setAttribute("viewBox", "0 0 100 30");
  if (known.length < 2) return;
  const top = 1.15 * Math.max(...known) || 1;
  const points = values.map((v, n) => v === null ? null : `${(100 * n / (values.length - 1)).toFixed(2)} ${(30 - 28 * v / top).toFixed(2)}`).filter(Boolean);
  svg.append(vector("path", { class: "area", d: `M ${points[0].split(" ")[0]} 30 L ${points.join(" L ")} L ${points[points.length - 1].split(" ")[0]} 30 Z` }));
  svg.append(vector("path", { d: `M ${points.join(" L ")}` }));
}

function drawLosses(id, lost) {
  const svg = byId(id), width = 100 / Math.max(lost.length, 1);
  svg.replaceChildren();
  svg.setAttribute("viewBox", "0 0 100 30");
  const kinds = [["", 24], ["concealed", 14], ["lost", 2]];
  lost.forEach((kind, n) => svg.append(vector("rect", { class: kinds[kind][0], x: n * width, width: 0.7 * width, y: kinds[kind][1], height: 30 - kinds[kind][1] })));
}

function showCards(sender, detail) {
  const series = detail.series;
  put("fps", number(sender.fps, 1));
  const again = sender.streams > 1 ? `, ${sender.streams} connections` : "";
  put("fps-note", `${sender.frames.toLocaleString("en")} frames from ${sender.name}${again}${sender.standing === "live" ? "" : `: ${sender.standing_text}`}`);
  put("kib", number(sender.kib, 2));
  put("kib-note", `${number(sender.kbps, 1)} kbit/s`);
  put("latency", number(sender.latency_ms, 0));
  put("latency-note", sender.round_trip_ms ? `${number(sender.round_trip_ms, 0)} ms from sender to answer` : "median of the last 10 s");
  put("loss", percent(sender.dropped_share));
  const dropped = Object.entries(detail.dropped).map(([reason, count]) => `${count.toLocaleString("en")} ${reason}`).join(", ");
  const notes = sender.packet_loss === null ? [] : [`${percent(sender.packet_loss)} of packets lost, ${percent(detail.concealed)} of the picture concealed`];
  if (dropped) notes.push(`since the start: ${dropped}`);
  else if (sender.frames) notes.push("every frame was answered");
  put("loss-note", notes.join("; ") || "no frame yet");
  byId("loss-note").title = notes.join("; ");
  drawCurve("fps-curve", series.fps);
  drawCurve("kib-curve", series.kib);
  drawCurve("latency-curve", series.latency_ms);
  drawLosses("loss-curve", series.lost);
}

function showLegend(shares) {
  byId("legend").replaceChildren(...classes.map((c, n) => {
    const bar = element("progress", null);
    bar.max = 1; bar.value = shares ? shares[n] : 0;
    return element("li", null, swatch(c.colour), element("span", c.name), bar, element("span", shares ? percent(shares[n]) : "–"));
  }));
}

function showStages(stages) {
  const total = STAGES.reduce((sum, [key]) => sum + stages[key], 0) || 1;
  const svg = vector("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none" });
  let x = 0;
  for (const [key, , colour] of STAGES) {
    svg.append(vector("rect", { x, width: 100 * stages[key] / total, height: 10, fill: colour }));
    x += 100 * stages[key] / total;
  }
  byId("stages").replaceChildren(svg);
  byId("stage-legend").replaceChildren(...STAGES.map(([key, name, colour]) =>
    element("li", null, swatch(colour), element("span", name), element("span", `${stages[key].toFixed(1)} ms`))));
}

function showCounters(engine) {
  const rows = [["received", engine.received], ["answered", engine.answered], ["waiting", engine.waiting],
    ...Object.entries(engine.dropped).map(([reason, count]) => [`dropped: ${reason}`, count])];
  byId("counters").replaceChildren(...rows.flatMap(([name, count]) => [element("dt", name), element("dd", count.toLocaleString("en"))]));
}

function showSenders(senders) {
  byId("senders").replaceChildren(...senders.map((s) => {
    const loss = s.packet_loss === null ? percent(s.dropped_share) : `${percent(s.dropped_share)}, packets ${percent(s.packet_loss)}`;
    const row = element("tr", null, ...[s.name, s.standing_short, s.transport, number(s.fps, 1), number(s.kbps, 0), percent(s.unchanged), number(s.distance, 1), loss, number(s.latency_ms, 0)].map((t) => element("td", t)));
    row.className = s.standing;
    row.title = s.standing_text;
    row.tabIndex = 0;
    row.setAttribute("aria-selected", s.id === selected);
    row.onclick = () => { selected = s.id; shown = null; };
    row.onkeydown = (event) => { if (event.key === "Enter") row.onclick(); };
    return row;
  }));
}

async function picture(kind, id, frame, expert = "") {
  const response = await fetch(`picture/${kind}?sender=${encodeURIComponent(id)}&frame=${frame}&expert=${encodeURIComponent(expert)}`);
  return response.ok ? createImageBitmap(await response.blob()) : null;
}

function fit(canvas, width, height) {
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width; canvas.height = height;
    canvas.style.aspectRatio = `${width} / ${height}`;
  }
  return canvas.getContext("2d");
}

// The figure of the n-th expert beside the class map, made when it is first needed.
function resultFigure(n) {
  const known = byId(`result-${n}`);
  if (known) return known;
  const figure = element("figure", null, element("canvas", null), element("figcaption", null, element("span", ""), element("small", "")));
  figure.id = `result-${n}`;
  byId("pictures").insertBefore(figure, byId("empty"));
  return figure;
}

function drawLayers() {
  if (!layers) return;
  const { image, map, hidden, original, results } = layers;
  fit(byId("reconstruction"), image.width, image.height).drawImage(image, 0, 0);
  const overlay = fit(byId("overlay"), image.width, image.height);
  overlay.globalAlpha = 1;
  overlay.drawImage(image, 0, 0);
  overlay.globalAlpha = byId("opacity").value / 100;
  if (map) overlay.drawImage(map, 0, 0);
  overlay.globalAlpha = 1;
  byId("overlay-figure").hidden = !map;
  if (hidden) {
    const context = byId("reconstruction").getContext("2d");
    context.globalAlpha = 0.35;
    context.drawImage(hidden, 0, 0);
    context.globalAlpha = 1;
  }
  byId("original-figure").hidden = !original;
  results.forEach((drawn, n) => { if (drawn) fit(resultFigure(n).querySelector("canvas"), drawn.width, drawn.height).drawImage(drawn, 0, 0); });
  if (original) fit(byId("original"), original.width, original.height).drawImage(original, 0, 0);
}

async function showPicture(id, p) {
  if (shown === `${id}/${p.number}`) return;
  const [image, map, hidden, original, ...results] = await Promise.all([
    picture("reconstruction", id, p.number), p.shares ? picture("classes", id, p.number) : null,
    p.concealed ? picture("concealed", id, p.number) : null, p.original ? picture("original", id, p.number) : null,
    ...p.results.map((r) => picture("result", id, p.number, r.expert)),
  ]);
  if (!image || (p.shares && !map)) return;
  shown = `${id}/${p.number}`;
  layers = { image, map, hidden, original, results };
  p.results.forEach((r, n) => {
    const caption = resultFigure(n).querySelector("figcaption");
    caption.children[0].textContent = `${r.expert}, ${r.task}`;
    caption.children[1].textContent = caption.title = r.text;
  });
  classPixels = map && new OffscreenCanvas(map.width, map.height).getContext("2d", { willReadFrequently: true });
  if (map) classPixels.drawImage(map, 0, 0);
  drawLayers();
  frameNote = `frame ${p.number.toLocaleString("en")} · ${p.width}×${p.height} · ${p.kib.toFixed(2)} KiB`;
}

function pointAtClass(event) {
  const canvas = byId("overlay");
  if (!classPixels) return;
  const x = Math.floor(event.offsetX * canvas.width / canvas.clientWidth), y = Math.floor(event.offsetY * canvas.height / canvas.clientHeight);
  const rgb = classPixels.getImageData(x, y, 1, 1).data;
  const colour = `#${[rgb[0], rgb[1], rgb[2]].map((v) => v.toString(16).padStart(2, "0")).join("")}`;
  const index = classes.findIndex((c) => c.colour === colour);
  [...byId("legend").children].forEach((row, n) => row.classList.toggle("pointed", n === index));
  canvas.title = index < 0 ? "" : classes[index].name;
}

async function update() {
  const response = await fetch(selected === null ? "state" : `state?sender=${encodeURIComponent(selected)}`);
  if (!response.ok) throw new Error(`${response.status}`);
  const state = await response.json(), detail = state.selected;
  put("codec", state.codec);
  put("expert", state.expert);
  classes = state.classes;
  byId("status").dataset.state = state.status.state;
  put("status-text", state.status.text);
  document.title = `gosvae: ${state.status.text}`;
  showCounters(state.engine);
  const seen = detail !== null && detail.picture !== null;
  for (const figure of document.querySelectorAll("figure")) if (!seen || !["original-figure", "overlay-figure"].includes(figure.id)) figure.hidden = !seen;
  byId("empty").hidden = seen;
  byId("start").hidden = detail !== null;
  put("empty-text", detail === null ? "No sender yet." : detail.note);
  if (detail === null) {
    for (const id of ["fps", "kib", "latency", "loss", "fps-note", "kib-note", "latency-note", "loss-note"]) put(id, "–");
    for (const id of ["fps-curve", "kib-curve", "latency-curve", "loss-curve"]) byId(id).replaceChildren();
  } else {
    selected = detail.id;
    showCards(state.senders.find((s) => s.id === detail.id), detail);
  }
  if (seen) {
    showStages(detail.picture.stages);
    await showPicture(detail.id, detail.picture);
    const old = detail.picture.age_s > OLD_S;
    byId("pictures").classList.toggle("old", old);
    put("frame-note", old ? `${frameNote} · ${age(detail.picture.age_s)} ago` : frameNote);
  } else {
    byId("stages").replaceChildren();
    byId("stage-legend").replaceChildren(element("li", null, element("span", ""), element("span", "no frame was decoded")));
    shown = layers = classPixels = null;
  }
  byId("classes").hidden = !classes.length;
  showLegend(detail && detail.picture ? detail.picture.shares : null);
  showSenders(state.senders);
  document.body.dataset.lost = "no";
  document.body.dataset.ready = detail && detail.picture ? "yes" : "no";
}

async function loop() {
  try {
    await update();
  } catch {
    byId("status").dataset.state = "gone";
    put("status-text", "the receiver is not responding; what is below is old");
    document.body.dataset.lost = "yes";
  }
  setTimeout(loop, document.hidden ? 2000 : PERIOD_MS);
}

byId("opacity").oninput = drawLayers;
byId("overlay").onmousemove = pointAtClass;
byId("overlay").onmouseleave = () => { for (const row of byId("legend").children) row.classList.remove("pointed"); };
loop();
