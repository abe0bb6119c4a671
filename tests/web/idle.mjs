// What a page costs that is left open: the demo image at its prompt, in headless Chromium.
//
//   node idle.mjs PREPARED [MINUTES]
//
// PREPARED is the folder that `env86 prepare` makes of the image. Says every five minutes how much of a processor all
// processes of the browser have used since, and how much memory the page's has. The page has a screen and a terminal, as for a
// visitor.
import { start } from "./browser.mjs";
import { serve } from "./site.mjs";

const [, , prepared, minutes = "60"] = process.argv;
if (prepared === undefined) {
  console.error("usage: node idle.mjs PREPARED [MINUTES]");
  process.exit(2);
}
const STEP_MINUTES = 5;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const site = await serve([["/", prepared]]);
const browser = await start();
try {
  const page = await browser.open(site.url);
  await page.until("globalThis.vm?.is_running()");
  await page.until(`vm.wait_until_vga_screen_contains(/# ?$/, { timeout_msec: 5000 })`);
  await sleep(60_000);
  const first = await browser.processorSeconds();
  const begin = performance.now();
  let [last, since] = [first, begin];
  const percent = (used, ms) => ((used * 1e5) / ms).toFixed(2);
  console.log(`at the prompt for a minute: ${await browser.pageMemory()} KiB`);
  while (performance.now() - begin < minutes * 60_000) {
    await sleep(Math.min(STEP_MINUTES, minutes) * 60_000);
    const [used, now] = [await browser.processorSeconds(), performance.now()];
    console.log(`${Math.round((now - begin) / 60_000)} minutes: ${percent(used - last, now - since)} % of a processor, ${await browser.pageMemory()} KiB`);
    [last, since] = [used, now];
  }
  console.log(`in all ${percent(last - first, since - begin)} % of a processor`);
} finally {
  await browser.close();
  site.close();
}
