// The six data sets, by the formulas of jaxnn/playground/data.py; points are [x, y, target].
import {makeRandom} from "./random.js";

const CENTRES = [[-4, 2.5, 1], [0, 2.5, -1], [4, 2.5, 1], [-4, -2.5, -1], [0, -2.5, 1], [4, -2.5, -1]]; // x, y, sign
const polar = (r, t) => [r * Math.sin(t), r * Math.cos(t)];
const made = (n, point) => Array.from({length: n}, (_, i) => point(i));

function circle(random, n, noise) {
  return made(n, i => {
    const r = i < n / 2 ? random.uniform(0, 2.5) : random.uniform(3.5, 5);
    const [x, y] = polar(r, random.uniform(0, 2 * Math.PI));
    const seen = [x, y].map(v => v + noise * random.uniform(-5, 5));
    return [x, y, seen[0] ** 2 + seen[1] ** 2 < 2.5 ** 2 ? 1 : -1];
  });
}

function xor(random, n, noise) {
  return made(n, () => {
    const [x, y] = [0, 0].map(() => random.uniform(-5, 5)).map(v => v + (v > 0 ? 0.3 : -0.3));
    const seen = [x, y].map(v => v + noise * random.uniform(-5, 5));
    return [x, y, seen[0] * seen[1] >= 0 ? 1 : -1];
  });
}

function gauss(random, n, noise) {
  const deviation = Math.sqrt(0.5 + 7 * noise);
  return made(n, i => {
    const label = i < n / 2 ? 1 : -1;
    return [2 * label + deviation * random.normal(), 2 * label + deviation * random.normal(), label];
  });
}

function spiral(random, n, noise) {
  const half = n / 2;
  return made(n, i => {
    const share = (i % half) / half, turn = i < half ? 0 : Math.PI;
    const [x, y] = polar(5 * share, 3.5 * Math.PI * share + turn);
    return [x + noise * random.uniform(-1, 1), y + noise * random.uniform(-1, 1), i < half ? 1 : -1];
  });
}

const inSquare = target => (random, n, noise) => made(n, () => {
  const [x, y] = [0, 0].map(() => random.uniform(-6, 6));
  return [x, y, target(...[x, y].map(v => v + noise * random.uniform(-6, 6)))];
});

function hills(x, y) { // the nearest centre's cone of height 1 and radius 2, up or down
  const near = CENTRES.map(([cx, cy, sign]) => [Math.max(1 - Math.hypot(x - cx, y - cy) / 2, 0), sign]);
  const [height, sign] = near.reduce((best, next) => next[0] > best[0] ? next : best);
  return sign * height;
}

export const SOURCES = {
  circle: {make: circle, problem: "classification", points: 500},
  xor: {make: xor, problem: "classification", points: 500},
  gauss: {make: gauss, problem: "classification", points: 500},
  spiral: {make: spiral, problem: "classification", points: 500},
  "reg-plane": {make: inSquare((x, y) => (x + y) / 10), problem: "regression", points: 1200},
  "reg-gauss": {make: inSquare(hills), problem: "regression", points: 1200},
};

// {x: (2 n) coordinates, y: (n) targets} of a list of points.
export const columns = points => ({
  x: Float64Array.from(points.flatMap(([x, y]) => [x, y])),
  y: Float64Array.from(points, point => point[2]),
});

// Sampled, shuffled, and the first floor(n train_ratio) of them for training: {train, test}.
export function makePoints({data, noise, train_ratio: ratio}, seed) {
  const {make, points: n} = SOURCES[data], random = makeRandom(seed, 0);
  const points = make(random, n, noise);
  const mixed = Array.from(random.permutation(n), i => points[i]);
  const count = Math.floor(n * ratio + 1e-9); // 0.7 * 10 is 6.999...
  return {train: columns(mixed.slice(0, count)), test: columns(mixed.slice(count))};
}
