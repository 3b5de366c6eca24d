// Seeded random numbers, the same in every browser: the generator sfc32 of PractRand (Doty-Humphrey).

const WARM_UP = 15; // outputs until the seeds have mixed

export function makeRandom(...seeds) {
  let [a, b, c] = [0, 1, 2].map(i => (seeds[i] ?? 0) | 0);
  let d = 1;

  function bits() {
    const t = (((a + b) | 0) + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + t) | 0;
    return t >>> 0;
  }

  for (let i = 0; i < WARM_UP; i++) bits();

  const unit = () => ((bits() >>> 5) * 2 ** 26 + (bits() >>> 6)) / 2 ** 53; // in [0, 1)
  return {
    uniform: (low = 0, high = 1) => low + (high - low) * unit(),
    normal: () => Math.sqrt(-2 * Math.log(1 - unit())) * Math.cos(2 * Math.PI * unit()), // Box and Muller
    permutation: n => shuffled(n, unit),
  };
}

function shuffled(n, unit) { // Fisher and Yates
  const order = Uint16Array.from({length: n}, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const j = Math.floor(unit() * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}
