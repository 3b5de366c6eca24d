// Colours of values, distinct for the colour-blind: vermilion for -1, nearly white for 0, blue for +1.

const NEGATIVE = [213, 94, 0], ZERO = [247, 247, 247], POSITIVE = [0, 114, 178];
const STEPS = 127; // on each side of 0
const blend = (a, b, t) => a.map((v, i) => Math.round(v + t * (b[i] - v)));
const PALETTE = Array.from({length: 2 * STEPS + 1}, (_, i) =>
  blend(ZERO, i < STEPS ? NEGATIVE : POSITIVE, Math.abs(i - STEPS) / STEPS));

const shade = v => PALETTE[Math.round(STEPS * Math.max(-1, Math.min(1, v))) + STEPS];

export const colour = v => `rgb(${shade(v).join()})`;
export const strong = v => `rgb(${(v < 0 ? NEGATIVE : POSITIVE).join()})`;

// Draw a map on a canvas of as many pixels; discretized, values become their sign, +1 at 0.
export function paint(canvas, values, discretized = false) {
  const {width, height} = canvas, image = new ImageData(width, height);
  for (let i = 0; i < values.length; i++) {
    const value = discretized ? (values[i] >= 0 ? 1 : -1) : values[i];
    image.data.set(Number.isFinite(values[i]) ? shade(value) : ZERO, 4 * i);
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

// A number with three significant digits, for reading.
export const told = v => Number.isFinite(v) ? String(Number(v.toPrecision(3))).replace("-", "−") : "not finite";
