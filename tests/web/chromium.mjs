// The page that `env86 prepare` has made of the demo image, used as a visitor does: by mouse and keys.
//
//   node chromium.mjs SITE OUT
//
// SITE is the folder; pictures of the page are written to OUT.
import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { start } from "./browser.mjs";
import { serve } from "./site.mjs";

const [, , folder, out] = process.argv;
if (out === undefined) {
  console.error("usage: node chromium.mjs SITE OUT");
  process.exit(2);
}
await mkdir(out, { recursive: true });
const site = await serve([["/", folder]]);
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

  await page.click("#pause");
  await page.until(`!${running}`);
  await page.size(400, 760);
  await page.click("#tab-screen");
  await picture("8-narrow");
  assert.deepEqual(page.complaints, []);
  console.log(`the page works; its pictures are in ${out}`);
} catch (error) {
  await picture?.("failed").catch(() => {});
  console.error(page?.complaints.join("\n"));
  throw error;
} finally {
  await browser.close();
  site.close();
}
