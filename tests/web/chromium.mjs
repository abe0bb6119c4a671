// The page that `env86 prepare` has made of the demo image, used as a visitor does: by mouse and keys.
//
//   node chromium.mjs ENV86 SITE SINGLE OUT
//
// SITE is the folder, SINGLE the page as one file; pictures of the page are written to OUT. ENV86 makes the network that the machine joins.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdir } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { start } from "./browser.mjs";
import { serve } from "./site.mjs";

const [, , program, folder, single, out] = process.argv;
if (out === undefined) {
  console.error("usage: node chromium.mjs ENV86 SITE SINGLE OUT");
  process.exit(2);
}
await mkdir(out, { recursive: true });
const here = dirname(fileURLToPath(import.meta.url));
const site = await serve([["/", folder], ["/", here]]);
const browser = await start();
let page;
const picture = (name) => page.picture(join(out, `${name}.png`));

/** Waits for a text on the machine's screen. */
const onScreen = (wanted) => page.until(`globalThis.vm.wait_until_vga_screen_contains(${wanted}, { timeout_msec: 5000 })`);
/** Waits for a text in the serial terminal. */
const onTerminal = (wanted) => page.until(`${wanted}.test(document.querySelector("#serial .xterm-rows").textContent)`);
/** A digest of the lines on the canvas down to that row of text. */
const drawn = (rows) => `(() => {
  const { width } = globalThis.canvas ??= document.querySelector("#screen canvas");
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, ${rows} * 16);
  return data.reduce((sum, value) => (Math.imul(sum, 31) + value) | 0, 0);
})()`;
const running = "globalThis.vm?.is_running()";
const has = (id, text) => page.until(`document.getElementById("${id}").textContent.includes(${JSON.stringify(text)})`);

/** What ENV86 is for pages with these arguments, a network or a server, and where they find it. */
async function started(args, address) {
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "inherit"] });
  const url = await new Promise((resolve, reject) => {
    let said = "";
    child.stdout.on("data", (text) => {
      said += text;
      const found = address.exec(said);
      if (found) resolve(found[0]);
    });
    child.on("exit", (code) => reject(new Error(`${program} ${args} has ended (${code}): ${said}`)));
    child.on("error", reject);
  });
  child.removeAllListeners("exit");
  return { url, close: () => child.kill() };
}

/** A guest's writes to ports, with no driver: what Linux's /dev/port is for. */
const out8 = (port, ...bytes) =>
  bytes.map((byte) => `printf '\\${byte.toString(8)}' | dd of=/dev/port bs=1 seek=${port} conv=notrunc 2>/dev/null`).join("; ");
/** The speaker plays a tone, or not. */
const TONE = [out8(0x43, 0xb6), out8(0x42, 0xa9, 0x04), out8(0x61, 3)].join("; ");
const STILL = out8(0x61, 0);

/**
 * The shell of the serial line has begun. What is typed before that may be lost: at its beginning it asks the terminal how large it
 * is, and takes what comes for the answer. Where there is no terminal that answers, it waits a moment, and goes on.
 */
async function shell() {
  await page.value(`(() => {
    globalThis.heard = "";
    vm.add_listener("serial0-output-bytes", (bytes) => (heard += new TextDecoder().decode(bytes)));
    vm.serial0_send("\\n");
  })()`);
  await page.until('/# $/.test(globalThis.heard)');
}

/** Hears what the page sends to its loudspeakers. */
const EAR = `(() => {
  const connect = AudioNode.prototype.connect;
  AudioNode.prototype.connect = function (to, ...rest) {
    if (to === this.context.destination) {
      globalThis.ear = new AnalyserNode(this.context);
      connect.call(this, globalThis.ear);
    }
    return connect.call(this, to, ...rest);
  };
  globalThis.loudness = () => {
    if (!globalThis.ear) return -1;
    const samples = new Float32Array(ear.fftSize);
    ear.getFloatTimeDomainData(samples);
    return Math.max(...samples.map(Math.abs));
  };
})()`;

let wire;
let served;
try {
  page = await browser.open(site.url);
  await picture("1-loading");
  await page.until(running);
  await onScreen("/# ?$/");
  console.log(`prompt: ${((await page.value("performance.now()")) / 1e3).toFixed(1)} s, ${(site.bytes / 1e6).toFixed(1)} MB`);
  await picture("2-prompt");

  // The canvas has the focus, because nothing else was asked for.
  await page.type('cp /etc/hostname /root/made; sync; seq -s - 4 7; echo "Made: $(uname -m)"\n');
  await onScreen('"4-5-6-7"');
  await onScreen('"Made: i686"');
  await picture("3-typed");
  const top = await page.value(drawn(6));
  const made = await page.value('vm.read_file("/root/made").then((bytes) => new TextDecoder().decode(bytes))');
  assert.equal(made.trim(), "env86");

  await page.click("#tab-serial");
  await page.type("\n");
  await onTerminal(String.raw`/# *$/`);
  await page.type("echo serial: $((40+2)); cat /root/made\n");
  await onTerminal("/serial: 42/");
  await onTerminal("/env86/");
  await picture("4-serial");

  await page.click("#save");
  await has("notice", "Saved");
  await picture("5-saved");

  await page.reload();
  await page.until(`${running} && !document.getElementById("load").disabled`);
  await page.click("#load");
  await onScreen('"4-5-6-7"');
  await page.until(`${drawn(6)} === ${top}`);
  await picture("6-loaded");
  await page.click("#tab-serial");
  await onTerminal("/serial: 42/");
  await page.type("ls -l /root/made && echo still-$((1+1))\n");
  await onTerminal("/still-2/");
  await picture("7-serial-again");

  // A link to what is kept.
  await page.go(`${site.url}?kept`);
  await page.until(running);
  await onScreen('"4-5-6-7"');
  await page.click("#tab-serial");
  await onTerminal("/serial: 42/");

  // What is heard, where it goes to the loudspeakers.
  await page.value(EAR);
  const type = (text) => page.value(`vm.serial0_send(${JSON.stringify(text)})`);
  await type(`${TONE}\n`);
  await page.until("loudness() > 0.01");
  await page.click("#mute");
  await page.until("loudness() === 0");
  await page.click("#mute");
  await page.until("loudness() > 0.01");
  await type(`${STILL}\n`);
  await page.until("loudness() < 0.001");

  await page.click("#pause");
  await page.until(`!${running}`);
  await page.call("Emulation.setTouchEmulationEnabled", { enabled: true });
  await page.size(390, 760);
  await page.click("#tab-screen");
  await picture("8-narrow");
  await page.click("#more");
  await picture("9-narrow-menu");
  await page.click("#pause");
  await page.until(running);

  // The machine on a network, with keys on the screen.
  wire = await started(["network"], /wss?:\S+/);
  await page.go(`${site.url}?relay=${encodeURIComponent(wire.url)}`);
  await page.until(running);
  await onScreen("/# ?$/");
  await page.click("#board-button");
  await page.until("!document.getElementById('board').hidden && document.querySelectorAll('#board button').length > 20");
  const press = (label) =>
    page.value(`[...document.querySelectorAll("#board button")].find((key) => key.textContent === ${JSON.stringify(label)}).click()`);
  for (const key of [..."echo", "Space", "⇧", "K", ..."eys", "Enter"]) await press(key);
  await onScreen('"\\nKeys"');
  await picture("10-keys");
  await type("until ip -4 address | grep 192.168.127; do sleep 1; done\n");
  await page.click("#tab-serial");
  // The relay's DHCP server has answered.
  await onTerminal("/inet 192\\.168\\.127\\.\\d+/");
  assert.equal(await page.value("document.getElementById('net').hidden"), false);
  await picture("11-network");

  // The classic script: the machine in its worker, and sound.
  await page.go(`${site.url}classic.html`);
  await page.until(running);
  assert.ok(await page.value("V86Starter === V86 && vm instanceof V86"));
  await page.until('vm.wait_until_vga_screen_contains(/# ?$/, { timeout_msec: 5000 })');
  await shell();
  await page.click("#screen");
  await page.value(EAR);
  await type(`${TONE}\n`);
  await page.until("loudness() > 0.01");
  await picture("12-classic");
  assert.deepEqual(page.complaints, []);

  // The page without its server.
  await page.value("navigator.serviceWorker.ready.then(() => true)");
  site.close();
  await page.go(site.url);
  await page.until(running);
  await onScreen("/# ?$/");
  await picture("13-without-a-server");

  // The page as one file, from the disk: the machine in its worker, and the terminal.
  await page.go(pathToFileURL(resolve(single)).href);
  await page.until(running);
  await onScreen("/# ?$/");
  await shell();
  await page.click("#tab-serial");
  await type("echo from-a-disk-$((2+2))\n");
  await onTerminal("/from-a-disk-4/");
  await page.value(EAR);
  await type(`${TONE}\n`);
  await page.until("loudness() > 0.01");
  await picture("14-one-file");
  assert.deepEqual(page.complaints, []);

  // Nothing to start: the guest that tests the machine.
  served = await started(["serve"], /http:\S+/);
  await page.go(served.url);
  await page.until(running);
  await onScreen("/self-test: \\d+ ok, 0 failed/");
  await picture("15-self-test");
  assert.deepEqual(page.complaints, []);
  console.log(`the page works; its pictures are in ${out}`);
} catch (error) {
  await picture?.("failed").catch(() => {});
  console.error(page?.complaints.join("\n"));
  throw error;
} finally {
  await browser.close();
  wire?.close();
  served?.close();
  site.close();
}
