"use strict";
// The case viewer. All state is the frame that is shown, and what is drawn over it.
const data = JSON.parse(document.getElementById("data").textContent);
const perSweep = data.frames / data.directions.length;
const truth = data.truth;
const byId = id => document.getElementById(id);
const showing = { mask: true, ellipse: true, truth: true, beside: window.innerWidth > 700 };
const canvases = [byId("frame"), byId("true")].filter(Boolean);
let current = -1, painting = null, playing = null;

const sweepOf = frame => Math.floor(frame / perSweep);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const three = value => value.toFixed(3);

// ---- frames: strips of them, decoded when the first of their frames is wanted

const strips = Array.from(document.querySelectorAll("script.strip"));
// Of about 7 MB each when decoded: 12 are 85 MB.
const KEPT_STRIPS = 12;
const decoded = new Map();

function strip(number) {
  if (!(number in strips)) return null;
  let bitmap = decoded.get(number);
  if (bitmap) decoded.delete(number);
  else {
    const bytes = Uint8Array.from(atob(strips[number].textContent), letter => letter.charCodeAt(0));
    bitmap = createImageBitmap(new Blob([bytes], { type: "image/webp" }));
  }
  decoded.set(number, bitmap); // The last in the map is the last that was used.
  if (decoded.size > KEPT_STRIPS) {
    const [oldest, old] = decoded.entries().next().value;
    decoded.delete(oldest);
    old.then(picture => picture.close());
  }
  return bitmap;
}

async function draw(frame) {
  const number = Math.floor(frame / data.strips.frames);
  const bitmap = await strip(number);
  if (frame !== current) return; // Another one was asked for meanwhile.
  canvases.forEach((canvas, k) => paint(canvas, bitmap, frame, k === 1));
  strip(number + 1);
  strip(number - 1);
}

function paint(canvas, bitmap, frame, isTrue) {
  if (!canvas.clientWidth) return;
  const scale = Math.min(window.devicePixelRatio || 1, 2);
  const width = Math.round(canvas.clientWidth * scale);
  const { width: w, height: h } = data.strips;
  const height = Math.round(width * h / w);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(bitmap, 0, frame % data.strips.frames * h, w, h, 0, 0, width, height);
  const px = width / 744;
  const outline = data.outlines[frame];
  const trueLines = truth && truth.outlines[frame];
  if (outline && !isTrue && showing.mask) stroke(pen, polygons(outline.mask, px), "--predicted", 2.2 * scale, []);
  if (outline && !isTrue && showing.ellipse) stroke(pen, ellipse(outline.ellipse, px), "#fff", 1.6 * scale, [7 * scale, 5 * scale]);
  if (trueLines && showing.truth && (isTrue || !showing.beside)) stroke(pen, polygons(trueLines, px), "--true", 3 * scale, [0.1, 6.5 * scale]);
  canvas.dataset.shown = frame;
}

function polygons(lines, px) {
  const path = new Path2D();
  for (const line of lines) {
    for (let k = 0; k < line.length; k += 2) {
      path[k ? "lineTo" : "moveTo"]((line[k] + 0.5) * px, (line[k + 1] + 0.5) * px);
    }
    path.closePath();
  }
  return path;
}

function ellipse([x, y, major, minor, degrees], px) {
  const path = new Path2D();
  path.ellipse((x + 0.5) * px, (y + 0.5) * px, major * px, minor * px, degrees * Math.PI / 180, 0, 2 * Math.PI);
  return path;
}

function stroke(pen, path, colour, width, dash) {
  pen.save();
  pen.lineCap = pen.lineJoin = "round";
  pen.setLineDash(dash);
  for (const [style, thickness] of [["rgb(0 0 0 / .75)", width + 2.5], [colour, width]]) {
    pen.strokeStyle = style.startsWith("--") ? getComputedStyle(document.documentElement).getPropertyValue(style) : style;
    pen.lineWidth = thickness;
    pen.stroke(path);
  }
  pen.restore();
}

// ---- what is said of the frame

const partNames = { annotated: "annotated", optimal: "optimal, if annotated", reference: "sweep has a reference", readable: "AC can be read" };
const termNames = { ac: "AC", frame: "frame", mask: "mask" };

function tell(frame) {
  const sweep = sweepOf(frame), place = frame % perSweep;
  const name = `sweep ${sweep + 1}, ${data.directions[sweep]}`;
  byId("where").textContent = `Frame ${frame}` + (frame === data.chosen ? " – chosen" : "");
  byId("place").textContent = `frame ${frame} · ${name} · ${place + 1} of ${perSweep}`;
  byId("position").value = frame;
  byId("position").setAttribute("aria-valuetext", `frame ${frame}, ${name}, expected score ${three(data.scores[frame])}`);
  byId("expected").textContent = three(data.scores[frame]);
  byId("bar").innerHTML = Object.keys(data.terms).map(term =>
    `<i style="width:${100 * data.terms[term][frame]}%;background:var(--term-${term})"></i>`).join("");
  byId("figures").innerHTML = figures(frame);
  if (truth) byId("nearest").innerHTML = annotation(frame);
  for (const row of document.querySelectorAll("tr[data-frame]")) row.classList.toggle("current", Number(row.dataset.frame) === frame);
}

function figures(frame) {
  const rows = Object.entries(termNames).map(([term, name]) =>
    [`<i class="swatch ${term}"></i>${name}'s part`, three(data.terms[term][frame])]);
  rows.push(null, ...Object.entries(partNames).map(([part, name]) => [`P(${name})`, data.parts[part][frame].toFixed(2)]), null);
  const outline = data.outlines[frame];
  rows.push(["AC of this outline", outline ? `${outline.ac.toFixed(1)} mm` : "no outline"]);
  if (truth) {
    const reference = truth.references[sweepOf(frame)];
    rows.push(["reference of the sweep", reference === null ? "none" : `${reference.toFixed(1)} mm`]);
    rows.push(["<b>score by the truth</b>", `<b>${three(truth.scores[frame])}</b>`]);
  }
  return `<dl>${rows.map(row => row ? `<dt>${row[0]}</dt><dd>${row[1]}</dd>` : "</dl><dl>").join("")}</dl>`;
}

function annotation(frame) {
  if (truth.quality[frame]) return truth.words[truth.quality[frame]];
  const inSweep = annotated.filter(other => sweepOf(other) === sweepOf(frame));
  if (!inSweep.length) return "nothing is annotated in this sweep";
  const nearest = inSweep.reduce((a, b) => Math.abs(b - frame) < Math.abs(a - frame) ? b : a);
  return `not annotated; nearest is <button type="button" data-go="${nearest}">frame ${nearest}</button>`;
}

const annotated = truth ? truth.quality.flatMap((quality, frame) => quality ? [frame] : []) : [];

// ---- charts: SVG, drawn anew where their width or their sweep changes; the cursor alone moves

const svg = (width, height, inside) => `<svg viewBox="0 0 ${width} ${height}" width="${width}" height="${height}">${inside}</svg>`;
const text = (x, y, words, more = "") => `<text x="${x}" y="${y}" ${more}>${words}</text>`;
const rect = (x, y, w, h, more) => `<rect x="${x}" y="${y}" width="${w}" height="${h}" ${more}/>`;
const rule = (x1, y1, x2, y2, more) => `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" ${more}/>`;
const marker = x => `<path d="M${x - 6} 0H${x + 6}L${x} 9Z" fill="var(--chosen)"/>`;

function points(values, range, x, y) {
  return range.map(frame => `${x(frame).toFixed(1)} ${y(values[frame]).toFixed(1)}`).join("L");
}

function area(lower, upper, range, x, y, more) {
  const back = range.slice().reverse();
  return `<path d="M${points(upper, range, x, y)}L${points(lower, back, x, y)}Z" ${more}/>`;
}

// Runs of annotated frames in a range, as coloured or hatched bars.
function annotations(range, x, step, y, height) {
  if (!truth) return "";
  const fill = ["", "url(#hatch)", "var(--optimal)"];
  return range.filter(frame => truth.quality[frame]).map(frame =>
    rect((x(frame) - step / 2).toFixed(1), y, (step + 0.3).toFixed(1), height, `fill="${fill[truth.quality[frame]]}"`)).join("");
}

const frames = Array.from({ length: data.frames }, (_, frame) => frame);
const zeros = frames.map(() => 0);
const stacked = [zeros];
for (const term of Object.keys(data.terms)) stacked.push(data.terms[term].map((value, k) => value + stacked[stacked.length - 1][k]));

const charts = { overview: { top: 12, height: 64 }, detail: { top: 12, height: 150 } };

function drawOverview() {
  const chart = charts.overview, width = byId("overview").clientWidth;
  const gap = 8, panel = (width - gap * (data.directions.length - 1)) / data.directions.length;
  chart.x = frame => sweepOf(frame) * (panel + gap) + (frame % perSweep + 0.5) * panel / perSweep;
  chart.frameAt = x => {
    const sweep = clamp(Math.floor(x / (panel + gap)), 0, data.directions.length - 1);
    return sweep * perSweep + clamp(Math.floor((x - sweep * (panel + gap)) / panel * perSweep), 0, perSweep - 1);
  };
  const y = value => chart.top + chart.height * (1 - value);
  let inside = "";
  data.directions.forEach((direction, sweep) => {
    const left = sweep * (panel + gap), range = frames.slice(sweep * perSweep, (sweep + 1) * perSweep);
    inside += rect(left, chart.top, panel, chart.height, `fill="var(--background)" rx="4" class="panel" data-sweep="${sweep}"`);
    inside += area(zeros, data.scores, range, chart.x, y, 'fill="var(--curve)" opacity=".85"');
    inside += annotations(range, chart.x, panel / perSweep, chart.top + chart.height + 2, 6);
    inside += text(left + 1, chart.top + chart.height + 22, panel > 110 ? `sweep ${sweep + 1}, ${direction}` : `${sweep + 1} ${direction.slice(0, 5)}.`);
    if (truth) inside += text(left + 1, chart.top + chart.height + 37, truth.references[sweep] === null ? "no AC" : `${panel > 110 ? "AC " : ""}${truth.references[sweep].toFixed(0)} mm`);
  });
  inside += marker(chart.x(data.chosen)) + rule(0, chart.top - 3, 0, chart.top + chart.height, 'class="cursor" stroke="var(--ink)" stroke-width="2"');
  byId("overview").innerHTML = svg(width, chart.top + chart.height + (truth ? 42 : 28), inside);
}

function drawDetail() {
  const chart = charts.detail, width = byId("detail").clientWidth, sweep = sweepOf(current);
  const left = 30, step = (width - left) / perSweep;
  const range = frames.slice(sweep * perSweep, (sweep + 1) * perSweep);
  chart.sweep = sweep;
  chart.x = frame => left + (frame - sweep * perSweep + 0.5) * step;
  chart.frameAt = x => sweep * perSweep + clamp(Math.floor((x - left) / step), 0, perSweep - 1);
  const y = value => chart.top + chart.height * (1 - value);
  let inside = "";
  for (const tick of [0, 0.5, 1]) inside += rule(left, y(tick), width, y(tick), 'stroke="var(--line)"') + text(left - 6, y(tick) + 4, tick, 'text-anchor="end"');
  Object.keys(data.terms).forEach((term, k) => { inside += area(stacked[k], stacked[k + 1], range, chart.x, y, `fill="var(--term-${term})"`); });
  if (truth) inside += `<path d="M${points(truth.scores, range, chart.x, y)}" fill="none" stroke="#fff" stroke-width="4" opacity=".7"/><path d="M${points(truth.scores, range, chart.x, y)}" fill="none" stroke="var(--ink)" stroke-width="2" stroke-dasharray="5 3"/>`;
  let top = chart.top + chart.height + 4;
  if (truth) { inside += annotations(range, chart.x, step, top, 9); top += 13; }
  const part = 40;
  for (const [name, label] of Object.entries(partNames)) {
    top += 19;
    const height = value => top + part * (1 - value);
    inside += text(left, top - 5, `P(${label})`) + rect(left, top, width - left, part, 'fill="var(--background)" rx="3"');
    inside += area(zeros, data.parts[name], range, chart.x, height, 'fill="var(--quiet)" opacity=".28"');
    inside += `<path d="M${points(data.parts[name], range, chart.x, height)}" fill="none" stroke="var(--text)" stroke-width="1.6"/>`;
    inside += text(width, top - 5, "", `text-anchor="end" class="strong value" data-part="${name}"`);
    top += part;
  }
  const end = top;
  for (let place = 0; place < perSweep; place += Math.max(1, Math.round(perSweep / 7))) {
    inside += text(chart.x(sweep * perSweep + place), end + 15, sweep * perSweep + place, 'text-anchor="middle"');
  }
  if (sweepOf(data.chosen) === sweep) inside += marker(chart.x(data.chosen)) + rule(chart.x(data.chosen), 9, chart.x(data.chosen), end, 'stroke="var(--chosen)" stroke-width="1.2"');
  inside += rule(0, 4, 0, end, 'class="cursor" stroke="var(--ink)" stroke-width="2"');
  byId("detail").innerHTML = svg(width, end + 20, inside);
  byId("sweep-name").textContent = `Sweep ${sweep + 1}, ${data.directions[sweep]}: expected score and what it is made of`;
}

function moveCursors() {
  if (charts.detail.sweep !== sweepOf(current)) drawDetail();
  for (const [name, chart] of Object.entries(charts)) {
    const cursor = byId(name).querySelector(".cursor");
    for (const end of ["x1", "x2"]) cursor.setAttribute(end, chart.x(current));
  }
  for (const label of document.querySelectorAll(".value")) label.textContent = data.parts[label.dataset.part][current].toFixed(2);
  for (const panel of document.querySelectorAll(".panel")) {
    const isHere = Number(panel.dataset.sweep) === sweepOf(current);
    panel.setAttribute("stroke", isHere ? "var(--ink)" : "var(--line)");
    panel.setAttribute("stroke-width", isHere ? 1.6 : 1);
  }
}

// ---- moving

function go(frame) {
  const next = clamp(Math.round(frame), 0, data.frames - 1);
  if (next === current) return;
  current = next;
  tell(current);
  moveCursors();
  painting = draw(current);
  history.replaceState(null, "", `#frame=${current}`);
}

function play(on = !playing) {
  playing = on ? {} : null;
  byId("play").setAttribute("aria-pressed", String(on));
  if (on) keepPlaying(playing);
}

// 15 frames a second, or as many as can be painted.
async function keepPlaying(turn) {
  while (playing === turn) {
    go((current + 1) % data.frames);
    await painting;
    await new Promise(resolve => setTimeout(resolve, 66));
  }
}

function bestOf(sweep) {
  const range = frames.slice(sweep * perSweep, (sweep + 1) * perSweep);
  return range.reduce((a, b) => data.scores[b] > data.scores[a] ? b : a);
}

function toggle(what) {
  showing[what] = !showing[what];
  arrange();
}

function arrange() {
  for (const button of document.querySelectorAll("[data-show]")) button.setAttribute("aria-pressed", String(showing[button.dataset.show]));
  if (truth) {
    byId("beside").hidden = !showing.beside;
    byId("overlaid").hidden = showing.beside || !showing.truth;
    byId("screens").classList.toggle("single", !showing.beside);
  }
  redraw();
}

function redraw() {
  drawOverview();
  drawDetail();
  moveCursors();
  draw(current);
}

const keys = {
  ArrowLeft: event => go(current - (event.shiftKey ? 10 : 1)),
  ArrowRight: event => go(current + (event.shiftKey ? 10 : 1)),
  ArrowUp: () => { if (current >= perSweep) go(current - perSweep); },
  ArrowDown: () => { if (current + perSweep < data.frames) go(current + perSweep); },
  Home: () => go(0),
  End: () => go(data.frames - 1),
  " ": () => play(),
  c: () => go(data.chosen),
  m: () => toggle("mask"),
  e: () => toggle("ellipse"),
};
data.directions.forEach((_, sweep) => { keys[sweep + 1] = () => go(bestOf(sweep)); });
if (truth) Object.assign(keys, {
  n: () => go(annotated.find(frame => frame > current) ?? current),
  p: () => go(annotated.findLast(frame => frame < current) ?? current),
  t: () => toggle("truth"),
  b: () => toggle("beside"),
});

document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const onButton = event.target.closest("button, summary");
  if (!(key in keys) || (onButton && key === " ")) return;
  event.preventDefault();
  if (key !== " ") play(false);
  keys[key](event);
});

// Drag sideways over a frame: its width is one sweep. Touch scrolls the page up and down as ever.
for (const canvas of canvases) {
  let from = null;
  canvas.addEventListener("pointerdown", event => {
    from = { x: event.clientX, frame: current };
    canvas.setPointerCapture(event.pointerId);
    play(false);
  });
  canvas.addEventListener("pointermove", event => {
    if (from) go(from.frame + (event.clientX - from.x) / canvas.clientWidth * perSweep);
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { from = null; });
  canvas.addEventListener("wheel", event => {
    event.preventDefault();
    play(false);
    go(current + Math.sign(event.deltaY || event.deltaX));
  }, { passive: false });
}

for (const name of Object.keys(charts)) {
  const chart = byId(name);
  let isDown = false;
  const seek = event => go(charts[name].frameAt(event.clientX - chart.getBoundingClientRect().left));
  chart.addEventListener("pointerdown", event => { isDown = true; chart.setPointerCapture(event.pointerId); play(false); seek(event); });
  chart.addEventListener("pointermove", event => { if (isDown) seek(event); });
  for (const end of ["pointerup", "pointercancel"]) chart.addEventListener(end, () => { isDown = false; });
}

document.addEventListener("click", event => {
  const button = event.target.closest("[data-go], [data-step], [data-show]");
  if (!button) return;
  if (button.dataset.go) go(Number(button.dataset.go));
  if (button.dataset.step) go(current + Number(button.dataset.step));
  if (button.dataset.show) toggle(button.dataset.show);
});
byId("play").addEventListener("click", () => play());
byId("tochosen").addEventListener("click", () => go(data.chosen));
byId("position").max = data.frames - 1;
byId("position").addEventListener("input", event => { play(false); go(Number(event.target.value)); });

const asked = Number((location.hash.match(/^#frame=(\d+)$/) || [])[1] ?? data.chosen);
current = clamp(asked, 0, data.frames - 1);
tell(current);
arrange();
let width = window.innerWidth;
window.addEventListener("resize", () => { if (width !== window.innerWidth) { width = window.innerWidth; redraw(); } });
