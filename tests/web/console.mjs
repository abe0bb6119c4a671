// The running machine of `env86 boot --console-url` in pages, used as people do: by mouse and keys, two of them at once, and
// one who only looks.
//
//   node console.mjs ENV86 IMAGE OUT
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { start } from "./browser.mjs";

const [, , program, image, out] = process.argv;
if (out === undefined) {
  console.error("usage: node console.mjs ENV86 IMAGE OUT");
  process.exit(2);
}
await mkdir(out, { recursive: true });

const child = spawn(program, ["boot", image, "--no-console", "--console-url"], { stdio: ["ignore", "ignore", "pipe"] });
const ended = new Promise((resolve) => child.on("exit", resolve));
const [url, viewUrl] = await new Promise((resolve, reject) => {
  let said = "";
  child.stderr.on("data", (text) => {
    said += text;
    const found = [...said.matchAll(/^Console URL.*: (http:\S+)$/gm)].map(([, url]) => url);
    if (found.length === 2) resolve(found);
  });
  child.on("exit", (code) => reject(new Error(`${program} has ended (${code}): ${said}`)));
  child.on("error", reject);
});

const browser = await start();
/** Waits for a text on the machine's screen. */
const onScreen = (page, wanted) => page.until(`globalThis.vm.wait_until_vga_screen_contains(${wanted}, { timeout_msec: 5000 })`);
/** Waits for a text in the serial terminal. */
const onTerminal = (page, wanted) => page.until(`${wanted}.test(document.querySelector("#serial .xterm-rows").textContent)`);
const running = "globalThis.vm?.is_running()";
/** A digest of what is on the canvas, but for what blinks. */
const drawn = `(() => {
  const canvas = document.querySelector("#screen canvas");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, 5 * 16);
  return data.reduce((sum, value) => (Math.imul(sum, 31) + value) | 0, 0);
})()`;

const pages = [];
const open = async (url) => {
  const page = await browser.open(url);
  pages.push(page);
  return page;
};
try {
  const page = await open(url);
  await page.until(running);
  await onScreen(page, "/# ?$/");
  await page.picture(join(out, "console-1-prompt.png"));

  // The canvas has the focus, because nothing else was asked for.
  await page.type('clear; seq -s - 4 7; echo "Made: $(uname -m)"\n');
  await onScreen(page, '"4-5-6-7"');
  await onScreen(page, '"Made: i686"');
  await page.picture(join(out, "console-2-typed.png"));

  // Two people see the same, and each can type.
  const other = await open(url);
  await other.until(running);
  await onScreen(other, '"Made: i686"');
  await other.until(`${drawn} === ${await page.value(drawn)}`);
  await other.type("echo by-the-$((1+1))nd\n");
  await onScreen(page, '"by-the-2nd"');

  // The serial line: one hears what the other types, and what was said before.
  await page.click("#tab-serial");
  await page.type("\n");
  await onTerminal(page, String.raw`/# *$/`);
  await page.type("echo serial: $((40+2))\n");
  await onTerminal(page, "/serial: 42/");
  await page.picture(join(out, "console-3-serial.png"));

  // One who only looks, sees, and types nothing.
  const looks = await open(viewUrl);
  await looks.until(running);
  await looks.until(`${drawn} === ${await other.value(drawn)}`);
  await looks.type("echo not-$((5+5))-typed\n");
  await looks.value('(vm.keyboard_send_text("echo not-$((5+5))-typed\\n"), vm.serial0_send("echo not-$((5+5))-typed\\n"))');
  await looks.picture(join(out, "console-4-only-looks.png"));
  await looks.click("#tab-serial");
  await onTerminal(looks, "/serial: 42/");
  await looks.type("echo not-$((5+5))-typed\n");
  await page.type("echo after-that-$((6+6))\n");
  await onTerminal(looks, "/after-that-12/");
  assert.equal(await looks.value("/not-/.test(document.querySelector('#serial .xterm-rows').textContent)"), false);
  const text = await other.value("vm.screen_text()");
  assert.ok(!text.some((line) => line.includes("not-")), text.join("\n"));
  assert.equal(await looks.value("getComputedStyle(document.getElementById('pause')).display"), "none");

  // What one does to the machine, the others see.
  await page.click("#pause");
  await looks.until(`!${running}`);
  await other.until("document.getElementById('pause').textContent === 'Resume'");
  await other.click("#pause");
  await page.until(running);

  // A telephone.
  await other.call("Emulation.setTouchEmulationEnabled", { enabled: true });
  await other.size(390, 760);
  await other.click("#board-button");
  await other.until("document.querySelectorAll('#board button').length > 20");
  await other.picture(join(out, "console-5-narrow.png"));
  for (const one of pages) assert.deepEqual(one.complaints, []);

  // Others do not come in.
  for (const wrong of [url.replace(/.$/, (last) => (last === "0" ? "1" : "0")), url.replace(/\?.*/, "")]) {
    assert.equal((await fetch(wrong)).status, 403);
  }

  // The machine's end.
  await page.click("#tab-screen");
  await page.type("poweroff -f\n");
  await ended;
  await page.until("/ended|lost/.test(document.getElementById('notice').textContent)");
  await page.picture(join(out, "console-6-ended.png"));
  console.log(`the machine in pages works; its pictures are in ${out}`);
} catch (error) {
  for (const [n, page] of pages.entries()) {
    await page.picture(join(out, `console-failed-${n}.png`)).catch(() => {});
    console.error(page.complaints.join("\n"));
  }
  throw error;
} finally {
  await browser.close();
  child.kill();
}
