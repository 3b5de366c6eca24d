// Gradient descent with an L1 or L2 penalty on the weights, not the biases: jaxnn/playground/penalties.py.
//
// alive holds a Uint8Array for each layer, 0 where L1 has moved a weight across 0: it stays 0.
import {gradients} from "./network.js";

export const allAlive = layers => layers.map(({w}) => new Uint8Array(w.length).fill(1));

const STEPS = {
  none: (w, g, rate) => w - rate * g,
  l2: (w, g, rate, strength) => w - rate * (g + strength * w),
};

function descendL1(w, g, alive, rate, strength) {
  for (let k = 0; k < w.length; k++) {
    const moved = w[k] - rate * g[k], after = moved - rate * strength * Math.sign(w[k]);
    if (Math.sign(moved) * Math.sign(after) < 0) alive[k] = 0; // the penalty has moved it across 0
    w[k] = alive[k] ? after : 0;
  }
}

// One step of the layers, in place.
export function descend(layers, grads, alive, settings) {
  const {learning_rate: rate, regularization: kind, regularization_rate: strength} = settings;
  layers.forEach(({w, b}, l) => {
    if (kind === "l1") descendL1(w, grads[l].w, alive[l], rate, strength);
    else for (let k = 0; k < w.length; k++) w[k] = STEPS[kind](w[k], grads[l].w[k], rate, strength);
    for (let j = 0; j < b.length; j++) b[j] -= rate * grads[l].b[j];
  });
}

// One pass through the examples in the given order; the last batch may be smaller, its gradient the mean over its own.
export function trainEpoch(net, alive, x, t, order, settings) {
  const n = t.length, size = x.length / n;
  for (let start = 0; start < n; start += settings.batch_size) {
    const batch = order.subarray(start, start + settings.batch_size);
    const inputs = new Float64Array(batch.length * size);
    batch.forEach((e, k) => inputs.set(x.subarray(e * size, (e + 1) * size), k * size));
    descend(net.layers, gradients(net, inputs, Float64Array.from(batch, e => t[e])), alive, settings);
  }
}
