// The benchmark guest in one browser: the package env86 and the npm package v86 with its JIT, in turns.
//
//   node speed.mjs PACKAGE PEER GUEST [TURNS]
//
// PACKAGE is what `make web` makes, PEER the folder of `make peers`, GUEST what benches/guest/build makes. Both have the same kernel,
// initial RAM disk, command line and memory. Prints each section's time on the page's clock (medians of the turns), what all
// processes of the browser used of processors from the first section to the last, and how much memory the page's
// process has at the end. What a section says on COM1 must be the same.
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { start } from "./browser.mjs";
import { serve } from "./site.mjs";

const [, , own, peer, guest, turns = "1"] = process.argv;
if (guest === undefined) {
  console.error("usage: node speed.mjs PACKAGE PEER GUEST [TURNS]");
  process.exit(2);
}
const cmdline = await readFile(join(guest, "cmdline"), "utf8");

const page = (script, options) => `<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
<div id="screen"><div style="white-space: pre"></div><canvas></canvas></div>
<script type="module">
import { V86 } from "${script}";
const vm = new V86({
  memory_size: 512 << 20, vga_memory_size: 8 << 20, autostart: true, disable_speaker: true,
  bzimage: { url: "/guest/vmlinuz" }, initrd: { url: "/guest/initrd" }, cmdline: ${JSON.stringify(cmdline)},
  screen_container: document.querySelector("#screen"),
  ${options}
});
globalThis.lines = [["boot", performance.now()]];
let line = "";
vm.add_listener("serial0-output-byte", (byte) => {
  if (byte !== 10) return (line += String.fromCharCode(byte));
  lines.push([line.trim(), performance.now()]);
  line = "";
});
</script>`;

/** Milliseconds by section, and what each has said. */
function sections(lines) {
  const [times, said] = [new Map(), new Map()];
  let [name, since] = lines.shift();
  for (const [text, at] of lines) {
    const begins = /^@@(?:B (\S+)|BOOT|END)/.exec(text);
    if (begins) {
      times.set(name, at - since);
      [name, since] = [begins[1] ?? "", at];
    } else if (name && name !== "boot" && !/^\[ *\d+\.\d+\]/.test(text)) {
      said.set(name, `${said.get(name) ?? ""}${text}\n`);
    }
  }
  times.delete("");
  return { times, said };
}

const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];
const pages = await mkdtemp(join(tmpdir(), "env86-speed-"));
const roms = 'bios: { url: "/bios/bios.bin" }, vga_bios: { url: "/bios/vgabios.bin" }';
await writeFile(join(pages, "env86.html"), page("/env86/env86.mjs", ""));
await writeFile(join(pages, "v86.html"), page("/v86/libv86.mjs", `wasm_path: "/v86/v86.wasm", ${roms}`));
const v86 = join(peer, "node_modules/v86/build");
const site = await serve([["/env86/", own], ["/v86/", v86], ["/bios/", join(peer, "seabios")], ["/guest/", guest], ["/", pages]]);

try {
  const all = { env86: [], v86: [] };
  for (let turn = 0; turn < Number(turns); turn++) {
    for (const name of ["env86", "v86"]) {
      const browser = await start();
      try {
        const page = await browser.open(`${site.url}${name}.html`);
        await page.until('lines.some(([text]) => text.startsWith("@@BOOT"))');
        const before = await browser.processorSeconds();
        await page.until('lines.some(([text]) => text.startsWith("@@END"))');
        const processor = (await browser.processorSeconds()) - before;
        const memory = await browser.pageMemory();
        all[name].push({ ...sections(await page.value("lines")), processor, memory });
        console.log(`${name}\tof processors ${processor.toFixed(1)} s\tmemory ${memory >> 10} MiB`);
      } finally {
        await browser.close();
      }
    }
  }
  const ratios = [];
  console.log("section\tenv86 s\tv86 s\tratio");
  for (const name of all.v86[0].times.keys()) {
    const of = (emulator) => median(all[emulator].map(({ times }) => times.get(name))) / 1e3;
    const [a, b] = [of("env86"), of("v86")];
    if (name !== "boot") ratios.push(a / b);
    console.log(`${name}\t${a.toFixed(2)}\t${b.toFixed(2)}\t${(a / b).toFixed(2)}`);
    for (const { said } of [...all.env86, ...all.v86]) {
      if (said.get(name) !== all.v86[0].said.get(name)) throw new Error(`${name} says something else: ${said.get(name)}`);
    }
  }
  const mean = Math.exp(ratios.reduce((sum, ratio) => sum + Math.log(ratio), 0) / ratios.length);
  const ratio = (what) => (median(all.env86.map((run) => run[what])) / median(all.v86.map((run) => run[what]))).toFixed(2);
  console.log(`geometric mean without boot ${mean.toFixed(2)}, time of processors ${ratio("processor")}, memory ${ratio("memory")}`);
} finally {
  site.close();
  await rm(pages, { recursive: true });
}
