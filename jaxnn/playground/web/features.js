// The seven features of a point, as in jaxnn/playground/features.py.

export const FEATURES = {
  x: {label: "x", value: x => x},
  y: {label: "y", value: (x, y) => y},
  x2: {label: "x²", value: x => x * x},
  y2: {label: "y²", value: (x, y) => y * y},
  xy: {label: "xy", value: (x, y) => x * y},
  sinx: {label: "sin x", value: x => Math.sin(x)},
  siny: {label: "sin y", value: (x, y) => Math.sin(y)},
};

// (n F) features by point, of (2 n) coordinates by point.
export function featurize(names, x) {
  const n = x.length / 2, size = names.length, values = new Float64Array(n * size);
  names.forEach((name, f) => {
    for (let i = 0; i < n; i++) values[i * size + f] = FEATURES[name].value(x[2 * i], x[2 * i + 1]);
  });
  return values;
}
