// A browser on the DevTools protocol, without packages: Chromium is driven through a pair of pipes.
import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Chromium: its name in Debian, unless the environment has another. */
const PROGRAM = process.env.CHROMIUM ?? "chromium";
/** Messages end so (Chromium, --remote-debugging-pipe). */
const END = 0;
/** Longer than any machine takes, unless the environment has another. */
const LIMIT_MS = Number(process.env.LIMIT_MS ?? 900_000);
/** Longer than any one answer takes. */
const ANSWER_MS = 60_000;

/** Starts Chromium without a window. */
export async function start() {
  const profile = await mkdtemp(join(tmpdir(), "env86-chromium-"));
  const flags = [
    "--headless=new", "--remote-debugging-pipe", `--user-data-dir=${profile}`, "--no-first-run", "--disable-gpu",
    "--disable-dev-shm-usage", "--window-size=1100,800",
  ];
  // Its sandbox does not start for root.
  if (process.getuid?.() === 0) flags.push("--no-sandbox");
  const child = spawn(PROGRAM, flags, { stdio: ["ignore", "ignore", "pipe", "pipe", "pipe"] });
  let errors = "";
  child.stderr.on("data", (text) => (errors = (errors + text).slice(-4000)));
  const browser = new Browser(child.stdio[3], child.stdio[4]);
  const ended = new Promise((resolve) => {
    child.on("error", (error) => (browser.fail(new Error(`${PROGRAM} cannot be started: ${error.message}`)), resolve()));
    child.on("exit", (code) => (browser.fail(new Error(`${PROGRAM} has ended (${code}): ${errors}`)), resolve()));
  });
  browser.close = async () => {
    child.kill();
    await ended;
    await rm(profile, { recursive: true, force: true, maxRetries: 5 });
  };
  return browser;
}

/** Chromium, at the other end of two pipes. */
class Browser {
  #to;
  #calls = new Map();
  #last = 0;
  #failure;
  /** What each session is told of. */
  listeners = new Map();

  constructor(to, from) {
    this.#to = to;
    let rest = Buffer.alloc(0);
    from.on("data", (bytes) => {
      rest = Buffer.concat([rest, bytes]);
      for (let end; (end = rest.indexOf(END)) >= 0; rest = rest.subarray(end + 1)) {
        this.#receive(JSON.parse(rest.subarray(0, end).toString()));
      }
    });
    to.on("error", (error) => this.fail(error));
  }

  #receive({ id, result, error, method, params, sessionId }) {
    if (method) return this.listeners.get(sessionId)?.(method, params);
    const call = this.#calls.get(id);
    this.#calls.delete(id);
    if (error) call?.reject(new Error(error.message));
    else call?.resolve(result);
  }

  /** There will be no more answers: calls that wait fail. */
  fail(error) {
    this.#failure ??= error;
    for (const { reject } of this.#calls.values()) reject(error);
    this.#calls.clear();
  }

  call(method, params = {}, sessionId = undefined) {
    return new Promise((resolve, reject) => {
      if (this.#failure) return reject(this.#failure);
      const id = ++this.#last;
      this.#calls.set(id, { resolve, reject });
      this.#to.write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    });
  }

  /** Seconds of processor that it has used, with all its processes. */
  async processorSeconds() {
    const { processInfo } = await this.call("SystemInfo.getProcessInfo");
    return processInfo.reduce((sum, { cpuTime }) => sum + cpuTime, 0);
  }

  /** KiB of memory of its page's process, of all its pages' the largest; what it shares counts in part (Linux' Pss). */
  async pageMemory() {
    const { processInfo } = await this.call("SystemInfo.getProcessInfo");
    const pages = processInfo.filter(({ type }) => type === "renderer");
    const sizes = await Promise.all(
      pages.map(async ({ id }) => Number(/^Pss: +(\d+)/m.exec(await readFile(`/proc/${id}/smaps_rollup`))?.[1])),
    );
    return Math.max(...sizes);
  }

  /** Opens a page, in which `script` is run before its own. */
  async open(url, script) {
    const { targetId } = await this.call("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await this.call("Target.attachToTarget", { targetId, flatten: true });
    const page = new Page((method, params) => this.call(method, params, sessionId));
    this.listeners.set(sessionId, (method, params) => page.heard(method, params));
    for (const domain of ["Page", "Runtime", "Log"]) await page.call(`${domain}.enable`);
    if (script) await page.call("Page.addScriptToEvaluateOnNewDocument", { source: script });
    await page.go(url);
    return page;
  }
}

/** Input.dispatchKeyEvent's `modifiers`. */
const SHIFT = 8;
/** The keys of a US keyboard that print: what they print, DOM's names of them, and Windows' numbers, which pages read. */
const KEYS = new Map();
const key = (code, number, plain, shifted) => {
  KEYS.set(plain, { code, number, sign: plain, shift: false });
  if (shifted) KEYS.set(shifted, { code, number, sign: shifted, shift: true });
};
for (const letter of "ABCDEFGHIJKLMNOPQRSTUVWXYZ") key(`Key${letter}`, letter.charCodeAt(0), letter.toLowerCase(), letter);
[...")!@#$%^&*("].forEach((sign, digit) => key(`Digit${digit}`, 48 + digit, String(digit), sign));
key("Semicolon", 186, ";", ":");
key("Equal", 187, "=", "+");
key("Comma", 188, ",", "<");
key("Minus", 189, "-", "_");
key("Period", 190, ".", ">");
key("Slash", 191, "/", "?");
key("Backquote", 192, "`", "~");
key("BracketLeft", 219, "[", "{");
key("Backslash", 220, "\\", "|");
key("BracketRight", 221, "]", "}");
key("Quote", 222, "'", '"');
key("Space", 32, " ");
key("Enter", 13, "\n");

/** A page in a tab. */
class Page {
  /** What the page has complained of. */
  complaints = [];
  #loaded;

  constructor(call) {
    this.call = call;
  }

  heard(method, params) {
    if (method === "Page.loadEventFired") this.#loaded?.();
    if (method === "Runtime.exceptionThrown") {
      const { text, exception } = params.exceptionDetails;
      this.complaints.push(`${text} ${exception?.description ?? ""}`);
    }
    if (method === "Log.entryAdded" && params.entry.level === "error") {
      this.complaints.push(`${params.entry.text} ${params.entry.url ?? ""}`);
    }
  }

  async #loading(call) {
    const loaded = new Promise((resolve) => (this.#loaded = resolve));
    await call;
    await loaded;
  }

  go(url) {
    return this.#loading(this.call("Page.navigate", { url }));
  }

  reload() {
    return this.#loading(this.call("Page.reload"));
  }

  /** The value of an expression in the page, or of what it promises. */
  async value(expression) {
    const { result, exceptionDetails: failure } = await this.call("Runtime.evaluate", {
      expression,
      awaitPromise: true,
      returnByValue: true,
      // As a user's press: full screen and the clipboard are for those.
      userGesture: true,
    });
    if (failure) throw new Error(`${expression}: ${failure.exception?.description ?? failure.text}`);
    return result.value;
  }

  /**
   * Waits until an expression is true. The limit is for what never comes. An answer that does not come is said and asked for
   * again: when another process takes over a page that is being left, it may be lost.
   */
  async until(expression) {
    const silence = Symbol("no answer");
    for (const end = Date.now() + LIMIT_MS; ; ) {
      let timer;
      const patience = new Promise((resolve) => (timer = setTimeout(resolve, ANSWER_MS, silence)));
      const answer = await Promise.race([this.value(expression), patience]).finally(() => clearTimeout(timer));
      if (answer === silence) console.error(`no answer for ${ANSWER_MS / 1e3} s: ${expression}`);
      else if (answer) return;
      if (Date.now() > end) throw new Error(`This does not come true: ${expression}`);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  /** Clicks in the middle of an element, as a mouse does. */
  async click(selector) {
    const place = await this.value(`(() => {
      const { x, y, width, height } = document.querySelector(${JSON.stringify(selector)}).getBoundingClientRect();
      return { x: x + width / 2, y: y + height / 2 };
    })()`);
    for (const type of ["mousePressed", "mouseReleased"]) {
      await this.call("Input.dispatchMouseEvent", { type, ...place, button: "left", clickCount: 1 });
    }
  }

  /** Presses and releases the keys of a text, one after the other, for what has the focus. */
  async type(text) {
    const send = (type, code, key, number, more) =>
      this.call("Input.dispatchKeyEvent", { type, code, key, windowsVirtualKeyCode: number, ...more });
    for (const character of text) {
      const { code, number, sign, shift } = KEYS.get(character);
      const [name, text] = code === "Enter" ? ["Enter", "\r"] : [sign, sign];
      const modifiers = shift ? SHIFT : 0;
      if (shift) await send("rawKeyDown", "ShiftLeft", "Shift", 16, { modifiers });
      await send("keyDown", code, name, number, { text, modifiers });
      await send("keyUp", code, name, number, { modifiers });
      if (shift) await send("keyUp", "ShiftLeft", "Shift", 16);
    }
  }

  /** Makes the page's window as large, in CSS pixels. */
  size(width, height) {
    return this.call("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: false });
  }

  /** Writes a picture of the page. */
  async picture(path) {
    const { data } = await this.call("Page.captureScreenshot", { format: "png" });
    await writeFile(path, Buffer.from(data, "base64"));
  }
}
