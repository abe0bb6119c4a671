// One leg of a state's journey in the npm package v86.
//
// node machine.mjs PLAN.json, with in the plan:
//   v86          the package's folder (node_modules/v86)
//   bios, vga_bios, kernel, initrd, cmdline   what to boot; without `state` only
//   state        the state to restore instead
//   save         where to write the state at the end
//   memory_mb, acpi, options                  the machine
//   blank        {cdrom: bytes, ...}: empty media
//   wait_ms      how long to run before the first step
//   steps        [[text to send over COM1 or null, text to wait for or null], ...]
//   sound        where to write what the sound card plays: 16-bit samples of its left side
//   files        [name, ...]: files of the 9p share to print at the end
//   timeout_s    for all of it
//
// COM1 goes to stdout; what this program has to say goes to stderr as lines `@ KEY VALUE`.
import { closeSync, fsyncSync, openSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { pathToFileURL } from "node:url";

const plan = JSON.parse(readFileSync(process.argv[2], "utf8"));
const file = path => {
  const b = readFileSync(path);
  return { buffer: b.buffer.slice(b.byteOffset, b.byteOffset + b.byteLength) };
};
const say = (key, value) => process.stderr.write(`@ ${key} ${value}\n`);
const { V86 } = await import(pathToFileURL(`${plan.v86}/build/libv86.mjs`));

const options = {
  wasm_path: `${plan.v86}/build/v86.wasm`,
  memory_size: plan.memory_mb << 20,
  vga_memory_size: 8 << 20,
  bios: file(plan.bios),
  vga_bios: file(plan.vga_bios),
  disable_speaker: true,
  autostart: true,
  filesystem: {},
  uart1: true,
  acpi: !!plan.acpi,
  preserve_mac_from_state_image: true,
  ...plan.options,
};
if (plan.state) {
  options.initial_state = file(plan.state);
} else if (plan.kernel) {
  options.bzimage = file(plan.kernel);
  if (plan.initrd) options.initrd = file(plan.initrd);
  options.cmdline = plan.cmdline;
}

for (const [name, bytes] of Object.entries(plan.blank || {})) options[name] = { buffer: new ArrayBuffer(bytes) };

const started = performance.now();
setTimeout(() => { say("error", "timeout"); process.exit(3); }, (plan.timeout_s || 120) * 1000);
process.on("unhandledRejection", e => { say("error", e?.stack || e); process.exit(4); });
process.on("uncaughtException", e => { say("error", e?.stack || e); process.exit(4); });

const vm = new V86(options);
let seen = "", wake = () => {};
vm.add_listener("serial0-output-byte", byte => {
  const c = String.fromCharCode(byte);
  process.stdout.write(c);
  seen += c;
  wake();
});
const until = text => new Promise(resolve => {
  wake = () => {
    const at = seen.indexOf(text);
    if (at >= 0) { seen = seen.slice(at + text.length); wake = () => {}; resolve(); }
  };
  wake();
});
if (plan.sound) {
  // As v86's loudspeaker in a page does, it asks the card for more as long as what is queued is less than a
  // fifth of a second.
  const RATE = 44100, QUEUE = RATE / 5;
  const to = openSync(plan.sound, "w");
  let samples = 0, start = null;
  const ask = () => {
    const heard = start === null ? 0 : (performance.now() - start) / 1000 * RATE;
    if (samples - heard < QUEUE) vm.bus.send("dac-request-data");
  };
  vm.bus.register("dac-send-data", ([left]) => {
    start ??= performance.now();
    samples += left.length;
    writeSync(to, Int16Array.from(left, sample => Math.round(sample * 32767.5)));
    setImmediate(ask);
  }, vm);
  setInterval(ask, 5);
}
await new Promise(resolve => vm.add_listener("emulator-ready", resolve));
say("ready", (performance.now() - started).toFixed(0));

await new Promise(resolve => setTimeout(resolve, plan.wait_ms || 0));
for (const [send, expect] of plan.steps || []) {
  if (send !== null) vm.serial0_send(send);
  if (expect !== null) await until(expect);
  say("step", (performance.now() - started).toFixed(0));
}
for (const name of plan.files || []) {
  const bytes = await vm.read_file(name);
  say("file", `${name} ${Buffer.from(bytes).toString("base64")}`);
}
if (plan.screen) {
  say("screen", JSON.stringify(vm.screen_adapter?.get_text_screen?.() ?? null));
}
if (plan.save) {
  // The machine may be in the middle of a slice: v86 answers what the guest asked of its 9p file system in that
  // slice a few microtasks after it, and a state saved before then has neither the question nor the answer.
  await new Promise(resolve => setTimeout(resolve, 0));
  const before = performance.now();
  const state = await vm.save_state();
  const to = openSync(plan.save, "w");
  writeFileSync(to, new Uint8Array(state));
  const written = performance.now() - before;
  fsyncSync(to);
  closeSync(to);
  const flushed = performance.now() - before;
  // Bytes, and milliseconds until they were written and until they were on the disk.
  say("saved", `${state.byteLength} ${written.toFixed(0)} ${flushed.toFixed(0)}`);
}
process.exit(0);
