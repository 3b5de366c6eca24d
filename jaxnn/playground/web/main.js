// The page: a session, the parts that show it, and what the user does.
import {told} from "./colours.js";
import {makeChart} from "./chart.js";
import {makeControls} from "./controls.js";
import {find, html} from "./dom.js";
import {makeEditor} from "./editor.js";
import {makePlayer, SPEEDS} from "./player.js";
import {readRun} from "./run.js";
import {makeScene} from "./scene.js";
import {advance, begin, change, edit, follows, open, rewind} from "./session.js";
import {makeSurface} from "./surface.js";

const SAID_EVERY = 5000; // milliseconds between two announcements of the losses during play
const CALM = 1000; // milliseconds between two pictures for who prefers reduced motion
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const last = {shown: -Infinity, said: -Infinity}; // times

const app = {
  session: open(readRun(find("run").textContent)),
  discretized: false,
  playing: () => player.playing(),
  shown: () => scene.shown(),
  showUnit: () => surface.update(),
  tell: text => { find("readout").textContent = text; },
  choose: (layer, unit, from) => editor.choose(layer, unit, from),

  change(changes) {
    const before = app.session;
    app.session = change(before, changes);
    if (app.session !== before) restarted("A new network, before its first epoch.");
    else rebuild();
  },
  edit(layer, from, to, value) {
    player.pause();
    edit(app.session, layer, from, to, value);
    update();
    say(`Changed. ${lossText()}`);
  },
};

const scene = makeScene(app), surface = makeSurface(app), chart = makeChart(app), editor = makeEditor(app);
const controls = makeControls(app), parts = [controls, scene, surface, chart, editor];

const player = makePlayer({
  train,
  show() {
    const now = performance.now();
    if (calm.matches && now - last.shown < CALM) return;
    last.shown = now;
    update();
    if (now - last.said >= SAID_EVERY) say(lossText());
  },
  ended() {
    find("play").textContent = "Play";
    update();
    if (finite()) say(lossText());
  },
  speed: () => Number(find("speed").value),
});

const finite = () => Number.isFinite(app.session.losses.train) && Number.isFinite(app.session.losses.test);

function train() {
  const fine = advance(app.session);
  if (!fine) say(`The loss is not finite after epoch ${app.session.epoch}. Reset, and use a smaller learning rate.`);
  return fine;
}

function say(text) {
  last.said = performance.now();
  find("status").textContent = text;
}

function lossText() {
  const {epoch, losses} = app.session;
  return `Epoch ${epoch}: training loss ${told(losses.train)}, test loss ${told(losses.test)}.`;
}

function originText() {
  const {run, gap, points, faithful} = app.session;
  if (!follows(app.session)) {
    const whose = points === run.points ? "its" : "other";
    return `Trained here, in float64, with other settings than the Python run's on ${whose} points.`;
  }
  if (!faithful) return "The settings are the Python run's, the weights no longer: Reset starts it anew.";
  const away = gap === null ? "" : ` Losses computed here differ from Python's by at most ${gap.toExponential(1)}.`;
  return `The settings are those of the Python run (${run.settings.epochs} epochs in ${run.dtype}), and so are the ` +
    `points, the first weights and the order of the batches.${away}`;
}

function update() {
  const {session} = app, {epoch, losses, history, shown} = session;
  for (const part of parts) part.update();
  find("epoch").textContent = `epoch ${epoch}`;
  find("losses").textContent = `loss: training ${told(losses.train)}, test ${told(losses.test)}`;
  Object.assign(find("slider"), {max: history.length - 1, value: shown});
  find("slider").setAttribute("aria-valuetext", `epoch ${epoch}`);
  find("slider").disabled = history.length < 2;
  find("origin").textContent = originText();
}

function rebuild() {
  for (const part of parts) part.rebuild();
  update();
}

function restarted(text) {
  player.pause();
  rebuild();
  say(`${text} ${lossText()}`);
}

function load(text) {
  app.session = open(readRun(text));
  restarted("The Python run, at its end.");
}

find("speed").append(...SPEEDS.map(([text, value]) => html("option", {value, selected: value === 20}, text)));
find("play").addEventListener("click", () => {
  if (player.playing()) return player.pause();
  find("play").textContent = "Pause";
  player.play();
});
find("step").addEventListener("click", () => {
  player.pause();
  if (train()) say(lossText());
  update();
});
find("reset").addEventListener("click", () => {
  app.session = begin(app.session.run, app.session.settings);
  restarted("Before the first epoch.");
});
find("slider").addEventListener("input", () => {
  const index = Number(find("slider").value); // pausing puts the slider at the end
  player.pause();
  rewind(app.session, index);
  update();
});
find("discretize").addEventListener("change", () => {
  app.discretized = find("discretize").checked;
  rebuild();
});
find("reload").addEventListener("click", () => load(find("run").textContent));
find("file").addEventListener("change", async () => {
  const [file] = find("file").files;
  if (!file) return;
  try {
    load(await file.text());
  } catch (error) {
    say(`${file.name} cannot be loaded: ${error.message}.`);
  }
});
let width = 0;
new ResizeObserver(() => {
  if (find("network").clientWidth === width) return;
  width = find("network").clientWidth;
  scene.rebuild();
  chart.rebuild();
}).observe(find("network"));
restarted("The Python run, at its end.");

// For the console: playground.train(100), playground.change({hidden: [8, 8]}), playground.session.
window.playground = {
  get session() { return app.session; },
  load,
  change: changes => app.change(changes),
  train(epochs) {
    for (let i = 0; i < epochs && train(); i++);
    update();
  },
};
