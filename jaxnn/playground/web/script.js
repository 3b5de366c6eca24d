"use strict";
const NEGATIVE = [213, 94, 0], ZERO = [247, 247, 247], POSITIVE = [0, 114, 178];  // distinct for the colour-blind
const TRAIN = "#000000", TEST = "#CC79A7", UNIT = 40, PITCH = 50, SURFACE = 300, WIDTH = 1040, TOP = 26;
const DELAY = 150;  // milliseconds for each frame
const run = JSON.parse(document.getElementById("run").textContent);
const frames = run.epochs.length;
const find = id => document.getElementById(id);

// --- colours and heat maps ---
const blend = (a, b, t) => a.map((v, i) => Math.round(v + t * (b[i] - v)));
const palette = Array.from({length: 255}, (_, i) => blend(ZERO, i < 127 ? NEGATIVE : POSITIVE, Math.abs(i - 127) / 127));
const colour = v => `rgb(${palette[Math.round(127 * Math.max(-1, Math.min(1, v))) + 127].join()})`;
const strong = v => v < 0 ? `rgb(${NEGATIVE.join()})` : `rgb(${POSITIVE.join()})`;
const unpack = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
const maps = {
  inputs: unpack(run.maps.inputs), hidden: run.maps.hidden.map(unpack), output: unpack(run.maps.output),
};

function paint(canvas, bytes, index) {
  const {width, height} = canvas, size = width * height, image = new ImageData(width, height);
  for (let i = 0; i < size; i++) {
    image.data.set(palette[bytes[index * size + i]], 4 * i);
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

// --- the network: where everything stands, units as canvases, weights as lines ---
function draw(parent, name, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const key in attributes) element.setAttribute(key, attributes[key]);
  if (text !== undefined) element.textContent = text;
  return parent.appendChild(element);
}

const columns = run.layers.length - 1;  // of small units: the features and the hidden layers
const height = Math.max(SURFACE, PITCH * Math.max(...run.layers)) + TOP + 6;
const surfaceLeft = WIDTH - SURFACE - 2, left = 60;
const middle = TOP + (height - TOP) / 2;
const columnX = c => left + (columns === 1 ? 0 : c * (surfaceLeft - 130 - left) / (columns - 1));
const unitY = (c, u) => c === columns ? middle : middle + PITCH * (u - (run.layers[c] - 1) / 2);
find("network").style.height = `${height}px`;
Object.assign(find("result").style, {left: `${surfaceLeft}px`, top: `${middle - SURFACE / 2}px`});

const links = [];
run.weights[0].forEach((matrix, layer) => matrix.forEach((row, from) => row.forEach((_, to) => {
  const line = draw(find("links"), "line", {
    x1: columnX(layer) + UNIT, y1: unitY(layer, from),
    x2: layer + 1 === columns ? surfaceLeft : columnX(layer + 1), y2: unitY(layer + 1, to),
  });
  links.push({line, layer, from, to, told: draw(line, "title", {})});
})));

const units = [];
for (let c = 0; c < columns; c++) {
  const name = c ? (columns > 5 ? `${c}` : `hidden ${c}`) : "features";
  draw(find("links"), "text", {x: columnX(c) + UNIT / 2, y: 14, "text-anchor": "middle"}, name);
  for (let u = 0; u < run.layers[c]; u++) {
    const canvas = document.createElement("canvas");
    canvas.className = "unit";
    canvas.width = canvas.height = run.sizes.unit;
    Object.assign(canvas.style, {left: `${columnX(c)}px`, top: `${unitY(c, u) - UNIT / 2}px`});
    find("network").append(canvas);
    if (c) units.push({canvas, layer: c - 1, unit: u});
    else {
      paint(canvas, maps.inputs, u);
      canvas.title = run.features[u];
      draw(find("links"), "text", {x: left - 8, y: unitY(c, u) + 4, "text-anchor": "end"}, run.features[u]);
    }
  }
}
draw(find("links"), "text", {x: surfaceLeft + SURFACE / 2, y: middle - SURFACE / 2 - 10, "text-anchor": "middle"}, "output");
find("surface").width = find("surface").height = run.sizes.output;

// --- the points ---
find("points").setAttribute("viewBox", `${-run.reach} ${-run.reach} ${2 * run.reach} ${2 * run.reach}`);
draw(find("points"), "title", {});
for (const [name, edge] of [["train", "#fff"], ["test", "#000"]]) {
  const group = draw(find("points"), "g", {id: `${name}-group`, stroke: edge, "stroke-width": 0.04});
  for (const [x, y, label] of run.points[name]) draw(group, "circle", {cx: x, cy: -y, r: 0.1, fill: colour(label)});
  const box = find(`${name}-points`), toggle = () => { group.style.display = box.checked ? "" : "none"; };
  box.addEventListener("change", toggle);
  toggle();
}

// --- the loss curves ---
const chart = {left: 56, right: 585, top: 26, bottom: 180};
const last = run.epochs[frames - 1];
const highest = 1.05 * Math.max(...run.losses.train, ...run.losses.test, 1e-9);  // the curve stays below the edge
const chartX = epoch => chart.left + (chart.right - chart.left) * epoch / last;
const chartY = loss => chart.bottom - (chart.bottom - chart.top) * loss / highest;

function ticks(top) {  // 0 and round numbers up to the top, three to six in all
  const power = 10 ** Math.floor(Math.log10(top)), step = [0.2, 0.5, 1, 2].map(m => m * power).find(s => top / s <= 5);
  return Array.from({length: Math.floor(top / step + 1e-9) + 1}, (_, i) => Number((i * step).toPrecision(6)));
}

for (const t of ticks(last)) {
  draw(find("curves"), "line", {x1: chartX(t), x2: chartX(t), y1: chart.bottom, y2: chart.bottom + 4, stroke: "#333"});
  draw(find("curves"), "text", {x: chartX(t), y: chart.bottom + 18, "text-anchor": "middle"}, t);
}
for (const t of ticks(highest)) {
  draw(find("curves"), "line", {x1: chart.left, x2: chart.right, y1: chartY(t), y2: chartY(t), stroke: "#ddd"});
  draw(find("curves"), "text", {x: chart.left - 6, y: chartY(t) + 4, "text-anchor": "end"}, t);
}
draw(find("curves"), "text", {x: (chart.left + chart.right) / 2, y: chart.bottom + 36, "text-anchor": "middle"}, "epoch");
draw(find("curves"), "text", {
  x: 12, y: (chart.top + chart.bottom) / 2, "text-anchor": "middle",
  transform: `rotate(-90 12 ${(chart.top + chart.bottom) / 2})`,
}, "loss: mean of ½ (y − t)²");
[["train", TRAIN, "0"], ["test", TEST, "6 3"]].forEach(([name, stroke, dashes], row) => {
  const path = run.losses.epochs.map((e, i) => `${chartX(e).toFixed(1)},${chartY(run.losses[name][i]).toFixed(1)}`);
  draw(find("curves"), "polyline", {points: path.join(" "), fill: "none", stroke, "stroke-width": 2, "stroke-dasharray": dashes});
  const x = chart.right - 170 + 105 * row;
  draw(find("curves"), "line", {
    x1: x, x2: x + 28, y1: 10, y2: 10, stroke, "stroke-width": 2, "stroke-dasharray": dashes,
  });
  draw(find("curves"), "text", {x: x + 34, y: 14}, name === "train" ? "training" : "test");
});
const now = draw(find("curves"), "line", {y1: chart.top, y2: chart.bottom, stroke: "#0072B2", "stroke-width": 1.5});

// --- one frame ---
function show(frame) {
  document.body.dataset.frame = frame;
  find("slider").value = frame;
  find("slider").setAttribute("aria-valuetext", `epoch ${run.epochs[frame]}`);
  find("epoch").textContent = `epoch ${run.epochs[frame]}`;
  const [train, test] = run.losses.frames[frame].map(loss => loss.toPrecision(3));
  find("losses").textContent = `loss: training ${train}, test ${test}`;
  for (const {line, layer, from, to, told} of links) {
    const weight = run.weights[frame][layer][from][to];
    line.setAttribute("class", weight === 0 ? "zero" : "");
    line.style.stroke = weight === 0 ? "" : strong(weight);
    line.style.strokeWidth = Math.min(12, 0.5 + 2.5 * Math.abs(weight));
    line.style.opacity = weight === 0 ? 1 : 0.4 + 0.5 * Math.min(1, Math.abs(weight));
    told.textContent = `weight ${weight}`;
  }
  for (const {canvas, layer, unit} of units) {
    paint(canvas, maps.hidden[layer], frame * run.layers[layer + 1] + unit);
    canvas.title = `hidden layer ${layer + 1}, unit ${unit + 1}: bias ${run.biases[frame][layer][unit]}`;
  }
  paint(find("surface"), maps.output, frame);
  find("points").querySelector("title").textContent = `output: bias ${run.biases[frame].at(-1)[0]}`;
  now.setAttribute("x1", chartX(run.epochs[frame]));
  now.setAttribute("x2", chartX(run.epochs[frame]));
}

// --- slider and play button ---
let timer = null;
const frame = () => Number(find("slider").value);

function stop() {
  clearInterval(timer);
  timer = null;
  find("play").textContent = "Play";
}

function advance() {
  show(frame() + 1);
  if (frame() === frames - 1) stop();
}

find("play").addEventListener("click", () => {
  if (timer !== null) return stop();
  if (frame() === frames - 1) show(0);
  find("play").textContent = "Pause";
  timer = setInterval(advance, DELAY);
});
find("slider").max = frames - 1;
find("slider").addEventListener("input", () => { stop(); show(frame()); });
find("settings").textContent = run.settings;
paint(find("scale"), Uint8Array.from({length: 255}, (_, i) => i), 0);
show(frames - 1);
