// Runs an image in the package under Node: types, waits, and saves.
//
//   node machine.mjs PACKAGE IMAGE STATE|- INPUT MARK SAVE
//
// PACKAGE is env86.mjs with its program beside it. What COM1 has sent when MARK has come goes to stdout. Before the
// state is saved, the page's side of the file system is tried: what the guest has put into /root/from-guest is
// printed on stderr, and /root/from-page is made. At the end the machine is restarted until its prompt.
import { writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [, , script, image, state, input, mark, save] = process.argv;
const { boot, FileNotFoundError } = await import(pathToFileURL(script));

const vm = await boot(image, state === "-" ? {} : { initial_state: { url: state } });
const failed = (error) => {
  console.error(error);
  process.exit(1);
};
vm.add_listener("emulator-error", failed);
vm.add_listener("download-error", failed);
let said = "";
const marked = new Promise((resolve) => {
  vm.add_listener("serial0-output-byte", (byte) => {
    said += String.fromCharCode(byte);
    if (said.endsWith(mark)) resolve();
  });
});
vm.serial0_send(input);
await marked;
process.stdout.write(said);

await vm.stop();
if (vm.is_running()) failed(new Error("it runs on"));
const text = new TextDecoder();
console.error(text.decode(await vm.read_file("/root/from-guest")));
await vm.create_file("/root/from-page", new TextEncoder().encode("made by the page\n"));
const missing = await vm.read_file("/root/not-there").catch((error) => error);
if (!(missing instanceof FileNotFoundError)) failed(new Error(`a file that is not there gives ${missing}`));
writeFileSync(save, Buffer.from(await vm.save_state()));

// The machine starts again from what it has kept, or from files that it has not read yet.
said = "";
const prompt = new Promise((resolve) => vm.add_listener("serial0-output-byte", () => said.endsWith("# ") && resolve()));
await vm.restart();
await vm.run();
await prompt;
await vm.destroy();
