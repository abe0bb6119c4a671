// Restarts a machine in the package under Node whose kernel is a file by itself, which the package does not keep.
//
//   node restart.mjs PACKAGE KERNEL INITRD MARK CMDLINE
//
// PACKAGE is env86.mjs with its program beside it. Each start has to send MARK over COM1.
import { pathToFileURL } from "node:url";

const [, , script, kernel, initrd, mark, cmdline] = process.argv;
const { V86 } = await import(pathToFileURL(script));
const vm = new V86({ autostart: true, bzimage: { url: kernel }, initrd: { url: initrd }, cmdline });
vm.add_listener("emulator-error", (error) => {
  console.error(error);
  process.exit(1);
});
let [said, wake] = ["", undefined];
vm.add_listener("serial0-output-byte", (byte) => {
  said += String.fromCharCode(byte);
  if (said.endsWith(mark)) wake();
});
const started = () => {
  said = "";
  return new Promise((resolve) => (wake = resolve));
};
const restarted = async () => {
  const start = started();
  await vm.restart();
  await start;
};

await started();
const state = await vm.save_state();
await restarted();
// A state does not have the kernel that its machine was started with.
await vm.restore_state(state);
await restarted();
await vm.destroy();
