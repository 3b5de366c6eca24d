// A run of jaxnn.playground, read from the JSON that its page holds.
import {columns, SOURCES} from "./data.js";
import {FEATURES} from "./features.js";
import {ACTIVATIONS} from "./network.js";

const FORMAT = 2; // of jaxnn/playground/page.py

// The run in the text of a page, or of its JSON alone; an Error says what is wrong.
export function readRun(text) {
  const page = text.trimStart().startsWith("<") && new DOMParser().parseFromString(text, "text/html");
  const json = page ? page.getElementById("run")?.textContent : text;
  let raw;
  try {
    raw = JSON.parse(json);
  } catch {
    throw new Error("it is neither a page of jaxnn playground nor its JSON");
  }
  if (raw?.format !== FORMAT) throw new Error(`expected a run of format ${FORMAT}, got ${raw?.format}`);
  requireKnown(raw.settings);
  const points = {train: columns(raw.points.train), test: columns(raw.points.test)};
  return {...raw, points, orders: unpackOrders(raw.orders, points.train.y.length), frames: raw.frames.map(frame)};
}

function requireKnown({data, features, activation}) {
  const unknown = [[data, SOURCES], ...features.map(name => [name, FEATURES]), [activation, ACTIVATIONS]]
    .filter(([name, known]) => !Object.hasOwn(known, name));
  if (unknown.length) throw new Error(`this page knows no ${unknown[0][0]}`);
}

// The order of the n training points in each epoch, from base64 of little-endian uint16.
function unpackOrders(text, n) {
  const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0)), view = new DataView(bytes.buffer);
  const all = Uint16Array.from({length: bytes.length / 2}, (_, i) => view.getUint16(2 * i, true));
  return Array.from({length: all.length / n}, (_, epoch) => all.subarray(epoch * n, (epoch + 1) * n));
}

const frame = ({epoch, weights, biases, losses}) => ({
  epoch,
  losses: {train: losses[0], test: losses[1]},
  layers: weights.map((matrix, l) => ({
    inputs: matrix.length,
    units: biases[l].length,
    w: Float64Array.from(matrix.flat()),
    b: Float64Array.from(biases[l]),
  })),
});
