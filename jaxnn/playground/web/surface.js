// The output, or the unit pointed at, over the plane, with the points and a probe.
import {colour, paint, told} from "./colours.js";
import {find, svg} from "./dom.js";
import {featurize} from "./features.js";
import {layerMaps, OUTPUT_SIZE, REACH, unitMap, zeroLine} from "./maps.js";
import {forward} from "./network.js";
import {unitName} from "./scene.js";

const RADIUS = 0.11; // of a point, in units of the plane

export function makeSurface(app) {
  const canvas = find("surface"), drawing = find("points");
  canvas.width = canvas.height = OUTPUT_SIZE;
  paint(find("scale"), Float64Array.from({length: 255}, (_, i) => (i - 127) / 127));
  drawing.setAttribute("viewBox", `${-REACH} ${-REACH} ${2 * REACH} ${2 * REACH}`);
  const scale = 2 * REACH / OUTPUT_SIZE;
  const zero = svg("path", {id: "zero", transform: `translate(${-REACH} ${-REACH}) scale(${scale})`});
  const groups = {train: svg("g", {id: "train-group"}), test: svg("g", {id: "test-group"})};
  const cross = svg("path", {id: "cross", d: "M-0.35 0H0.35M0-0.35V0.35"});
  drawing.append(zero, groups.train, groups.test, cross);

  for (const name of ["train", "test"]) {
    const box = find(`${name}-points`), toggle = () => { groups[name].style.display = box.checked ? "" : "none"; };
    box.addEventListener("change", toggle);
    toggle();
  }
  for (const id of ["probe-x", "probe-y"]) {
    find(id).addEventListener("input", () => {
      probe();
      find(id).setAttribute("aria-valuetext", `${find(id).value}, ${find("probed").textContent}`); // read out on a change
    });
  }
  find("plane").addEventListener("pointermove", event => toProbe(event));
  find("plane").addEventListener("pointerdown", event => toProbe(event));

  function toProbe(event) {
    const box = find("plane").getBoundingClientRect();
    find("probe-x").value = REACH * (2 * (event.clientX - box.left) / box.width - 1);
    find("probe-y").value = REACH * (1 - 2 * (event.clientY - box.top) / box.height);
    probe();
  }

  function probe() {
    const {net, settings} = app.session, [x, y] = ["x", "y"].map(name => Number(find(`probe-${name}`).value));
    const output = forward(net, featurize(settings.features, Float64Array.of(x, y)), 1).at(-1)[0];
    find("probed").textContent = `output at (${told(x)}, ${told(y)}): ${told(output)}`;
    cross.setAttribute("transform", `translate(${x} ${-y})`);
  }

  function rebuild() { // the points
    for (const name of ["train", "test"]) groups[name].replaceChildren(...marks(app.session.points[name]));
    update();
  }

  function update() {
    const {net, settings} = app.session, at = app.shown() ?? {layer: net.layers.length - 1, unit: 0};
    const maps = layerMaps(net, settings.features, OUTPUT_SIZE);
    const values = unitMap(maps[at.layer + 1], net.layers[at.layer].units, at.unit);
    paint(canvas, values, app.discretized);
    zero.setAttribute("d", zeroLine(values, OUTPUT_SIZE));
    const name = unitName(net, at.layer, at.unit);
    find("surface-title").textContent = name[0].toUpperCase() + name.slice(1);
    canvas.setAttribute("aria-label", `${name} over the plane, x and y from -6 to 6`);
    probe();
  }

  return {rebuild, update};
}

// A circle for a target of 0 or more, a square for a negative one.
const marks = ({x, y}) => Array.from(y, (target, i) => {
  const [cx, cy] = [x[2 * i], -x[2 * i + 1]], fill = colour(target), side = 1.8 * RADIUS;
  return target >= 0
    ? svg("circle", {cx, cy, r: RADIUS, fill})
    : svg("rect", {x: cx - side / 2, y: cy - side / 2, width: side, height: side, fill});
});
