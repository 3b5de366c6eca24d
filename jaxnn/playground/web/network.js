// A network of dense layers on arrays by example: forward, the loss, and its gradient by backpropagation.
//
// A network is {activation, problem, layers}; a layer is {inputs, units, w, b}, w[i units + j] the weight from input i
// to unit j. The output is tanh for classification, linear for regression; the loss is the mean of 1/2 (y - t)^2.

// Each activation and its derivative as a function of its value a.
export const ACTIVATIONS = {
  relu: {value: z => z <= 0 ? 0 : z, slope: a => a > 0 ? 1 : 0},
  tanh: {value: Math.tanh, slope: a => 1 - a * a},
  sigmoid: {value: z => 1 / (1 + Math.exp(-z)), slope: a => a * (1 - a)},
  linear: {value: z => z, slope: () => 1},
};

export const OUTPUT = {classification: "tanh", regression: "linear"};

// Layers with w ~ U(-0.5, 0.5) and b = 0.1; sizes are those of the features, the hidden layers and the output.
export function makeLayers(sizes, random) {
  return sizes.slice(1).map((units, l) => ({
    inputs: sizes[l],
    units,
    w: Float64Array.from({length: sizes[l] * units}, () => random.uniform(-0.5, 0.5)),
    b: new Float64Array(units).fill(0.1),
  }));
}

export const activationOf = (net, l) =>
  ACTIVATIONS[l === net.layers.length - 1 ? OUTPUT[net.problem] : net.activation];

// z = x w + b and a = f(z) of one layer, for n examples: (n units).
function layerOutputs({inputs, units, w, b}, {value}, x, n) {
  const a = new Float64Array(n * units);
  for (let e = 0; e < n; e++) {
    const row = a.subarray(e * units, (e + 1) * units);
    row.set(b);
    for (let i = 0; i < inputs; i++) {
      const given = x[e * inputs + i];
      for (let j = 0; j < units; j++) row[j] += given * w[i * units + j];
    }
    for (let j = 0; j < units; j++) row[j] = value(row[j]);
  }
  return a;
}

// The inputs and the outputs of every layer, the network's own last.
export function forward(net, x, n) {
  const values = [x];
  net.layers.forEach((layer, l) => values.push(layerOutputs(layer, activationOf(net, l), values[l], n)));
  return values;
}

// The mean of 1/2 (y - t)^2 over n examples with inputs x (n F) and targets t (n).
export function meanLoss(net, x, t) {
  const y = forward(net, x, t.length).at(-1);
  return y.reduce((sum, v, e) => sum + (v - t[e]) ** 2 / 2, 0) / t.length;
}

// The gradient of the mean loss: {w, b} of each layer. delta is the derivative with respect to a layer's z.
export function gradients(net, x, t) {
  const n = t.length, values = forward(net, x, n), found = [];
  let upstream = values.at(-1).map((y, e) => (y - t[e]) / n); // with respect to the outputs of the layer
  for (let l = net.layers.length - 1; l >= 0; l--) {
    const {slope} = activationOf(net, l), outputs = values[l + 1];
    const delta = upstream.map((d, k) => d * slope(outputs[k]));
    found[l] = parameterGradients(net.layers[l], values[l], delta, n);
    if (l > 0) upstream = inputGradients(net.layers[l], delta, n);
  }
  return found;
}

function parameterGradients({inputs, units}, x, delta, n) {
  const w = new Float64Array(inputs * units), b = new Float64Array(units);
  for (let e = 0; e < n; e++) {
    for (let j = 0; j < units; j++) {
      const d = delta[e * units + j];
      b[j] += d;
      for (let i = 0; i < inputs; i++) w[i * units + j] += x[e * inputs + i] * d;
    }
  }
  return {w, b};
}

function inputGradients({inputs, units, w}, delta, n) {
  const dx = new Float64Array(n * inputs);
  for (let e = 0; e < n; e++) {
    for (let i = 0; i < inputs; i++) {
      let sum = 0;
      for (let j = 0; j < units; j++) sum += delta[e * units + j] * w[i * units + j];
      dx[e * inputs + i] = sum;
    }
  }
  return dx;
}
