// The network: features as check boxes, units as small maps, weights as lines between them.
import {paint, strong, told} from "./colours.js";
import {find, html, svg} from "./dom.js";
import {FEATURES} from "./features.js";
import {layerMaps, pixels, unitMap, UNIT_SIZE} from "./maps.js";
import {MAX_UNITS} from "./session.js";

const NAMES = Object.keys(FEATURES);
const NARROW = 520; // pixels of the picture's width

export const unitName = (net, layer, unit) =>
  layer === net.layers.length - 1 ? "output" : `hidden layer ${layer + 1}, unit ${unit + 1}`;

export const inputName = (settings, layer, from) =>
  layer === 0 ? FEATURES[settings.features[from]].label : `unit ${from + 1} of layer ${layer}`;

export const weightName = (session, {layer, from, to}) =>
  `weight from ${inputName(session.settings, layer, from)} to ${unitName(session.net, layer, to)}`;

// Where everything stands, in pixels: columns are the features, the hidden layers and the output.
function makeLayout(width, hidden) {
  const narrow = width < NARROW, tile = narrow ? 26 : 40, left = narrow ? 54 : 72, top = narrow ? 74 : 52;
  const rows = Math.max(NAMES.length, ...hidden), pitch = tile + (narrow ? 8 : 12);
  const across = (width - left - tile - 2) / (hidden.length + 1);
  const counts = [NAMES.length, ...hidden, 1];
  return {
    tile, top, narrow, across,
    height: top + rows * pitch,
    x: column => left + column * across,
    y: (column, row) => top + (rows - counts[column]) * pitch / 2 + row * pitch,
  };
}

const place = (element, x, y) => Object.assign(element.style, {left: `${x}px`, top: `${y}px`});

export function makeScene(app) {
  const state = {layout: null, units: [], links: [], shown: null}; // shown: the unit under pointer or focus

  function rebuild() {
    const {settings} = app.session, host = find("network");
    const layout = state.layout = makeLayout(host.clientWidth, settings.hidden);
    host.style.height = `${layout.height}px`;
    host.style.setProperty("--tile", `${layout.tile}px`);
    state.shown = null;
    buildFeatures(settings, layout);
    buildHeads(settings, layout);
    state.links = buildLinks(app, layout);
    state.units = buildUnits(app, layout, state);
    update();
  }

  function update() {
    const {net, settings} = app.session, maps = layerMaps(net, settings.features, UNIT_SIZE);
    for (const {canvas, layer, unit} of state.units) {
      paint(canvas, unitMap(maps[layer + 1], net.layers[layer].units, unit), app.discretized);
    }
    for (const link of state.links) restyle(link, net);
  }

  find("units").addEventListener("keydown", event => moveFocus(event, state.units));
  return {rebuild, update, shown: () => state.shown};

  function buildFeatures(settings, layout) {
    const host = find("features"), had = host.contains(document.activeElement) && document.activeElement.value;
    host.replaceChildren(...NAMES.map((name, row) => {
      const whole = featureTile(app, name, settings.features);
      place(whole, 0, layout.y(0, row));
      whole.style.width = `${layout.x(0) + layout.tile}px`;
      return whole;
    }));
    if (had) host.querySelector(`[value="${had}"]`).focus();
  }

  function buildHeads(settings, layout) {
    const host = find("heads"), had = host.contains(document.activeElement) && document.activeElement.id;
    const ends = [["features", {left: 0}], ["output", {right: 0}]].map(([text, side]) => {
      const end = html("span", {class: "side"}, text);
      Object.assign(end.style, {top: `${layout.top - 20}px`, ...side});
      return end;
    });
    host.replaceChildren(...ends, ...settings.hidden.map((units, layer) => {
      const resized = by => ({hidden: settings.hidden.map((n, l) => l === layer ? n + by : n)});
      const head = layerHead(units, layer, layout.narrow, by => app.change(resized(by)));
      place(head, layout.x(layer + 1) + layout.tile / 2, 0);
      return head;
    }));
    if (had) (find(had)?.disabled === false ? find(had) : host.querySelector("button:enabled"))?.focus();
  }
}

function featureTile(app, name, chosen) {
  const {label, value} = FEATURES[name], on = chosen.includes(name), x = pixels(UNIT_SIZE);
  const canvas = html("canvas", {width: UNIT_SIZE, height: UNIT_SIZE});
  paint(canvas, Float64Array.from({length: x.length / 2}, (_, p) => value(x[2 * p], x[2 * p + 1])), app.discretized);
  const box = html("input", {type: "checkbox", value: name, checked: on, disabled: on && chosen.length === 1});
  box.addEventListener("change", () => {
    app.change({features: NAMES.filter(other => other === name ? box.checked : chosen.includes(other))});
  });
  return html("label", {class: on ? "feature" : "feature off"}, box, html("span", {}, label), canvas);
}

// The number of a layer's units, and the buttons that change it.
function layerHead(units, layer, narrow, resize) {
  const button = (text, id, word, by, disabled) => {
    const label = `one unit ${word} in hidden layer ${layer + 1}`;
    const made = html("button", {type: "button", id: `${id}-${layer}`, "aria-label": label, disabled}, text);
    made.addEventListener("click", () => resize(by));
    return made;
  };
  const buttons = html("div", {class: narrow ? "stacked" : ""},
    button("−", "less", "less", -1, units === 1), button("+", "more", "more", 1, units === MAX_UNITS));
  const count = narrow ? units : `${units} unit${units === 1 ? "" : "s"}`;
  return html("div", {class: "head", role: "group", "aria-label": `hidden layer ${layer + 1}`}, buttons,
    html("span", {}, count));
}

// A curve for each weight, and a broad unseen one that catches the pointer.
function buildLinks(app, layout) {
  const links = [], {net, settings} = app.session, rows = settings.features.map(name => NAMES.indexOf(name));
  net.layers.forEach(({inputs, units}, layer) => {
    for (let from = 0; from < inputs; from++) {
      for (let to = 0; to < units; to++) {
        const x = [layout.x(layer) + layout.tile, layout.x(layer + 1)], middle = (x[0] + x[1]) / 2;
        const y = [layout.y(layer, layer ? from : rows[from]), layout.y(layer + 1, to)].map(v => v + layout.tile / 2);
        const d = `M${x[0]} ${y[0]}C${middle} ${y[0]} ${middle} ${y[1]} ${x[1]} ${y[1]}`;
        const line = svg("path", {d, class: "link"}), catcher = svg("path", {d, class: "catcher"});
        const link = {line, catcher, layer, from, to};
        link.catcher.addEventListener("pointerenter", () => {
          const {w} = app.session.net.layers[layer];
          app.tell(`${weightName(app.session, link)}: ${told(w[from * units + to])}`);
        });
        link.catcher.addEventListener("click", () => app.choose(layer, to, from));
        links.push(link);
      }
    }
  });
  find("links").replaceChildren(...links.map(({line}) => line), ...links.map(({catcher}) => catcher));
  return links;
}

function restyle({line, layer, from, to}, net) {
  const {w, units} = net.layers[layer], weight = w[from * units + to], size = Math.min(1, Math.abs(weight));
  line.setAttribute("class", `link ${weight === 0 ? "zero" : weight < 0 ? "negative" : "positive"}`);
  line.style.stroke = weight === 0 ? "" : strong(weight);
  line.style.strokeWidth = Math.min(10, 0.75 + 2.25 * Math.abs(weight) || 0.75);
  line.style.opacity = weight === 0 ? 1 : 0.4 + 0.5 * size;
}

// A button for each unit; one of them is in the order of the tab key, the arrow keys reach the others.
function buildUnits(app, layout, state) {
  const units = [], {net} = app.session;
  net.layers.forEach((own, layer) => {
    for (let unit = 0; unit < own.units; unit++) {
      const canvas = html("canvas", {width: UNIT_SIZE, height: UNIT_SIZE});
      const button = html("button", {
        type: "button", class: "unit", "aria-label": unitName(net, layer, unit), "aria-describedby": "readout",
        tabindex: units.length ? -1 : 0,
      }, canvas);
      place(button, layout.x(layer + 1), layout.y(layer + 1, unit));
      const show = () => {
        state.shown = layer === net.layers.length - 1 ? null : {layer, unit};
        app.tell(`${unitName(net, layer, unit)}: bias ${told(app.session.net.layers[layer].b[unit])}`);
        app.showUnit();
      };
      const hide = () => { state.shown = null; app.showUnit(); };
      for (const [name, act] of [["pointerenter", show], ["focus", show], ["pointerleave", hide], ["blur", hide]]) {
        button.addEventListener(name, act);
      }
      button.addEventListener("click", () => app.choose(layer, unit, null));
      units.push({button, canvas, layer, unit});
    }
  });
  find("units").replaceChildren(...units.map(({button}) => button));
  return units;
}

function moveFocus(event, units) {
  const now = units.find(({button}) => button === document.activeElement);
  const [across, down] = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key] ?? [];
  if (!now || across === undefined) return;
  event.preventDefault();
  const column = units.filter(({layer}) => layer === now.layer + across);
  if (!column.length) return;
  const next = column[Math.max(0, Math.min(column.length - 1, now.unit + down))];
  for (const {button} of units) button.tabIndex = button === next.button ? 0 : -1;
  next.button.focus();
}
