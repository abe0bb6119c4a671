// See `chromium`. node chromium.mjs OUT BROWSER
import assert from "node:assert/strict";
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { extname, join, normalize } from "node:path";

const [, , out, executablePath] = process.argv;
const { chromium } = createRequire(join(out, "node_modules/"))("playwright-core");

/** Serves files, and nothing else: no ranges, no compression. */
const types = { ".html": "text/html", ".mjs": "text/javascript", ".css": "text/css", ".wasm": "application/wasm" };
let served = 0;
const server = createServer(async ({ url }, response) => {
  const path = normalize(decodeURIComponent(url.split("?")[0])).replace(/\/$/, "/index.html");
  const file = join(out, "page", path);
  const { size } = await stat(file).catch(() => ({}));
  if (size === undefined) return response.writeHead(404).end();
  served += size;
  response.writeHead(200, { "Content-Type": types[extname(file)] ?? "application/octet-stream", "Content-Length": size });
  createReadStream(file).pipe(response);
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const url = `http://127.0.0.1:${server.address().port}/`;

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const page = await browser.newPage({ viewport: { width: 1100, height: 760 } });
const complaints = [];
page.on("pageerror", (error) => complaints.push(error.stack));
page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
const picture = (name) => page.screenshot({ path: join(out, `${name}.png`) });
const LIMIT = { timeout: 300_000 };
const onScreen = (text) =>
  page.evaluate((wanted) => globalThis.vm.wait_until_vga_screen_contains(wanted, { timeout_msec: 300_000 }), text);

try {
  const began = Date.now();
  await page.goto(url);
  await picture("loading");
  await page.waitForFunction(() => globalThis.vm?.is_running(), undefined, LIMIT);
  const prompt = await page.evaluate(() => globalThis.vm.wait_until_vga_screen_contains(/[#$] ?$/, { timeout_msec: 300_000 }));
  assert(prompt, "no prompt on the screen");
  console.log(`prompt after ${((Date.now() - began) / 1e3).toFixed(1)} s and ${(served / 1e6).toFixed(1)} MB`);
  await page.focus("#screen canvas");
  // Of keys with Shift, the driver sends none.
  await page.keyboard.type("cp /etc/hostname /root/made; seq -s - 4 7; uname -a\n");
  assert(await onScreen("4-5-6-7"), "what is typed is not done");
  await page.waitForTimeout(500);
  await picture("screen");
  const mark = await page.evaluate(async () => new TextDecoder().decode(await globalThis.vm.read_file("/root/made")));
  assert.equal(mark.trim(), "env86");

  await page.click("#save");
  await page.waitForFunction(() => /Saved/.test(document.getElementById("notice").textContent), undefined, LIMIT);
  await picture("saved");
  await page.reload();
  await page.waitForFunction(() => globalThis.vm?.is_running(), undefined, LIMIT);
  await page.click("#load");
  assert(await onScreen("4-5-6-7"), "the state that was saved has not come back");
  await page.click("#tab-serial");
  await page.keyboard.type("ls -l /root/made; cat /root/made\n");
  await page.waitForFunction(() => document.querySelector("#serial .xterm-accessibility, #serial .xterm-rows")?.textContent.includes("/root/made"), undefined, LIMIT);
  await page.waitForTimeout(1000);
  await picture("serial");
  await page.click("#pause");
  await page.waitForFunction(() => !globalThis.vm.is_running(), undefined, LIMIT);
  await page.setViewportSize({ width: 400, height: 760 });
  await page.click("#tab-screen");
  await picture("narrow");
  assert.deepEqual(complaints, []);
  console.log(`the page works; its pictures are in ${out}`);
} catch (error) {
  await picture("failed").catch(() => {});
  console.error(complaints.join("\n"));
  throw error;
} finally {
  await browser.close();
  server.close();
}
