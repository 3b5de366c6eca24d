// What the page holds and how it changes: settings, points, network, and the record of its training.
//
// The settings have the names of jaxnn.playground.Settings; its seed is here two, points_seed and weights_seed. Points,
// first weights and order of the batches are those of the Python run wherever the settings that determine them are its
// own, else made here.
import {makePoints, SOURCES} from "./data.js";
import {allAlive, trainEpoch} from "./descent.js";
import {featurize} from "./features.js";
import {makeLayers, meanLoss} from "./network.js";
import {makeRandom} from "./random.js";

export const MAX_LAYERS = 6; // as in jaxnn/playground/training.py
export const MAX_UNITS = 8;
const MOST = 120; // snapshots kept
const POINTS = ["data", "noise", "train_ratio", "points_seed"];
const START = ["features", "hidden", "weights_seed"];
const LIVE = ["learning_rate", "batch_size", "regularization", "regularization_rate"]; // change without a new start
const ALL = [...POINTS, ...START, ...LIVE, "activation"];

const same = (a, b, names) => names.every(name => JSON.stringify(a[name]) === JSON.stringify(b[name]));
const copied = layers => layers.map(layer => ({...layer, w: layer.w.slice(), b: layer.b.slice()}));
const alive = (layers, {regularization}) =>
  regularization === "l1" ? layers.map(({w}) => Uint8Array.from(w, v => v !== 0)) : allAlive(layers);

export const settingsOf = ({settings: {seed, ...rest}}) => ({...rest, points_seed: seed, weights_seed: seed});

// A run's own settings, with the strength of no penalty left aside.
export function follows(session) {
  const own = session.runSettings, penalised = own.regularization !== "none";
  return same(session.settings, own, ALL.filter(name => penalised || name !== "regularization_rate"));
}

// A session at the end of a Python run, with its record.
export function open(run) {
  const session = begin(run, settingsOf(run));
  session.curve = run.curve.epochs.map((epoch, i) => ({epoch, train: run.curve.train[i], test: run.curve.test[i]}));
  session.history = run.frames.map(frame => ({
    ...frame, alive: alive(frame.layers, session.settings), faithful: true, gap: null,
  }));
  rewind(session, session.history.length - 1);
  return session;
}

// A session before its first epoch.
export function begin(run, settings) {
  const runSettings = settingsOf(run);
  const points = same(settings, runSettings, POINTS) ? run.points : makePoints(settings, settings.points_seed);
  const sizes = [settings.features.length, ...settings.hidden, 1];
  const layers = same(settings, runSettings, START)
    ? copied(run.frames[0].layers)
    : makeLayers(sizes, makeRandom(settings.weights_seed, 1));
  const session = {
    run, runSettings, settings, points, stride: 1, history: [], curve: [], shown: 0,
    inputs: {train: featurize(settings.features, points.train.x), test: featurize(settings.features, points.test.x)},
    net: {layers, activation: settings.activation, problem: SOURCES[settings.data].problem},
    alive: allAlive(layers), epoch: 0, faithful: true, gap: null,
  };
  record(session);
  return session;
}

// The session with some settings changed: the same one if training can go on, else a new one before its first epoch.
export function change(session, changes) {
  const settings = {...session.settings, ...changes};
  if (!same(settings, session.settings, ALL.filter(name => !LIVE.includes(name)))) return begin(session.run, settings);
  if (settings.regularization !== session.settings.regularization) session.alive = allAlive(session.net.layers);
  session.settings = settings;
  return session;
}

// The order of the training points in the epoch to come.
export function orderOf({run, runSettings, settings, points, epoch}) {
  const own = points === run.points && settings.weights_seed === runSettings.weights_seed;
  if (own && epoch < run.orders.length) return run.orders[epoch];
  return makeRandom(settings.weights_seed, 2, epoch).permutation(points.train.y.length);
}

// Train for one epoch; false if the loss is no longer finite.
export function advance(session) {
  forgetLater(session);
  const {net, inputs, points, settings} = session;
  trainEpoch(net, session.alive, inputs.train, points.train.y, orderOf(session), settings);
  session.epoch += 1;
  session.faithful = session.faithful && follows(session);
  record(session);
  return Number.isFinite(session.losses.train) && Number.isFinite(session.losses.test);
}

// Back to a snapshot, by its index in the history.
export function rewind(session, index) {
  const {epoch, layers, alive: living, faithful, gap, losses} = session.history[index];
  Object.assign(session, {epoch, faithful, gap, losses, shown: index, alive: living.map(mask => mask.slice())});
  session.net.layers = copied(layers);
}

// Set one weight or, where `from` is null, a bias.
export function edit(session, layer, from, to, value) {
  forgetLater(session);
  const {w, b, units} = session.net.layers[layer];
  if (from === null) b[to] = value;
  else {
    w[from * units + to] = value;
    session.alive[layer][from * units + to] = 1; // a weight that the penalty had put to 0 lives again
  }
  session.faithful = false;
  session.history.pop();
  session.curve.pop();
  record(session);
}

// What was recorded after the epoch shown, which training from here makes anew.
function forgetLater(session) {
  session.history.length = session.shown + 1;
  if (session.curve.at(-1).epoch <= session.epoch) return;
  session.curve = session.curve.filter(({epoch}) => epoch <= session.epoch);
}

// The losses and a snapshot of the present epoch; with too many snapshots, only those of every second, fourth, ...
function record(session) {
  const {net, inputs, points, epoch, history, run} = session;
  const lossOn = name => meanLoss(net, inputs[name], points[name].y);
  const losses = session.losses = {train: lossOn("train"), test: lossOn("test")};
  session.curve.push({epoch, ...losses});
  const index = session.faithful && follows(session) ? run.curve.epochs.indexOf(epoch) : -1;
  if (index >= 0) { // the largest difference from Python's losses so far
    const away = ["train", "test"].map(name => Math.abs(losses[name] - run.curve[name][index]));
    session.gap = Math.max(session.gap ?? 0, ...away);
  }
  if (history.length > 1 && history.at(-1).epoch % session.stride) history.pop();
  history.push({
    epoch, losses, layers: copied(net.layers), alive: session.alive.map(mask => mask.slice()),
    faithful: session.faithful, gap: session.gap,
  });
  if (history.length > MOST) {
    session.stride *= 2;
    session.history = history.filter((s, i) => s.epoch % session.stride === 0 || i === history.length - 1);
  }
  session.shown = session.history.length - 1;
}
