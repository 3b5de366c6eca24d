// The settings as controls, and the words about them.
import {paint} from "./colours.js";
import {makePoints, SOURCES} from "./data.js";
import {find, html} from "./dom.js";
import {ACTIVATIONS} from "./network.js";
import {MAX_LAYERS} from "./session.js";

const RATES = [0.00001, 0.0001, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10];
const STRENGTHS = [0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10];
const SHOWN = ["activation", "regularization", "noise", "train_ratio", "batch_size", "points_seed", "weights_seed"];
const NEW_LAYER = 2; // units
const THUMBNAIL = 44; // pixels

const options = values => values.map(value => html("option", {value}, value));
const percent = v => `${v} (${Math.round(100 * v)}%)`;

export function makeControls(app) {
  find("activation").append(...options(Object.keys(ACTIVATIONS)));
  const set = (id, read) => find(id).addEventListener("change", () => app.change({[id]: read(find(id))}));
  for (const id of ["activation", "regularization"]) set(id, control => control.value);
  for (const id of ["learning_rate", "regularization_rate", "noise", "train_ratio"]) set(id, c => Number(c.value));
  for (const id of ["noise", "train_ratio"]) find(id).addEventListener("input", () => tellRange(id));
  for (const [id, least] of [["batch_size", 1], ["points_seed", 0], ["weights_seed", 0]]) {
    set(id, ({valueAsNumber: v}) => Number.isFinite(v) ? Math.max(least, Math.round(v)) : app.session.settings[id]);
  }
  find("problem").addEventListener("change", () => {
    app.change({data: Object.keys(SOURCES).find(name => SOURCES[name].problem === find("problem").value)});
  });
  find("layer-more").addEventListener("click", () => app.change({hidden: [...app.session.settings.hidden, NEW_LAYER]}));
  find("layer-less").addEventListener("click", () => app.change({hidden: app.session.settings.hidden.slice(0, -1)}));

  function tellRange(id) {
    const text = percent(Number(find(id).value));
    find(`${id}-told`).textContent = text;
    find(id).setAttribute("aria-valuetext", text);
  }

  function rebuild() {
    const {settings} = app.session;
    choose("learning_rate", RATES, settings.learning_rate);
    choose("regularization_rate", STRENGTHS, settings.regularization_rate);
    for (const id of SHOWN) find(id).value = settings[id];
    for (const id of ["noise", "train_ratio"]) tellRange(id);
    find("regularization_rate").disabled = settings.regularization === "none";
    find("problem").value = SOURCES[settings.data].problem;
    const count = settings.hidden.length;
    find("layers").textContent = `${count} hidden layer${count === 1 ? "" : "s"}`;
    find("layer-more").disabled = count === MAX_LAYERS;
    find("layer-less").disabled = count === 0;
    for (const [id, other] of [["layer-more", "layer-less"], ["layer-less", "layer-more"]]) {
      if (document.activeElement === find(id) && find(id).disabled) find(other).focus();
    }
    buildSources(settings);
    find("settings").textContent = describe(settings);
    find("command").textContent = command(app.session);
  }

  function buildSources(settings) {
    const host = find("sources"), had = host.contains(document.activeElement);
    const names = Object.keys(SOURCES).filter(name => SOURCES[name].problem === SOURCES[settings.data].problem);
    host.replaceChildren(host.firstElementChild, ...names.map(name => {
      const radio = html("input", {type: "radio", name: "data", value: name, checked: name === settings.data});
      radio.addEventListener("change", () => app.change({data: name}));
      return html("label", {}, radio, thumbnail(name, settings.noise), html("span", {}, name));
    }));
    if (had) host.querySelector(":checked").focus();
  }

  return {rebuild, update: () => { find("command").textContent = command(app.session); }};
}

// A select with these values, and the present one if it is another.
function choose(id, values, present) {
  const all = [...new Set([...values, present])].sort((a, b) => a - b);
  find(id).replaceChildren(...options(all));
  find(id).value = present;
}

function thumbnail(data, noise) {
  const {train: {x, y}} = makePoints({data, noise, train_ratio: 0.5}, 0), size = THUMBNAIL / 14;
  const canvas = html("canvas", {width: THUMBNAIL, height: THUMBNAIL});
  const values = new Float64Array(THUMBNAIL * THUMBNAIL);
  y.forEach((target, i) => {
    const [column, row] = [x[2 * i], -x[2 * i + 1]].map(v => Math.round((v + 7) * size - 0.5));
    if (column >= 0 && column < THUMBNAIL && row >= 0 && row < THUMBNAIL) values[row * THUMBNAIL + column] = target;
  });
  paint(canvas, values);
  return canvas;
}

function describe(settings) {
  const {data, hidden, regularization: penalty} = settings;
  const parts = [
    `${data} (${SOURCES[data].problem}), noise ${percent(settings.noise)}`,
    hidden.length ? `${hidden.join("-")} hidden units, ${settings.activation}` : "no hidden units",
    `learning rate ${settings.learning_rate}, batches of ${settings.batch_size}`,
  ];
  if (penalty !== "none") parts.push(`${penalty.toUpperCase()} penalty ${settings.regularization_rate}`);
  return parts.join("; ");
}

// The command that trains with these settings, as many epochs as here.
export function command({settings, epoch}) {
  const {hidden, regularization: penalty, regularization_rate: strength} = settings;
  const words = [
    ["data", settings.data], ["features", settings.features.join()], ["hidden", hidden.join() || '""'],
    ...(hidden.length ? [["activation", settings.activation]] : []),
    ["learning-rate", settings.learning_rate], ["batch-size", settings.batch_size],
    ["noise", settings.noise], ["train-ratio", settings.train_ratio],
    ...(penalty !== "none" && strength ? [["regularization", penalty], ["regularization-rate", strength]] : []),
    ["epochs", Math.max(1, epoch)], ["seed", settings.weights_seed],
  ];
  return `jaxnn playground ${words.map(([name, value]) => `--${name} ${value}`).join(" ")}`;
}
