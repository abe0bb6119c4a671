// Boots a Linux kernel in env86 for WebAssembly and copies COM1 to stdout:
//
//   node run.mjs MODULE KERNEL INITRD CMDLINE [MEMORY_MB [INPUT TEXT]]
//
// With INPUT and TEXT, the machine runs by a script that types INPUT and waits for TEXT, and the end
// tells what `env86 boot --deterministic` does.
// MODULE is env86_bench_wasm.wasm (`make wasm` makes it). With ENV86_STATS set, what
// was executed is told on stderr at the end.
import { readFileSync, writeSync } from "node:fs";
import { performance } from "node:perf_hooks";

const INSTRUCTIONS_A_SLICE = 500_000;
const [, , module, kernel, initrd, cmdline, megabytes = "512", input, text] = process.argv;
if (cmdline === undefined) {
  console.error("usage: node run.mjs MODULE KERNEL INITRD CMDLINE [MEMORY_MB [INPUT TEXT]]");
  process.exit(2);
}

const host = { elapsed_millis: () => performance.now(), unix_millis: () => Date.now() };
const { instance } = await WebAssembly.instantiate(readFileSync(module), { host });
const env86 = instance.exports;
// Memory may grow, which detaches every view of it.
const bytes = (at, length) => new Uint8Array(env86.memory.buffer, at, length);

const runner = env86.env86_new();
const files = [readFileSync(kernel), initrd ? readFileSync(initrd) : Buffer.alloc(0), Buffer.from(cmdline)];
const byScript = text !== undefined;
if (byScript) files.push(Buffer.from(input), Buffer.from(text));
files.forEach((file, number) => bytes(env86.env86_file(runner, number, file.length), file.length).set(file));
if (!env86.env86_boot(runner, Number(megabytes) * 2 ** 20, byScript)) {
  console.error(`${kernel} cannot be booted with ${megabytes} MB`);
  process.exit(1);
}

const sleeper = new Int32Array(new SharedArrayBuffer(4));
for (;;) {
  const idle = env86.env86_run(runner, INSTRUCTIONS_A_SLICE);
  const length = env86.env86_output_len(runner);
  if (length > 0) writeSync(1, bytes(env86.env86_output(runner), length));
  if (idle < 0) break;
  if (idle > 0) Atomics.wait(sleeper, 0, 0, idle);
}
if (byScript) {
  const digest = BigInt.asUintN(64, env86.env86_digest(runner)).toString(16).padStart(16, "0");
  console.error(`env86: ${env86.env86_instructions(runner)} instructions, state ${digest}`);
}
if (process.env.ENV86_STATS) {
  const seconds = performance.now() / 1e3;
  const millions = env86.env86_instructions(runner) / 1e6;
  console.error(`${millions.toFixed(1)} million instructions in ${seconds.toFixed(2)} s`);
}
