// What a machine plays, for a device that asks for it when it wants it: a queue between two clocks.
//
// The queue is kept as long as the machine's lateness needs, and no longer: its target grows each time that it has
// run dry, and shrinks in calm. What is played is stretched or squeezed by up to half a percent to stay near the
// target, which nobody hears. Where there is nothing to play, the last frame fades out, and what comes after that
// fades in: no clicks.

/** Frames a second that come out of a machine. */
export const FRAME_RATE = 48_000;
/** The least and the most that is kept waiting: 25 and 100 ms. */
const LEAST = 1200;
const MOST = 4800;
/** More than this is thrown away. */
const LIMIT = 9600;
/** By how much the target grows each time that the queue runs dry. */
const GROWTH = 480;
/** What is left of the target's excess over the least after a second in which nothing happened. */
const CALM = 0.95;
/** How far what is played is stretched or squeezed at most. */
const STRETCH = 0.005;
/** Frames of a fade. */
const FADE = 240;

export class Player {
  /** Pieces that wait, how far the first is played, and how many frames wait in all. */
  #pieces = [];
  #at = 0;
  #waiting = 0;
  #target = LEAST;
  #ratio;
  #plays = false;
  #volume = 0;
  /** The two frames between which the device is, and where. */
  #between = 0;
  #before = [0, 0];
  #behind = [0, 0];

  /** `rate` is the device's. */
  constructor(rate) {
    this.#ratio = FRAME_RATE / rate;
  }

  /** Frames that wait. */
  get waiting() {
    return this.#waiting;
  }

  /** Takes what the machine has played: samples left and right in turns. */
  give(samples) {
    this.#pieces.push(samples);
    this.#waiting += samples.length >> 1;
    if (this.#waiting <= LIMIT) return;
    // The machine has come late and brings all at once.
    while (this.#waiting > this.#target) this.#next();
    this.#volume = 0;
  }

  #next() {
    const [piece] = this.#pieces;
    this.#before = this.#behind;
    this.#behind = [piece[this.#at] / 32_768, piece[this.#at + 1] / 32_768];
    this.#waiting--;
    this.#at += 2;
    if (this.#at < piece.length) return;
    this.#pieces.shift();
    this.#at = 0;
  }

  /** Fills both sides. */
  play(left, right) {
    const calm = CALM ** (left.length * (this.#ratio / FRAME_RATE));
    this.#target = LEAST + (this.#target - LEAST) * calm;
    for (let n = 0; n < left.length; n++) {
      if (!this.#plays && this.#waiting >= this.#target) this.#plays = true;
      if (this.#plays) {
        const error = Math.max(-1, Math.min(1, (this.#waiting - this.#target) / this.#target));
        this.#between += this.#ratio * (1 + error * STRETCH);
        while (this.#between >= 1) {
          if (this.#waiting === 0) {
            this.#plays = false;
            this.#between = 0;
            this.#target = Math.min(MOST, this.#target + GROWTH);
            break;
          }
          this.#next();
          this.#between--;
        }
      }
      const goal = this.#plays ? 1 : 0;
      this.#volume += Math.max(-1 / FADE, Math.min(1 / FADE, goal - this.#volume));
      const side = (which) => (this.#before[which] + (this.#behind[which] - this.#before[which]) * this.#between) * this.#volume;
      left[n] = side(0);
      right[n] = side(1);
    }
  }
}
