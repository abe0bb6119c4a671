// A PC for pages and for Node: the class V86, with the options, methods and events of the package v86, and
// boot(), which starts an image of env86. What is the same, what is better and what is not there: docs/WEB.md.
import { load, sizeOf, whatIsBrought } from "./files.mjs";
import { Far } from "./link.mjs";
import { Near } from "./near.mjs";
import { Screen } from "./screen.mjs";
import { Keyboard, Mouse } from "./input.mjs";
import { SerialText, SerialTerminal } from "./serial.mjs";
import { Sound } from "./sound.mjs";
import { loadPacked, unpacker } from "./unpack.mjs";

const isNode = typeof process !== "undefined" && !!process.versions?.node;
const hasPage = typeof document !== "undefined";

/** Options that are files. */
const FILES = ["bios", "vga_bios", "bzimage", "initrd", "hda", "hdb", "hdc", "hdd", "cdrom", "fda", "fdb", "virtio_blk"];
/** Options that go to the machine as they are. */
const SETTINGS = [
  "cmdline", "memory_size", "vga_memory_size", "acpi", "virtio_balloon", "bzimage_initrd_from_filesystem", "boot_order",
  "net_device",
];
/** Events that the machine tells only to who listens, because there are many. */
const WATCHED = ["net0-send", "sound-output"];
/** Options of v86 that ask for something that is not there. */
const MISSING = ["modem", "cpuid_level", "bootmenu", "uart2", "uart3", "parallel1"];

/** A file is not there. */
export class FileNotFoundError extends Error {
  constructor(message = "File not found") {
    super(message);
    this.name = "FileNotFoundError";
  }
}

/** Relative URLs mean the page, or the current folder, wherever the machine is. */
function absolute(url) {
  if (hasPage) return new URL(url, document.baseURI).href;
  return url;
}

/** An image object that can go to a worker. */
function portable(image) {
  const { url, buffer, ...rest } = image;
  if (buffer === undefined) return { ...rest, url: url === undefined ? undefined : absolute(url) };
  const isFile = typeof Blob !== "undefined" && buffer instanceof Blob;
  return { ...rest, buffer: isFile ? buffer : bytesOf(buffer) };
}

function bytesOf(data) {
  if (data instanceof Uint8Array) return data;
  if (ArrayBuffer.isView(data)) return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return new Uint8Array(data);
}

/** The program, compiled once for all machines of this thread. */
const modules = new Map();
function compiled(path) {
  // Pages made for v86 name v86's own program.
  const own = path && !/(^|\/)v86[^/]*\.wasm(\?|$)/.test(path);
  const url = own ? absolute(path) : new URL("./env86.wasm", import.meta.url).href;
  if (!modules.has(url)) {
    // Beside the package's own there is a packed one, which is a quarter of the bytes.
    const module = loadPacked(url, !isNode && !own).then((bytes) => WebAssembly.compile(bytes));
    module.catch(() => modules.delete(url));
    modules.set(url, module);
  }
  return modules.get(url);
}

/** A PC. */
export class V86 {
  #link;
  #listeners = new Map();
  #ready;
  #running = false;
  #destroyed = false;
  #instructions = 0;
  #screen;
  #keyboard;
  #mouse;
  #serial;
  #sound;

  /** What v86's pages use of its bus: `register`, `unregister` and `send`. */
  bus = {
    register: (event, listener, self) => this.#register(event, listener, self),
    unregister: (event, listener) => this.remove_listener(event, listener),
    send: (event, data) => this.#send(event, data),
  };

  constructor(options = {}) {
    const remote = options.control_url && absolute(options.control_url).replace(/^http/, "ws");
    this.#link = hasPage && !remote && typeof Worker === "function" && !options.same_thread
      ? new Far((event, data) => this.#event(event, data))
      : new Near((event, data) => this.#event(event, data), remote);
    for (const name of MISSING) {
      if (options[name]) console.warn(`env86: the option ${name} is not there yet, and has no effect`);
    }
    this.#ready = this.#start(options);
    // Whoever calls a method is told there, too.
    this.#ready.catch((error) => {
      if (!this.#destroyed) this.#emit("emulator-error", error);
      if (!this.#listeners.get("emulator-error")?.size) console.error(error);
    });
  }

  async #start(options) {
    const container = options.screen?.container ?? options.screen_container;
    if (container) this.#screen = new Screen(container, this.#link, options.screen);
    if (hasPage && !options.disable_keyboard && container) {
      this.#keyboard = new Keyboard((stroke) => this.#tell("sendStrokes", [stroke]), () => this.#tell("releaseKeys"));
    }
    if (container && !options.disable_mouse) {
      this.#mouse = new Mouse(this.#screen.canvas, (method, ...args) => this.#tell(method, ...args));
    }
    if (hasPage && !options.disable_speaker && typeof AudioWorkletNode === "function") this.#sound = new Sound(this.#link);
    const { serial_container_xtermjs: xterm, serial_container: area, serial_console: console_ } = options;
    const element = xterm ?? (console_?.type === "xtermjs" ? console_.container : undefined);
    if (element) this.set_serial_container_xtermjs(element, console_?.xterm_lib);
    else if (area ?? console_?.container) this.#serial = new SerialText(area ?? console_.container, this);
    if (options.control_url) return this.#join();

    const images = {};
    for (const name of FILES) if (options[name]) images[name] = portable(options[name]);
    // A Multiboot kernel is known by its header.
    if (options.multiboot) images.bzimage = portable(options.multiboot);
    const config = {};
    for (const name of SETTINGS) if (options[name] !== undefined) config[name] = options[name];
    if (options.virtio_console) config.virtio_console = true;
    let filesystem;
    if (options.filesystem) {
      const { handle9p, proxy_url, basefs, baseurl, packed } = options.filesystem;
      if (handle9p || proxy_url) {
        throw new Error("filesystem.handle9p and filesystem.proxy_url are not there yet; give basefs and baseurl");
      }
      // Without an index it is empty, or that of a saved state, whose contents are fetched all the same.
      filesystem = {
        basefs: basefs && absolute(basefs.url ?? basefs), baseurl: baseurl ? slashed(absolute(baseurl)) : undefined, packed,
      };
    }
    let state = options.initial_state;
    if (typeof state === "function") state = { buffer: await state((url) => load(absolute(url))) };
    if (state) state = state.parts ? { ...state, parts: state.parts.map(absolute) } : portable(state);
    const kernel = images.bzimage || options.bzimage_initrd_from_filesystem;
    const rom = !!images.bios && !kernel && !!(images.hda ?? images.cdrom ?? images.fda ?? !filesystem?.basefs);
    // Whatever is packed needs the one, and the machine the other.
    const small = options.filesystem?.packed || hasPage ? await unpacker() : undefined;
    await this.#link.call("init", await compiled(options.wasm_path), small, whatIsBrought());
    let network = options.network_relay_url ?? options.net_device?.relay_url;
    if (network && !/^(wss?:|inbrowser(:|$))/.test(network)) {
      console.warn(`env86: a network by "${network}" is not there; network_relay_url takes ws:, wss: and "inbrowser"`);
      network = undefined;
    }
    await this.#link.call("load", { config, images, filesystem, rom, state, network });
    if (this.#destroyed) return;
    this.#emit("emulator-ready");
    this.#emit("emulator-loaded");
    if (options.autostart) await this.#run();
    this.#screen?.look();
  }

  /** Shows a machine that runs elsewhere. */
  async #join() {
    const { name, view_only, paused } = await this.#link.call("open");
    if (this.#destroyed) return;
    this.config = { ...this.config, name, view_only };
    if (view_only) {
      this.keyboard_set_enabled(false);
      this.mouse_set_enabled(false);
    }
    this.#emit("emulator-ready");
    this.#emit("emulator-loaded");
    this.#paused(paused);
    this.#screen?.look();
  }

  // ---- events ----

  add_listener(event, listener) {
    if (!this.#listeners.has(event)) this.#listeners.set(event, new Set());
    this.#listeners.get(event).add(listener);
    if (WATCHED.includes(event)) this.#tell("watch", event, true);
  }

  remove_listener(event, listener) {
    const listeners = this.#listeners.get(event);
    for (const one of listeners ?? []) if (one === listener || one.of === listener) listeners.delete(one);
    if (WATCHED.includes(event) && listeners?.size === 0) this.#tell("watch", event, false);
  }

  #register(event, listener, self) {
    this.add_listener(event, Object.assign((data) => listener.call(self, data), { of: listener }));
  }

  /** What the devices of v86 take from its bus. */
  #send(event, data) {
    const serial = /^serial([0-3])-input$/.exec(event);
    if (serial) return this.serial_send_bytes(Number(serial[1]), [data]);
    switch (event) {
      case "net0-receive":
        return this.#tell("netReceive", Uint8Array.from(data));
      case "keyboard-code":
        return this.#tell("sendStrokes", [[data]]);
      case "virtio-console0-input-bytes":
        return this.virtio_console_send(data);
      case "mouse-delta":
        return this.#tell("pointerBy", Math.round(data[0]), Math.round(-data[1]));
      case "mouse-wheel":
        return this.#tell("wheel", -data[0]);
      case "mouse-click":
        return data.forEach((down, button) => this.#tell("button", button, !!down));
      default:
        throw new Error(`bus.send: there is no "${event}" here; see docs/WEB.md`);
    }
  }

  #emit(event, data) {
    for (const listener of [...(this.#listeners.get(event) ?? [])]) listener(data);
  }

  #event(event, data) {
    switch (event) {
      case "serial":
        this.#emit(`serial${data.port}-output-bytes`, data.bytes);
        for (const byte of data.bytes) this.#emit(`serial${data.port}-output-byte`, byte);
        return;
      case "console":
        return this.#emit(`virtio-console${data.port}-output-bytes`, data.bytes);
      case "instructions":
        this.#instructions = data;
        return;
      case "recalled":
        return this.#emit("serial0-recalled-bytes", data.bytes);
      case "paused":
        return this.#paused(data);
      case "ended":
        this.#running = false;
        this.#emit("emulator-ended", data);
        return this.#emit("emulator-stopped");
      case "error":
        this.#running = false;
        this.#emit("emulator-error", new Error(data));
        return this.#emit("emulator-stopped");
      case "sound":
        this.#sound?.plays(data);
        return this.#emit(event, data);
      case "vmware-absolute-mouse":
        this.#mouse?.setAbsolute(data);
        return this.#emit(event, data);
      default:
        return this.#emit(event, data);
    }
  }

  /** Somebody else may stop a machine that runs elsewhere. */
  #paused(paused) {
    if (this.#running === !paused) return;
    this.#running = !paused;
    this.#emit(paused ? "emulator-stopped" : "emulator-started");
  }

  // ---- running ----

  /** Calls the machine once it is there. */
  async #call(method, ...args) {
    if (this.#destroyed) throw new Error("This machine has been destroyed");
    await this.#ready;
    return this.#link.call(method, ...args);
  }

  /** The same, where there is nothing to wait for. What comes before there is a machine waits for it. */
  #tell(method, ...args) {
    if (this.#destroyed) return;
    this.#ready.then(() => this.#destroyed || this.#link.tell(method, ...args)).catch(() => {});
  }

  async #run() {
    if (this.#running) return;
    this.#running = true;
    try {
      await this.#link.call("run");
    } catch (error) {
      this.#running = false;
      throw error;
    }
    this.#emit("emulator-started");
  }

  async run() {
    await this.#ready;
    await this.#run();
  }

  async stop() {
    if (await this.#call("stop")) {
      this.#running = false;
      this.#emit("emulator-stopped");
    }
  }

  /** Presses the reset button. */
  async restart() {
    await this.#call("restart");
  }

  is_running() {
    return this.#running;
  }

  async destroy() {
    if (this.#destroyed) return;
    this.#destroyed = true;
    this.#running = false;
    this.#keyboard?.destroy();
    this.#mouse?.destroy();
    this.#screen?.destroy();
    this.#serial?.destroy();
    this.#sound?.destroy();
    await this.#ready.catch(() => {});
    await this.#link.call("destroy").catch(() => {});
    this.#link.close();
  }

  /** Instructions executed, as of the machine's last word. */
  get_instruction_counter() {
    return this.#instructions;
  }

  // ---- states ----

  async save_state() {
    const bytes = await this.#call("save");
    return bytes.buffer;
  }

  async restore_state(state) {
    await this.#call("restore", bytesOf(state));
  }

  // ---- serial lines and consoles ----

  serial0_send(text) {
    this.serial_send_bytes(0, new TextEncoder().encode(text));
  }

  serial_send_bytes(port, data) {
    this.#tell("serialSend", port, Uint8Array.from(data));
  }

  virtio_console_send(data) {
    this.#tell("consoleSend", typeof data === "string" ? new TextEncoder().encode(data) : Uint8Array.from(data));
  }

  virtio_console_resize(columns, rows) {
    this.#tell("consoleSize", columns, rows);
  }

  set_serial_container_xtermjs(element, xterm_lib = globalThis.Terminal) {
    this.#serial?.destroy();
    this.#serial = new SerialTerminal(element, this, xterm_lib);
  }

  // ---- keyboard and mouse ----

  keyboard_send_scancodes(codes) {
    this.#tell("sendStrokes", strokes(codes));
  }

  keyboard_send_text(text) {
    this.#tell("type", text);
  }

  /** All keys go up, as when the keyboard is taken away. */
  keyboard_release() {
    this.#tell("releaseKeys");
  }

  keyboard_set_enabled(enabled) {
    this.#keyboard?.setEnabled(enabled);
  }

  keyboard_set_status(enabled) {
    this.keyboard_set_enabled(enabled);
  }

  mouse_set_enabled(enabled) {
    this.#mouse?.setEnabled(enabled);
  }

  mouse_set_status(enabled) {
    this.mouse_set_enabled(enabled);
  }

  lock_mouse() {
    this.#mouse?.lock();
  }

  power_button() {
    this.#tell("powerButton");
  }

  // ---- the screen ----

  screen_set_scale(x, y) {
    this.#screen?.setScale(x, y);
  }

  screen_go_fullscreen() {
    return this.#screen?.goFullscreen();
  }

  screen_make_screenshot() {
    return this.#screen?.screenshot() ?? null;
  }

  /** The rows of the text screen; null while it shows graphics. */
  screen_text() {
    return this.#call("screenText");
  }

  async wait_until_vga_screen_contains(expected, options = {}) {
    const wanted = Array.isArray(expected) ? expected : [expected];
    const end = options.timeout_msec ? Date.now() + options.timeout_msec : Infinity;
    for (;;) {
      const rows = (await this.screen_text()) ?? [];
      const screen = rows.map((row) => row.trimEnd()).join("\n");
      const has = (one) => (typeof one === "string" ? screen.includes(one) : rows.some((row) => one.test(row)));
      if (wanted.some(has)) return true;
      if (Date.now() >= end) return false;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  // ---- sound ----

  /** How loud the machine is in the page, from 0 to 1. */
  sound_set_volume(volume) {
    this.#sound?.setVolume(volume);
  }

  // ---- media, memory, files ----

  set_cdrom(image) {
    return this.#call("setMedium", "cdrom", portable(image));
  }

  eject_cdrom() {
    return this.#call("setMedium", "cdrom");
  }

  set_fda(image) {
    return this.#call("setMedium", "fda", portable(image));
  }

  eject_fda() {
    return this.#call("setMedium", "fda");
  }

  set_fdb(image) {
    return this.#call("setMedium", "fdb", portable(image));
  }

  eject_fdb() {
    return this.#call("setMedium", "fdb");
  }

  /** Guest memory by physical addresses: a promise, because the machine is in a worker. */
  read_memory(offset, length) {
    return this.#call("readMemory", offset, length);
  }

  async create_file(path, data) {
    if (!(await this.#call("writeFile", path, bytesOf(data)))) throw new FileNotFoundError();
  }

  async read_file(path) {
    const content = await this.#call("readFile", path);
    if (content === null) throw new FileNotFoundError();
    return content;
  }
}

/** Scan codes of set 1, each with what is before it: E0h stands before one more, E1h before two. */
function strokes(codes) {
  const all = [];
  for (let at = 0; at < codes.length; ) {
    const length = codes[at] === 0xe0 ? 2 : codes[at] === 0xe1 ? 3 : 1;
    all.push(codes.slice(at, (at += length)));
  }
  return all;
}

const slashed = (url) => (url.endsWith("/") ? url : `${url}/`);

/** A file of an image in a folder of this computer is there. */
const exists = (url) => sizeOf(url).then(() => true, () => false);

/**
 * Starts an image: the folder at `imageURL`, as `env86 create` or `env86 prepare` have made it. `options` are laid
 * over what its image.json says. Gives the machine, with what it was made of in `config`. With `control_url` it is the
 * machine that `env86 boot --console-url` runs there.
 */
export async function boot(imageURL, options = {}) {
  // A machine of `env86 boot --console-url` has its image already.
  if (options.control_url) {
    const machine = new V86(options);
    machine.config = { ...options, ...machine.config };
    return machine;
  }
  const base = slashed(absolute(imageURL));
  const json = JSON.parse(new TextDecoder().decode(await load(`${base}image.json`)));
  const config = { autostart: true, uart1: true, ...json, ...options };
  const parts = config.initial_state_parts;
  if (!config.initial_state && parts) {
    config.initial_state = { parts: Array.from({ length: parts }, (_, n) => `${base}state/initial.state.${n}`) };
  } else if (!config.initial_state && isNode && !/^https?:/.test(base)) {
    for (const name of ["initial.state.zst", "initial.state"]) {
      if (!config.initial_state && (await exists(base + name))) config.initial_state = { url: base + name };
    }
  }
  config.filesystem ??= { baseurl: `${base}fs/`, basefs: `${base}fs.json`, packed: !!json.packed_files };
  for (const name of [...FILES, "initial_state", "multiboot"]) {
    if (config[name]?.url?.startsWith("./")) config[name] = { ...config[name], url: base + config[name].url.slice(2) };
  }
  const machine = new V86(config);
  machine.config = config;
  return machine;
}

export default V86;
