// The bias and the incoming weights of one unit as numbers to change.
import {find, html} from "./dom.js";
import {inputName, unitName} from "./scene.js";

const shown = value => Number.isFinite(value) ? Number(value.toPrecision(5)) : "";

export function makeEditor(app) {
  const fields = []; // {input, layer, from, to}; from is null for the bias

  const choice = () => find("chosen").value.split(",").map(Number);
  find("chosen").addEventListener("change", fill);

  function rebuild() {
    const {net} = app.session, {selectedIndex, length, value: had} = find("chosen");
    const option = (layer, unit) => html("option", {value: `${layer},${unit}`}, unitName(net, layer, unit));
    find("chosen").replaceChildren(...net.layers.flatMap(({units}, layer) =>
      Array.from({length: units}, (_, unit) => option(layer, unit))));
    if (selectedIndex < length - 1) find("chosen").value = had;
    if (selectedIndex === length - 1 || !find("chosen").value) find("chosen").selectedIndex = find("chosen").length - 1;
    fill();
  }

  function fill() {
    const [layer, to] = choice(), {net, settings} = app.session;
    fields.length = 0;
    find("values").setAttribute("aria-label", unitName(net, layer, to));
    const names = [["bias", null], ...Array.from({length: net.layers[layer].inputs}, (_, from) =>
      [`from ${inputName(settings, layer, from)}`, from])];
    find("values").replaceChildren(...names.map(([name, from]) => {
      const input = html("input", {type: "number", step: 0.1, "data-from": from ?? "bias"});
      input.addEventListener("change", () => {
        if (input.value !== "" && Number.isFinite(input.valueAsNumber)) app.edit(layer, from, to, input.valueAsNumber);
        update();
      });
      fields.push({input, layer, from, to});
      return html("label", {}, html("span", {}, name), input);
    }));
    update();
  }

  function update() {
    for (const {input, layer, from, to} of fields) {
      const {w, b, units} = app.session.net.layers[layer], value = from === null ? b[to] : w[from * units + to];
      if (input !== document.activeElement || !app.playing()) input.value = shown(value);
    }
  }

  // Show a unit, and put the focus on one of its weights or, where `from` is null, its bias.
  function choose(layer, unit, from) {
    find("chosen").value = `${layer},${unit}`;
    fill();
    const {input} = fields.find(field => field.from === from);
    input.focus();
    input.select();
  }

  return {rebuild, update, choose};
}
