// The player of the machine's sound, without a browser: what it makes of a machine that is steady, and of one that is
// late.
//
//   node player.mjs PACKAGE
//
// PACKAGE is the folder with player.mjs.
import assert from "node:assert/strict";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [, , folder] = process.argv;
const { Player, FRAME_RATE } = await import(pathToFileURL(resolve(folder, "player.mjs")));

/** Frames of a piece that comes from the machine: 10 ms. */
const PIECE = FRAME_RATE / 100;

/** A piece of a tone of 440 Hz. */
function tone(number) {
  const at = (n) => Math.sin(((number * PIECE + n) / FRAME_RATE) * 440 * 2 * Math.PI) * 20_000;
  return Int16Array.from({ length: 2 * PIECE }, (_, n) => at(n >> 1));
}

/** What is heard of a tone, of which `late(piece)` says by how many pieces it is late. */
function heard(rate, pieces, late) {
  const player = new Player(rate);
  const all = [];
  let sent = 0;
  let longest = 0;
  for (let piece = 0; piece < pieces; piece++) {
    for (; sent + late(piece) <= piece; sent++) player.give(tone(sent));
    longest = Math.max(longest, player.waiting);
    const [left, right] = [new Float32Array(rate / 100), new Float32Array(rate / 100)];
    player.play(left, right);
    all.push(...left);
    assert.deepEqual(left, right);
  }
  return { all, longest };
}

const roughest = (frames) => frames.reduce((most, value, n) => (n ? Math.max(most, Math.abs(value - frames[n - 1])) : 0), 0);

for (const rate of [44_100, 48_000, 96_000]) {
  const { all, longest } = heard(rate, 300, () => 0);
  const end = all.slice(all.length / 2);
  const crossings = end.filter((value, n) => n > 0 && end[n - 1] < 0 && value >= 0).length;
  assert.ok(crossings >= 655 && crossings <= 665, `${rate}: ${crossings}`);
  assert.ok(end.reduce((most, value) => Math.max(most, value), 0) > 0.58);
  assert.ok(longest < 5000, `${longest}`);
}
// A step of the tone itself is 0.035: lateness makes no click.
const stutter = heard(48_000, 400, (piece) => (piece % 50 < 6 ? 5 : 0));
assert.ok(roughest(stutter.all) < 0.06, `${roughest(stutter.all)}`);
const end = heard(48_000, 400, (piece) => (piece > 200 ? 400 : 0));
assert.ok(roughest(end.all) < 0.06, `the end: ${roughest(end.all)}`);
assert.equal(end.all.at(-1), 0);
// Ten seconds at once are not played for ten seconds.
const flood = new Player(48_000);
for (let piece = 0; piece < 1000; piece++) flood.give(tone(piece));
assert.ok(flood.waiting <= 9600, `${flood.waiting}`);
console.log("the player plays");
