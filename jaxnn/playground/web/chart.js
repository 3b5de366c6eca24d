// The loss on training and test points against the epoch; behind them, in grey, that of the Python run.
import {told} from "./colours.js";
import {find, svg} from "./dom.js";
import {follows} from "./session.js";

const HEIGHT = 220, LEFT = 52, RIGHT = 12, TOP = 34, BOTTOM = 42;
const MOST = 600; // points of a curve
const LINES = [["train", "training", "#000", "none"], ["test", "test", "#A3457A", "7 4"]];

export function ticks(top) { // 0 and round numbers up to the top, three to six in all
  const power = 10 ** Math.floor(Math.log10(top)), step = [0.2, 0.5, 1, 2].map(m => m * power).find(s => top / s <= 5);
  return Array.from({length: Math.floor(top / step + 1e-9) + 1}, (_, i) => Number((i * step).toPrecision(6)));
}

function thinned(curve) {
  const stride = Math.ceil(curve.length / MOST);
  return curve.filter(({train, test}, i) =>
    (i % stride === 0 || i === curve.length - 1) && Number.isFinite(train + test));
}

export function makeChart(app) {
  function update() {
    const {session} = app, host = find("curves"), width = Math.max(host.clientWidth, 240);
    const python = follows(session) && session.run.curve;
    const curve = thinned(session.curve), behind = python ? python.epochs.map((epoch, i) => ({
      epoch, train: python.train[i], test: python.test[i],
    })) : [];
    const last = Math.max(1, ...[...curve, ...behind].map(({epoch}) => epoch));
    const highest = 1.05 * Math.max(1e-9, ...[...curve, ...behind].flatMap(({train, test}) => [train, test]));
    const x = epoch => LEFT + (width - LEFT - RIGHT) * epoch / last;
    const y = loss => HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * loss / highest;
    host.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    host.setAttribute("aria-label", summary(session));
    const now = svg("line", {class: "now", x1: x(session.epoch), x2: x(session.epoch), y1: TOP, y2: HEIGHT - BOTTOM});
    host.replaceChildren(...axes(width, x, y, last, highest), ...legend(behind.length > 0),
      ...LINES.map(([name]) => line(behind, name, x, y, {class: "python"})),
      ...LINES.map(([name, , stroke, dashes]) => line(curve, name, x, y, {
        id: `${name}-curve`, stroke, "stroke-dasharray": dashes, "stroke-width": 2,
      })), now);
  }

  return {rebuild: update, update};
}

const summary = ({epoch, losses, curve}) =>
  `loss against the epoch: at epoch 0 training ${told(curve[0].train)}, test ${told(curve[0].test)}; ` +
  `at epoch ${epoch} training ${told(losses.train)}, test ${told(losses.test)}`;

const line = (curve, name, x, y, attributes) => svg("polyline", {
  points: curve.map(entry => `${x(entry.epoch).toFixed(1)},${y(entry[name]).toFixed(1)}`).join(" "),
  fill: "none",
  ...attributes,
});

function axes(width, x, y, last, highest) {
  const middle = (LEFT + width - RIGHT) / 2, floor = HEIGHT - BOTTOM;
  return [
    ...ticks(last).filter(Number.isInteger).flatMap(t => [
      svg("line", {x1: x(t), x2: x(t), y1: floor, y2: floor + 4, class: "tick"}),
      svg("text", {x: x(t), y: floor + 18, "text-anchor": "middle"}, t),
    ]),
    ...ticks(highest).flatMap(t => [
      svg("line", {x1: LEFT, x2: width - RIGHT, y1: y(t), y2: y(t), class: "grid"}),
      svg("text", {x: LEFT - 6, y: y(t) + 4, "text-anchor": "end"}, t),
    ]),
    svg("text", {x: middle, y: HEIGHT - 6, "text-anchor": "middle"}, "epoch"),
    svg("text", {
      x: 12, y: (TOP + floor) / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${(TOP + floor) / 2})`,
    }, "mean of ½ (y − t)²"),
  ];
}

function legend(python) {
  const entries = LINES.map(([, text, stroke, dashes]) =>
    [text, {stroke, "stroke-dasharray": dashes, "stroke-width": 2}]);
  if (python) entries.push(["Python", {class: "python"}]);
  return entries.flatMap(([text, attributes], i) => {
    const x = LEFT + 90 * i - (i > 1 ? 24 : 0);
    return [
      svg("line", {x1: x, x2: x + 26, y1: 14, y2: 14, ...attributes}),
      svg("text", {x: x + 32, y: 18}, text),
    ];
  });
}
