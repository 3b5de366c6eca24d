// The outputs of units over the plane, by row from the top, as in jaxnn/playground/views.py.
import {featurize} from "./features.js";
import {forward} from "./network.js";

export const REACH = 6; // the maps cover -6 to 6 in both coordinates
export const UNIT_SIZE = 28; // pixels along a side
export const OUTPUT_SIZE = 80;

const made = new Map(); // coordinates by size

// (2 size^2) coordinates of the centres of the pixels.
export function pixels(size) {
  if (!made.has(size)) {
    const along = Array.from({length: size}, (_, i) => REACH * ((2 * i + 1) / size - 1));
    made.set(size, Float64Array.from(along.flatMap(y => along.flatMap(x => [x, -y]))));
  }
  return made.get(size);
}

// For each layer, its outputs at every pixel of maps of that size: (size^2 units).
export function layerMaps(net, features, size) {
  return forward(net, featurize(features, pixels(size)), size * size);
}

// One unit's map out of its layer's.
export const unitMap = (values, units, unit) => Float64Array.from(
  {length: values.length / units}, (_, p) => values[p * units + unit],
);

// Where a map crosses 0, as the d of an SVG path in units of pixels: marching squares with linear interpolation.
export function zeroLine(values, size) {
  const parts = [];
  for (let r = 0; r + 1 < size; r++) {
    for (let c = 0; c + 1 < size; c++) {
      const corners = [[c, r], [c + 1, r], [c + 1, r + 1], [c, r + 1]];
      const v = corners.map(([x, y]) => values[y * size + x]), crossings = [];
      for (let e = 0; e < 4; e++) {
        const f = (e + 1) % 4;
        if ((v[e] >= 0) === (v[f] >= 0)) continue;
        const t = v[e] / (v[e] - v[f]), [a, b] = [corners[e], corners[f]];
        if (!Number.isFinite(t)) continue;
        crossings.push(a.map((p, i) => (p + t * (b[i] - p) + 0.5).toFixed(2)).join(" "));
      }
      for (let k = 0; k + 1 < crossings.length; k += 2) parts.push(`M${crossings[k]}L${crossings[k + 1]}`);
    }
  }
  return parts.join("");
}
