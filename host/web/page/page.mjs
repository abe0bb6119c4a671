// The page around a machine: its image is the folder `image` beside it.
import { boot } from "./env86.mjs";
import { bring } from "./files.mjs";
import { Keyboard } from "./input.mjs";
import { blinkWhileUsed } from "./serial.mjs";
import { FitAddon } from "./addon-fit.mjs";
import { Terminal } from "./xterm.mjs";

const element = (id) => document.getElementById(id);
const [screen, serial, notice] = ["screen", "serial", "notice"].map(element);
const canvas = screen.querySelector("canvas");
const parameters = new URLSearchParams(location.search);
const image = new URL(parameters.get("image") ?? "image", document.baseURI).href;

/** `prepare --single-file` puts the files into the page: each an element, in base 64. */
const brought = document.querySelectorAll("script[data-name]");
if (brought.length > 0) {
  const files = new Map();
  for (const file of brought) {
    files.set(file.dataset.name, new Blob([Uint8Array.from(atob(file.textContent), (letter) => letter.charCodeAt(0))]));
    file.remove();
  }
  bring(new URL(".", document.baseURI).href, files);
}

/** What is told stays long enough to be read; what is wrong, until something else is told. */
const TOLD_MS = 8000;
let telling;
function tell(text, bad = false) {
  notice.textContent = text;
  notice.classList.toggle("bad", bad);
  clearTimeout(telling);
  if (!bad) telling = setTimeout(() => (notice.textContent = ""), TOLD_MS);
}
notice.onclick = () => (notice.textContent = "");
const failed = (error) => tell(`${error.message ?? error}`, true);

// ---- states in the browser ----

/** What the machine is known by in the browser's storage. Pages that are one file may lie side by side in a folder. */
const place = brought.length > 0 ? new URL(location.pathname, location.href).href : image;

/** The browser's own storage: for each image a state, and what COM1 had sent before: `{state, said}`. */
function storage(mode, act) {
  return new Promise((resolve, reject) => {
    const opening = indexedDB.open("env86", 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore("states");
    opening.onerror = () => reject(opening.error);
    opening.onsuccess = () => {
      const database = opening.result;
      const transaction = database.transaction("states", mode);
      const request = act(transaction.objectStore("states"));
      transaction.oncomplete = () => (database.close(), resolve(request.result));
      transaction.onerror = transaction.onabort = () => (database.close(), reject(transaction.error));
    };
  });
}

// ---- the machine ----

const options = { screen_container: screen, disable_keyboard: true };
/** The machine runs in `env86 boot --console-url`, and this page only shows it. */
const isRemote = /\/console\.html$/.test(location.pathname) && parameters.has("token");
if (isRemote) {
  const control = new URL("ctl", document.baseURI);
  control.searchParams.set("token", parameters.get("token"));
  options.control_url = control.href;
  document.body.classList.add("remote");
  element("what").textContent = "Connecting…";
}
if (parameters.has("relay")) options.network_relay_url = parameters.get("relay");
let kept;
if (parameters.has("kept")) {
  kept = await storage("readonly", (store) => store.get(place)).catch(failed);
  if (kept) options.initial_state = { buffer: kept.state };
  else tell("No state of this machine is kept in this browser; it starts anew.");
}

let vm;
try {
  vm = await boot(image, options);
} catch (error) {
  element("progress").hidden = true;
  failed(error);
  throw error;
}
globalThis.vm = vm;
function named() {
  document.title = vm.config.name ?? "env86";
  element("name").textContent = document.title;
}
named();
/** The page may show the machine, and do no more. */
let isShut = false;
vm.add_listener("emulator-loaded", () => {
  named();
  isShut = isRemote && vm.config.view_only;
  if (!isShut) return;
  document.body.classList.add("view-only");
  canvas.setAttribute("aria-label", "Screen of the machine");
  element("hint").textContent = "This page only shows the machine: keys and mouse do not go to it.";
});

const terminal = new Terminal({ scrollback: 10_000, fontSize: 14, screenReaderMode: true });
terminal.open(serial);
blinkWhileUsed(terminal);
/** The end of what COM1 has sent: a state has none of it, and a terminal without it is empty. */
const SAID_BYTES = 64 << 10;
let [said, length] = [[], 0];
function keep(bytes) {
  said.push(bytes);
  length += bytes.length;
  while (length - said[0].length >= SAID_BYTES) length -= said.shift().length;
}
function hear(bytes) {
  keep(bytes);
  terminal.write(bytes);
}
/** What is shown again may ask the terminal where its cursor is, which the guest has been told already. */
let recalling = 0;
function addRecalled(bytes) {
  keep(bytes);
  recalling++;
  terminal.write(bytes, () => recalling--);
}
/** Shows in the terminal what COM1 had sent when a state was saved. */
function recall(bytes) {
  terminal.reset();
  [said, length] = [[], 0];
  addRecalled(bytes);
}
if (kept) recall(kept.said);
vm.add_listener("serial0-recalled-bytes", addRecalled);
vm.add_listener("lost", (bytes) => terminal.write(`\r\n[${bytes} bytes are left out here: this page was too slow for them]\r\n`));
vm.add_listener("untaken", (bytes) => tell(`The guest does not read its serial line: ${bytes} bytes of what was typed are lost`, true));
vm.add_listener("serial0-output-bytes", hear);
terminal.onData((text) => recalling > 0 || isShut || vm.serial0_send(text));
/** The guest may ask its terminal something. Of several pages at one machine, one answers. */
let answers = !isRemote;
vm.add_listener("terminal-answers", (now) => (answers = now));
for (const kind of [{ final: "n" }, { prefix: "?", final: "n" }, { final: "c" }, { prefix: ">", final: "c" }]) {
  terminal.parser.registerCsiHandler(kind, () => !answers || recalling > 0);
}

const fitting = new FitAddon();
terminal.loadAddon(fitting);
/** The terminal has as many rows and columns as there is room for. */
function fit() {
  if (!serial.hidden) fitting.fit();
}
new ResizeObserver(fit).observe(serial);

/** The picture is as large as there is room for. */
function scale() {
  const { width, height } = canvas;
  const room = Math.min((screen.clientWidth - 12) / width, (screen.clientHeight - 12) / height);
  if (screen.hidden || !(room > 0)) return;
  // Text is sharp where a dot of the machine's is a whole number of the screen's.
  const whole = Math.floor(room * devicePixelRatio) / devicePixelRatio;
  const factor = whole >= 1 && room / whole < 1.25 ? whole : room;
  canvas.style.width = `${width * factor}px`;
  canvas.style.height = `${height * factor}px`;
}
new ResizeObserver(scale).observe(screen);
new MutationObserver(scale).observe(canvas, { attributeFilter: ["width", "height"] });

// ---- progress and lamps ----

/** A lamp that is on for a moment. */
function flash(id) {
  let off;
  return () => {
    element(id).classList.add("on");
    clearTimeout(off);
    off = setTimeout(() => element(id).classList.remove("on"), 150);
  };
}

const loaded = new Map();
vm.add_listener("download-progress", ({ file_name, loaded: bytes, total }) => {
  loaded.set(file_name, [bytes, total]);
  const sum = (which) => [...loaded.values()].reduce((all, file) => all + file[which], 0);
  element("what").textContent = `Loading: ${(sum(0) / 1e6).toFixed(1)} MB`;
  if (sum(1) > 0 && sum(0) <= sum(1)) element("bar").value = sum(0) / sum(1);
});
let files = 0;
const disk = flash("disk");
vm.add_listener("9p-read-end", () => {
  element("fetched").textContent = `${++files} file${files === 1 ? "" : "s"} fetched`;
  disk();
});
vm.add_listener("download-error", ({ file_name, request }) => tell(`${file_name}: ${request?.message ?? "it cannot be fetched"}`, true));
vm.add_listener("emulator-error", (error) => {
  element("progress").hidden = true;
  failed(error);
});
vm.add_listener("emulator-ended", (why) => {
  element("progress").hidden = true;
  if (!isRemote) return;
  for (const button of document.querySelectorAll("#tools button")) button.disabled = true;
  element("speed").textContent = "stopped";
  element("lamp").classList.remove("on");
  tell(`${why}.`, true);
});
vm.add_listener("emulator-ended", (why) => isRemote || tell(why === "power-off" || why === "halted" ? "The machine has been switched off. Restart switches it on." : `The machine has ended: ${why}`));

const network = flash("net-lamp");
vm.add_listener("eth-transmit-end", network);
vm.add_listener("eth-receive-end", network);
vm.add_listener("network-change", (up) => {
  element("net-text").textContent = up ? "Network" : "No network: its relay does not answer";
});
element("net").hidden = !(vm.config.network_relay_url ?? vm.config.net_device?.relay_url);

/** A guest that executes less than that a second does nothing but look at its clock. */
const IDLE_MIPS = 1;
let count = 0;
setInterval(() => {
  if (document.hidden) return;
  const now = vm.get_instruction_counter();
  // A machine that runs elsewhere has executed much before this page came.
  const mips = count === 0 && isRemote ? 0 : Math.max(0, now - count) / 1e6;
  count = now;
  const running = vm.is_running();
  const busy = mips >= IDLE_MIPS;
  const speed = !running ? "stopped" : busy ? `${mips < 10 ? mips.toFixed(1) : Math.round(mips)} MIPS` : "idle";
  // What is written anew is drawn anew.
  if (element("speed").textContent !== speed) element("speed").textContent = speed;
  element("lamp").classList.toggle("on", running && busy);
}, 1000);

// ---- views ----

const tabs = [element("tab-screen"), element("tab-serial")];
function show(which) {
  tabs.forEach((tab, n) => {
    tab.setAttribute("aria-selected", n === which);
    tab.tabIndex = n === which ? 0 : -1;
  });
  screen.hidden = which !== 0;
  serial.hidden = which !== 1;
  if (which === 1) {
    fit();
    terminal.focus();
  } else canvas.focus();
}
tabs.forEach((tab, n) => {
  tab.onclick = () => show(n);
  tab.onkeydown = ({ key }) => {
    if (key !== "ArrowLeft" && key !== "ArrowRight") return;
    show(1 - n);
    tabs[1 - n].focus();
  };
});

// ---- keys: those of the canvas, and no others, so that the page can be used by keyboard ----

const hasFocus = () => document.activeElement === canvas || serial.contains(document.activeElement);
const keyboard = new Keyboard((codes) => vm.keyboard_send_scancodes(codes), () => vm.keyboard_release());
keyboard.setEnabled(false);
canvas.addEventListener("focus", () => keyboard.setEnabled(!isShut));
canvas.addEventListener("blur", () => (isShut || vm.keyboard_release(), keyboard.setEnabled(false)));
canvas.addEventListener("pointerdown", () => canvas.focus());
addEventListener("keydown", (event) => {
  if (!hasFocus() || event.key !== "Escape" || !event.shiftKey) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  element("pause").focus();
}, true);

// ---- tools ----

/** Does what a button is for, and says why not. */
function on(id, act) {
  element(id).onclick = () => Promise.resolve(act()).catch(failed);
}
const back = () => (screen.hidden ? terminal.focus() : canvas.focus());

on("pause", async () => {
  await (vm.is_running() ? vm.stop() : vm.run());
});
vm.add_listener("emulator-started", () => {
  element("pause").textContent = "Pause";
  element("progress").hidden = true;
});
vm.add_listener("emulator-stopped", () => (element("pause").textContent = "Resume"));
on("restart", async () => {
  await vm.restart();
  recall(new Uint8Array(0));
  if (!vm.is_running()) await vm.run();
  tell("");
  back();
});
on("save", async () => {
  const state = await vm.save_state();
  const text = new Uint8Array(await new Blob(said).arrayBuffer());
  await storage("readwrite", (store) => store.put({ state, said: text }, place));
  tell(`Saved in this browser (${(state.byteLength / 1e6).toFixed(0)} MB); Load comes back here, on later visits, too.`);
});
on("load", async () => {
  const kept = await storage("readonly", (store) => store.get(place));
  if (!kept) return tell("No state of this machine is kept in this browser: Save keeps one.");
  await vm.restore_state(kept.state);
  recall(kept.said);
  if (!vm.is_running()) await vm.run();
  tell("");
  back();
});
on("download", async () => {
  const url = URL.createObjectURL(new Blob([await vm.save_state()]));
  const link = Object.assign(document.createElement("a"), { href: url, download: "initial.state" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
});
on("upload", () => element("file").click());
element("file").onchange = async ({ target }) => {
  const [file] = target.files;
  target.value = "";
  if (!file) return;
  try {
    await vm.restore_state(await file.arrayBuffer());
    recall(new Uint8Array(0));
    if (!vm.is_running()) await vm.run();
    tell("");
    back();
  } catch (error) {
    failed(error);
  }
};
on("paste", async () => {
  const text = await navigator.clipboard.readText();
  if (screen.hidden) vm.serial0_send(text.replace(/\r?\n/g, "\r"));
  else vm.keyboard_send_text(text);
  back();
});
on("keys", () => {
  vm.keyboard_send_scancodes([0x1d, 0x38, 0xe0, 0x53, 0xe0, 0xd3, 0xb8, 0x9d]);
  back();
});
let loud = true;
on("mute", () => {
  loud = !loud;
  vm.sound_set_volume(loud ? 1 : 0);
  element("mute").setAttribute("aria-pressed", !loud);
});
const more = element("more");
const unfold = (open) => more.setAttribute("aria-expanded", open);
more.onclick = () => unfold(more.getAttribute("aria-expanded") !== "true");
// A tool of the menu that has been used closes it, and so does a click elsewhere.
addEventListener("click", ({ target }) => target !== more && unfold(false));
element("rest").addEventListener("keydown", ({ key }) => {
  if (key !== "Escape") return;
  unfold(false);
  more.focus();
});
/** The keyboard on the screen is fetched when it is wanted for the first time. */
let board;
on("board-button", async () => {
  board ??= (await import("./board.mjs")).makeBoard(element("board"), vm, (text) => !screen.hidden || (vm.serial0_send(text), false));
  const hidden = !element("board").hidden;
  element("board").hidden = hidden;
  element("board-button").setAttribute("aria-expanded", !hidden);
});
on("full", async () => {
  show(0);
  await vm.screen_go_fullscreen();
});
vm.add_listener("emulator-loaded", () => {
  for (const button of document.querySelectorAll("#tools button")) button.disabled = false;
  if (isShut) for (const id of ["pause", "restart", "paste", "keys", "board-button"]) element(id).disabled = true;
  if (document.activeElement === document.body) show(parameters.get("view") === "serial" ? 1 : 0);
});

// ---- without a network ----

/** The page's files are kept by this browser once the machine runs, so that it does not wait for those it needs. */
function keepPage() {
  vm.remove_listener("emulator-started", keepPage);
  const isNew = !navigator.serviceWorker.controller;
  navigator.serviceWorker.register("offline.js").then(() => navigator.serviceWorker.ready).then(() => {
    if (isNew) tell("This page is kept in this browser: it works without a network, too.");
  }).catch((error) => tell(`This page cannot be kept for use without a network: ${error.message}`, true));
}
if (vm.config.offline && navigator.serviceWorker) vm.add_listener("emulator-started", keepPage);
