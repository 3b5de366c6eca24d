// Training in time: play, pause, step.

const TICK = 50; // milliseconds between two pictures
const BUDGET = 30; // milliseconds of computing in each
const MOST = 200; // epochs in each
export const SPEEDS = [["1", 1], ["5", 5], ["20", 20], ["60", 60], ["as many as possible", Infinity]];

// `train` advances one epoch and says whether training can go on; `show` is called after each tick, `ended` at the end.
export function makePlayer({train, show, ended, speed}) {
  let timer = null, owed = 0;

  function pause() {
    if (timer === null) return;
    clearInterval(timer);
    timer = null;
    ended();
  }

  function tick() {
    const start = performance.now();
    owed = Math.min(owed + speed() * TICK / 1000, MOST);
    if (owed < 1 - 1e-9) return; // 20 times 1/20 is less than 1
    for (; owed >= 1 - 1e-9 && timer !== null; owed -= 1) {
      if (performance.now() - start > BUDGET) owed = 1; // what is too much is given up
      else if (!train()) pause();
    }
    show();
  }

  function play() {
    owed = 0;
    timer = setInterval(tick, TICK);
  }

  return {play, pause, playing: () => timer !== null};
}
