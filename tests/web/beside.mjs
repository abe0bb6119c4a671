// Time and bytes to the first prompt in one browser: the package env86 and the npm package v86, in turns.
//
//   node beside.mjs PREPARED PEER IMAGE [TURNS]
//
// PREPARED is the folder that `env86 prepare` makes of the image, which is served as it is, PEER the one of `make peers` (the npm package, and SeaBIOS), IMAGE the
// demo image as it is made. Both pages have the same image and the same memory, show the screen, and end at the prompt
// on COM1. Each turn has a browser of its own, so that nothing is in its cache. Bytes are those of answers' bodies,
// not compressed; processors' time is that of all processes of the browser, which depends less on what else runs here; the programs' sizes are by Brotli, as a web server sends them.
import { mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { brotliCompressSync } from "node:zlib";
import { start } from "./browser.mjs";
import { serve } from "./site.mjs";

const [, , own, peer, image, turns = "1"] = process.argv;
if (image === undefined) {
  console.error("usage: node beside.mjs PREPARED PEER IMAGE [TURNS]");
  process.exit(2);
}
const v86 = join(peer, "node_modules/v86/build");
const { cmdline } = JSON.parse(await readFile(join(image, "image.json")));

const page = (script, options) => `<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
<div id="screen"><div style="white-space: pre"></div><canvas></canvas></div>
<script type="module">
import { V86 } from "${script}";
const vm = new V86({
  memory_size: 512 << 20, vga_memory_size: 8 << 20, autostart: true, disable_speaker: true, uart1: true,
  bzimage_initrd_from_filesystem: true, cmdline: ${JSON.stringify(cmdline)},
  screen_container: document.querySelector("#screen"),
  ${options}
});
let said = "";
vm.add_listener("serial0-output-byte", (byte) => {
  said += String.fromCharCode(byte);
  if (said.endsWith("# ")) globalThis.atPrompt ??= performance.now();
});
</script>`;

const filesystem = (at, more) => `filesystem: { basefs: "${at}/fs.json", baseurl: "${at}/fs/", ${more} }`;

const pages = await mkdtemp(join(tmpdir(), "env86-beside-"));
const roms = 'bios: { url: "/bios/bios.bin" }, vga_bios: { url: "/bios/vgabios.bin" }';
await writeFile(join(pages, "env86.html"), page("/env86/env86.mjs", filesystem("/env86/image", "packed: true")));
await writeFile(join(pages, "v86.html"), page("/v86/libv86.mjs", `wasm_path: "/v86/v86.wasm", ${roms}, ${filesystem("/image", "")}`));
const site = await serve([["/env86/", own], ["/v86/", v86], ["/bios/", join(peer, "seabios")], ["/image/", image], ["/", pages]]);

/** What a visitor's browser has to have before it can start, as a server with Brotli sends it. */
async function packed(folder, wanted) {
  const names = (await readdir(folder)).filter(wanted);
  const sizes = await Promise.all(names.map(async (name) => brotliCompressSync(await readFile(join(folder, name))).length));
  return sizes.reduce((sum, size) => sum + size, 0);
}

const ratio = (of) => (of.env86 / of.v86).toFixed(2);

try {
  const program = {
    env86: await packed(own, (name) => /^(env86|machine|worker|link|near|files|screen|input|serial|sound|network|unpack)\.(mjs|wasm)$/.test(name)),
    v86: await packed(v86, (name) => name === "libv86.mjs" || name === "v86.wasm"),
  };
  console.log(`program by Brotli: env86 ${program.env86} bytes, v86 ${program.v86} bytes, ratio ${ratio(program)}`);
  for (let turn = 0; turn < Number(turns); turn++) {
    const [seconds, bytes, processor] = [{}, {}, {}];
    for (const name of ["env86", "v86"]) {
      const before = { ...site };
      const browser = await start();
      try {
        const idle = await browser.processorSeconds();
        const page = await browser.open(`${site.url}${name}.html`);
        await page.until("globalThis.atPrompt > 0");
        seconds[name] = (await page.value("globalThis.atPrompt")) / 1e3;
        processor[name] = (await browser.processorSeconds()) - idle;
        bytes[name] = site.bytes - before.bytes;
        const count = site.requests - before.requests;
        console.log(`${name}\t${seconds[name].toFixed(1)} s\tof processors ${processor[name].toFixed(1)} s\t${(bytes[name] / 1e6).toFixed(2)} MB in ${count} requests`);
      } finally {
        await browser.close();
      }
    }
    console.log(`env86/v86\ttime ${ratio(seconds)}\tof processors ${ratio(processor)}\tbytes ${ratio(bytes)}`);
  }
} finally {
  site.close();
  await rm(pages, { recursive: true });
}
