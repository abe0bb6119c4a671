// v86's own examples with this package in v86's place: nothing of them is changed but the script's name.
//
//   node examples.mjs PACKAGE V86 FILES OUT [EXAMPLE...]
//
// PACKAGE is the folder of `make web`, V86 one with v86's repository, which is nobody's here: fetch it. FILES has bios/ and
// images/, with what the examples name: docs/WEB.md says what stood in for v86's images, which are not in its
// repository; the shell there has the prompt "~% ". Each example is used as its page says; its outcome is a line of stdout, and its picture is in OUT.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { cp, mkdir, mkdtemp, readFile, readdir, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { start } from "./browser.mjs";
import { serve } from "./site.mjs";

const [, , own, v86, files, out, ...only] = process.argv;
if (out === undefined) {
  console.error("usage: node examples.mjs PACKAGE V86 FILES OUT [EXAMPLE...]");
  process.exit(2);
}
const LIMIT_MS = 600_000;

/** The one change. */
const renamed = (text) => text.replaceAll("build/libv86.", "build/env86.");
/** Keeps the machines that a page makes, most of which it keeps to itself, so that their screens can be read. */
const KEEP = `(() => {
  let inner;
  globalThis.machines = [];
  Object.defineProperty(globalThis, "V86", {
    get: () => inner,
    set: (V86) => (inner = class extends V86 {
      constructor(options) {
        super(options);
        machines.push(this);
      }
    }),
  });
})()`;

const site = await serve(
  [["/examples/", join(v86, "examples")], ["/build/", own], ["/bios/", join(files, "bios")], ["/images/", join(files, "images")]],
  { ranges: true, edit: (name) => (/^\/examples\/.*\.(html|js)$/.test(name) ? renamed : undefined) },
);
const downloads = await mkdtemp(join(tmpdir(), "env86-examples-"));

const onScreen = (page, wanted, number = 0) =>
  page.until(`globalThis.machines[${number}]?.wait_until_vga_screen_contains(${wanted}, { timeout_msec: 3000 })`);
const has = (page, id, property, wanted) => page.until(`${wanted}.test(document.getElementById("${id}").${property})`);
/** A shell answers to keys. */
async function typed(page, text, wanted, number = 0) {
  await page.type(`${text}\n`);
  await onScreen(page, wanted, number);
}
/** The shell of the stand-ins, and of an image of Debian's files. */
const PROMPT = "/~%/";
const ROOT = "/root@.*#/";

/** The state that the page's button gives as a file. */
async function savedFile(page) {
  await page.call("Browser.setDownloadBehavior", { behavior: "allow", downloadPath: downloads });
  await page.click("#save_file");
  const file = join(downloads, "v86state.bin");
  for (const end = Date.now() + LIMIT_MS; ; ) {
    const size = await stat(file).then(({ size }) => size, () => 0);
    if (size > 0) return file;
    assert(Date.now() < end, "no state is saved");
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

/** Gives the page's field for files that file. */
async function choose(page, selector, file) {
  const { result } = await page.call("Runtime.evaluate", { expression: `document.querySelector("${selector}")` });
  await page.call("DOM.setFileInputFiles", { files: [file], objectId: result.objectId });
}

async function savesToFile(page, prompt) {
  const file = await savedFile(page);
  await typed(page, "echo later-$((6*7))", "/later-42/");
  await choose(page, "#restore_file", file);
  await page.until('machines[0].screen_text().then((rows) => rows && !rows.join().includes("later-"))');
  await rm(file);
  await onScreen(page, prompt);
  await typed(page, "echo $((6*7))again", "/42again/");
}

/** How the pages are used, and what they have to show. */
const PAGES = {
  async alpine(page) {
    await onScreen(page, ROOT);
    await typed(page, "echo $((6*7))yes", "/42yes/");
  },
  async arch(page) {
    await onScreen(page, ROOT);
    await savesToFile(page, ROOT);
  },
  async async_load(page, before) {
    await onScreen(page, PROMPT);
    const { size } = await stat(join(files, "images/dsl-4.11.rc2.iso"));
    const fetched = site.bytes - before;
    assert(fetched < size / 2, "the whole disk was fetched");
    return `${(fetched / 1e6).toFixed(1)} MB fetched, of a disk of ${(size / 1e6).toFixed(1)} MB`;
  },
  async basic(page) {
    await onScreen(page, PROMPT);
    await typed(page, "echo $((6*7))yes", "/42yes/");
  },
  async "broadcast-network"(page) {
    const other = await browser.open(`${site.url}examples/broadcast-network.html`, KEEP);
    await onScreen(other, PROMPT);
    await other.type("ifconfig eth0 10.5.0.2 up\n");
    await page.call("Page.bringToFront");
    await onScreen(page, PROMPT);
    await page.type("ifconfig eth0 10.5.0.1 up\n");
    await typed(page, "ping -c 3 10.5.0.2", "/3 packets received/");
    await other.call("Page.close");
  },
  async destroy(page) {
    await page.until("globalThis.machines[0]?.is_running()");
    await page.until("!machines[0].is_running()");
  },
  async lang(page) {
    await has(page, "output", "textContent", "/^21$/m");
  },
  async lua(page) {
    await has(page, "status", "textContent", "/Ready/");
    await page.click("#run");
    await has(page, "result", "textContent", "/3\\.1[34]\\d+\\s+factorial\\(10\\):\\s+3628800/");
  },
  async save_restore(page) {
    await onScreen(page, PROMPT);
    await page.click("#save_restore");
    await page.until('document.getElementById("save_restore").value === "Restore state"');
    await typed(page, "echo soon-$((6*7))", "/soon-42/");
    await page.click("#save_restore");
    await page.until('document.getElementById("save_restore").value === "Save state"');
    await page.until('machines[0].screen_text().then((rows) => !rows.join().includes("soon-"))');
    await savesToFile(page, PROMPT);
  },
  async sectorc(page) {
    const chosen = (name) => page.value(`(examples.value = "${name}", examples.onchange())`);
    await chosen("hello");
    await page.click("#run");
    await onScreen(page, "/Sector/", 0);
    await page.click("#run");
    await chosen("sinwave");
    await page.click("#run");
    await page.until("machines.at(-1).screen_text().then((rows) => rows === null)");
    await page.until(`(() => {
      const canvas = document.querySelector("canvas");
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      return data.filter((value, at) => at % 4 === 0 && value > 0).length > 300;
    })()`);
  },
  async serial(page) {
    await has(page, "terminal", "value", "/print\\(3\\+4\\)'\\n7\\n/");
  },
  async tcp_terminal(page) {
    await onScreen(page, PROMPT);
    await page.type("udhcpc -n -q -i eth0\n");
    await onScreen(page, "/lease of .* obtained/");
    await page.type("nc -l -p 1234\n");
    await page.click("#connect");
    await has(page, "log", "value", "/Connected/");
  },
  async two_instances(page) {
    // Both screens are seen, beside each other.
    await page.size(1600, 800);
    await onScreen(page, PROMPT, 0);
    await onScreen(page, PROMPT, 1);
    await page.click("#screen_container1");
    await page.type("ifconfig eth0 10.5.0.2 up\n");
    await page.click("#screen_container2");
    await page.type("ifconfig eth0 10.5.0.3 up\n");
    await typed(page, "ping -c 3 10.5.0.2", "/3 packets received/", 1);
    assert(!(await page.value("machines[0].screen_text()")).join().includes("ping"), "keys went to both");
  },
  async worker(page) {
    await has(page, "terminal", "textContent", "/~% /");
    await page.click("#terminal");
    await page.type("echo $((6*7))yes\n");
    await has(page, "terminal", "textContent", "/42yes/");
    await page.value("terminal.scrollTop = terminal.scrollHeight");
  },
};

/** What the programs for a terminal are sent, each after what has to have come. */
const ENTER = "\r";
const PROGRAMS = {
  nodejs: [["~% ", `echo $((6*7))yes${ENTER}`], ["42yes", "\x03"]],
  nodejs_state: [
    ["~% ", `echo $((6*7))yes${ENTER}`], ["42yes", "\x1bOQ"], ["--- Saved ---", "\x1bOR"],
    ["--- Restored ---", `echo $((6*7))again${ENTER}`], ["42again", "\x03"],
  ],
};

async function program(name) {
  const folder = await mkdtemp(join(tmpdir(), "env86-examples-"));
  try {
    for (const part of ["examples", "build"]) await mkdir(join(folder, part));
    await cp(own, join(folder, "build"), { recursive: true });
    await symlink(resolve(files, "bios"), join(folder, "bios"));
    await symlink(resolve(files, "images"), join(folder, "images"));
    await writeFile(join(folder, "package.json"), '{ "type": "module" }');
    const script = join(folder, "examples", `${name}.js`);
    await writeFile(script, renamed(await readFile(join(v86, "examples", `${name}.js`), "utf8")));
    // A terminal, which they want, from util-linux.
    const child = spawn("script", ["-qefc", `${process.execPath} ${script}`, "/dev/null"], { stdio: ["pipe", "pipe", "inherit"] });
    let said = "";
    const steps = [...PROGRAMS[name]];
    child.stdout.on("data", (text) => {
      said += text;
      while (steps.length > 0 && said.includes(steps[0][0])) child.stdin.write(steps.shift()[1]);
    });
    const timer = setTimeout(() => child.kill(), LIMIT_MS);
    const code = await new Promise((resolve) => child.on("exit", resolve));
    clearTimeout(timer);
    await writeFile(join(out, `${name}.txt`), said);
    assert.equal(steps.length, 0, `it does not say "${steps[0]?.[0]}"`);
    assert.equal(code, 0, `it ends with ${code}`);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

await mkdir(out, { recursive: true });
let browser;
let failed = 0;
const examples = (await readdir(join(v86, "examples"))).map((file) => file.replace(/\.(html|js)$/, ""));
for (const name of new Set(examples)) {
  if (only.length > 0 && !only.includes(name)) continue;
  let page;
  try {
    if (!PAGES[name] && !PROGRAMS[name]) throw new Error("nobody has said here how it is used");
    let more;
    if (PROGRAMS[name]) await program(name);
    else {
      browser = await start();
      const before = site.bytes;
      page = await browser.open(`${site.url}examples/${name}.html`, KEEP);
      more = await PAGES[name](page, before);
      const complaints = page.complaints.filter((text) => !text.endsWith("favicon.ico"));
      assert.deepEqual(complaints, [], "the page complains");
    }
    console.log(`${name}: runs${more ? `; ${more}` : ""}`);
  } catch (error) {
    failed++;
    console.log(`${name}: fails: ${error.message.split("\n")[0]} ${page?.complaints.join("; ") ?? ""}`);
  }
  await page?.picture(join(out, `${name}.png`)).catch((error) => console.error(error.message));
  await browser?.close();
  browser = undefined;
}
site.close();
await rm(downloads, { recursive: true, force: true });
process.exitCode = failed > 0 ? 1 : 0;
