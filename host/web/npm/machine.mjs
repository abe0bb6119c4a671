// The machine beside its page: in a worker, or in the same thread. It knows neither DOM nor messages: what it
// tells goes to `onevent(name, data)`, what it is told are its methods.
import { Bytes, Files, bring, letGo, load, sizeOf } from "./files.mjs";
import { connect } from "./network.mjs";
import { loadPacked, unpackBy } from "./unpack.mjs";

/** Instructions between looks at the world, at most; a slow guest gets fewer. */
const BUDGET = 500_000;
const LEAST_BUDGET = 2_000;
/** A run that takes longer is made shorter the next time. */
const LONG_RUN_MS = 8;
/** Runs follow each other for as long, before messages and timers get their turn. */
const TURN_MS = 12;
/** Timers wait no longer at once: a longer wait is begun anew. */
const LONGEST_WAIT_MS = 60_000;
/** A picture is drawn so often while a page looks, and so often while the guest sleeps. */
const FRAME_MS = 16;
const IDLE_FRAME_MS = 80;
/** The count of instructions is told so often, and so often if it has grown by less than a guest that works executes. */
const COUNT_MS = 100;
const IDLE_COUNT_MS = 1000;
const MUCH = 1_000_000;

const PENDING = 1;
const FAILED = 2;
const NO_FILE = 3;
const OUTPUT = { SERIAL: 0, CONSOLE: 1, STATE: 2, PANIC: 3, RESET: 4, SOUND: 5, FRAME: 6 };
/** What is read when a machine is switched on, and not while it runs. */
const STARTED = ["bzimage", "initrd"];
const DRIVES = { cdrom: 0, fda: 1, fdb: 2 };
/** Of images of this size and more, given as files, a saved state has only what was written. */
const LAZY_FROM = 256 << 20;

/** Frames that wait for the network card; of more, the oldest are lost. */
const FRAMES = 1024;
/** The machine plays no more when it has been silent for so long. */
const SILENCE_MS = 500;

const text = new TextDecoder();
const bytesOf = (string) => new TextEncoder().encode(string);

/** Does `task` soon, after events that wait: timers have a least time, messages have none. */
function makeSoon() {
  if (typeof setImmediate === "function") return (task) => setImmediate(task);
  const { port1, port2 } = new MessageChannel();
  const tasks = [];
  port1.onmessage = () => tasks.shift()?.();
  return (task) => {
    tasks.push(task);
    port2.postMessage(0);
  };
}

export class Machine {
  onevent = () => {};
  #exports;
  #desk;
  #files = new Files();
  #soon = makeSoon();
  #scheduled = false;
  #timer;
  /** The timer's milliseconds, and what it does. */
  #beat = 0;
  #beats = () => {
    if (!this.#running) this.#rest();
    else if (!this.#scheduled) this.#guarded(() => this.#turn());
  };
  #running = false;
  #ended = false;
  #budget = BUDGET;
  #state = [];
  #panic;
  /** What waits for devices to take it. */
  #serial = [[], [], [], []];
  #console = [];
  #strokes = [];
  #frames = [];
  /** What is at the other end of the network cable. */
  #network;
  /** Bytes of frames that have been sent and received, and not told yet. */
  #sent = 0;
  #received = 0;
  /** Events that are told only to who listens, because there are many. */
  #watched = new Set();
  /** Where sound goes: a port. */
  #ear;
  #plays = false;
  #playedAt = 0;
  /** Who waits for files. */
  #waiting = [];
  /** Who waits for a picture. */
  #viewer;
  #drawnAt = 0;
  /** It stays what it is as long as the guest sleeps. */
  #still = false;
  #positions = false;
  #media = 0;
  #countedAt = 0;
  #counted = 0;

  /**
   * `wasm` is a compiled module; `small`, where it was needed before, the one that unpacks; `brought`, what the page has
   * brought with it.
   */
  async init(wasm, small, brought) {
    if (brought) bring(brought.base, brought.files);
    if (small) unpackBy(small);
    const host = {
      elapsed_millis: () => performance.now(),
      unix_millis: () => Date.now(),
      random: () => crypto.getRandomValues(new Uint32Array(1))[0],
      file_size: (name, length) => this.#files.size(this.#string(name, length)),
      file_read: (name, length, offset, to, bytes) =>
        this.#files.read(this.#string(name, length), offset, this.#view(to, bytes)),
      take: (what, number, from, length) => this.#take(what, number, this.#view(from, length)),
    };
    const instance = await WebAssembly.instantiate(wasm, { host });
    this.#exports = instance.exports;
    this.#desk = this.#exports.env86_new();
    this.#files.onarrival = () => this.#arrived();
    this.#files.onerror = (name, error) =>
      this.onevent("download-error", { file_name: name, file_index: 0, file_count: 1, request: { message: error.message } });
    this.#files.onfetched = (name, length) => {
      if (name.startsWith("fs/")) this.onevent("9p-read-end", [name.slice(3), length]);
    };
  }

  /** Memory may grow, which detaches every view of it. */
  #view(at, length) {
    return new Uint8Array(this.#exports.memory.buffer, at, length);
  }

  #string(at, length) {
    return text.decode(this.#view(at, length));
  }

  #put(bytes) {
    const at = this.#exports.env86_inbox(this.#desk, bytes.length);
    this.#view(at, bytes.length).set(bytes);
  }

  #outbox() {
    const { env86_outbox, env86_outbox_len } = this.#exports;
    return this.#view(env86_outbox(this.#desk), env86_outbox_len(this.#desk));
  }

  /** Calls an export, with bytes, and makes an error of its failure; a trap ends the machine. */
  #call(name, ...numbers) {
    try {
      return this.#exports[`env86_${name}`](this.#desk, ...numbers);
    } catch (error) {
      this.#running = false;
      this.#ended = true;
      throw new Error(`env86 has failed: ${this.#panic ?? error.message}`, { cause: error });
    }
  }

  #check(answer) {
    if (answer === FAILED) throw new Error(text.decode(this.#outbox()));
    return answer;
  }

  /** Calls an export that may wait for files, again and again until it need not. */
  async #patiently(call) {
    for (;;) {
      const answer = this.#check(call());
      if (answer !== PENDING) return answer;
      await new Promise((resolve) => this.#waiting.push(resolve));
    }
  }

  #arrived() {
    for (const resolve of this.#waiting.splice(0)) resolve();
    this.#guarded(() => this.#check(this.#call("arrived")));
    this.#wake();
  }

  #take(what, number, bytes) {
    switch (what) {
      case OUTPUT.SERIAL:
        return this.onevent("serial", { port: number, bytes: bytes.slice() });
      case OUTPUT.CONSOLE:
        return this.onevent("console", { port: number, bytes: bytes.slice() });
      case OUTPUT.STATE:
        this.#state.push(bytes.slice());
        return;
      case OUTPUT.PANIC:
        this.#panic = text.decode(bytes.slice());
        return;
      case OUTPUT.RESET:
        return this.onevent("reset");
      case OUTPUT.SOUND:
        return this.#sound(new Int16Array(bytes.slice().buffer));
      case OUTPUT.FRAME:
        return this.#frame(bytes.slice());
    }
  }

  // ---- sound ----

  /** Sends sound to a port: samples of 16 bits, left and right in turns. */
  hear(port) {
    this.#ear = port;
  }

  #sound(samples) {
    this.#playedAt = performance.now();
    if (!this.#plays) {
      this.#plays = true;
      this.onevent("sound", true);
    }
    if (this.#watched.has("sound-output")) this.onevent("sound-output", samples.slice());
    this.#ear?.postMessage(samples, [samples.buffer]);
  }

  // ---- the network ----

  /** Tells an event, or no longer. */
  watch(event, wanted) {
    if (wanted) this.#watched.add(event);
    else this.#watched.delete(event);
    if (event === "net0-send" && wanted) this.#cable();
  }

  #cable() {
    this.#call("cable", 1);
    this.#wake();
  }

  #frame(frame) {
    this.#sent += frame.length;
    if (this.#watched.has("net0-send")) this.onevent("net0-send", frame.slice());
    this.#network?.send(frame);
  }

  /** A frame for the network card. */
  netReceive(frame) {
    if (!this.#exports) return;
    if (this.#frames.length === 0) this.#cable();
    this.#frames.push(frame);
    if (this.#frames.length > FRAMES) this.#frames.shift();
    this.#received += frame.length;
    this.#wake();
  }

  // ---- files ----

  /** Loads what a V86 image object means, and gives the file that name. */
  async #bring(name, image, progress) {
    const lazy = image.async ?? (image.buffer?.size ?? 0) >= LAZY_FROM;
    if (image.use_parts) {
      const { url, size, fixed_chunk_size: chunk } = image;
      if (!size || !chunk) throw new Error(`${name}: use_parts needs \`size\` and \`fixed_chunk_size\``);
      // Packed parts are called NAME-START-END.EXT.zst.
      const end = /\.zst$/.test(url) ? url.length - 4 : url.length;
      const last = url.slice(0, end).lastIndexOf(".");
      const dot = last > url.lastIndexOf("/") ? last : end;
      const part = ([from]) => loadPacked(`${url.slice(0, dot)}-${from}-${from + chunk}${url.slice(dot)}`);
      this.#files.setParts(name, size, part, chunk);
      return true;
    }
    if (image.buffer !== undefined) {
      const { buffer } = image;
      if (typeof Blob !== "undefined" && buffer instanceof Blob) {
        if (lazy) {
          const part = async ([from, to]) => new Uint8Array(await buffer.slice(from, to).arrayBuffer());
          this.#files.setParts(name, buffer.size, part);
          return true;
        }
        this.#files.set(name, new Bytes(await buffer.arrayBuffer()));
        return false;
      }
      this.#files.set(name, new Bytes(buffer));
      return false;
    }
    if (!image.url) throw new Error(`${name}: an image has a \`url\` or a \`buffer\``);
    if (lazy) {
      const size = image.size ?? (await sizeOf(image.url));
      this.#files.setParts(name, size, (range) => load(image.url, range));
      return true;
    }
    this.#files.set(name, new Bytes(await load(image.url, undefined, progress), true));
    return false;
  }

  /**
   * Loads what the machine is made of. `images` are V86's image objects by key, `config` the rest of
   * image.json, `filesystem` where the index and the contents are.
   */
  async load({ config, images, filesystem, rom, state, network }) {
    if (network) {
      this.#call("cable", 1);
      this.#network = connect(network, (frame) => this.netReceive(frame), (up) => this.onevent("network-change", up));
    }
    const names = Object.keys(images);
    const lazy = [];
    const total = names.length + (state ? 1 : 0) + (filesystem?.basefs && !state ? 1 : 0);
    let index = 0;
    const progress = (name) => {
      const file_index = index++;
      const tell = (loaded, size) =>
        this.onevent("download-progress", {
          file_index,
          file_count: total,
          file_name: name,
          lengthComputable: size > 0,
          total: size,
          loaded,
        });
      return tell;
    };
    const loading = names.map(async (name) => {
      if (await this.#bring(name, images[name], progress(images[name].url ?? name))) lazy.push(name);
    });
    if (filesystem) {
      const { baseurl, basefs, packed } = filesystem;
      this.#files.locate = (name) => {
        const url = name === "fs.json" ? basefs : name.startsWith("fs/") ? baseurl && baseurl + name.slice(3) : undefined;
        return url && (() => loadPacked(url, packed));
      };
      // A machine that is resumed has its index.
      if (basefs && typeof basefs !== "string") this.#files.set("fs.json", new Bytes(basefs));
      else if (basefs && !state) {
        const tell = progress(basefs);
        loading.push(loadPacked(basefs, packed, tell).then((bytes) => this.#files.set("fs.json", new Bytes(bytes))));
      }
    }
    let saved;
    if (state) {
      const tell = progress("initial_state");
      loading.push(this.#loadState(state, tell).then((bytes) => (saved = bytes)));
    }
    const failed = (await Promise.allSettled(loading)).find(({ status }) => status === "rejected");
    if (failed) throw failed.reason;
    const urls = Object.fromEntries(names.map((name) => [name, { url: images[name].url ?? name }]));
    const place = String(filesystem?.basefs ?? "");
    this.#put(bytesOf(JSON.stringify({ config: { ...config, ...urls }, lazy, rom, place })));
    this.#check(this.#call("configure"));
    if (saved) {
      await this.restore(saved);
      if (!state.buffer) letGo(saved);
    } else await this.#powerOn();
    this.#call("pause", 1);
  }

  async #powerOn() {
    await this.#patiently(() => this.#call("power_on"));
    // It starts the same again without them.
    for (const name of STARTED) this.#files.letGo(name);
    this.#files.forget();
  }

  /** A saved state: its bytes, or where it is, in one file or in parts. */
  async #loadState(state, progress) {
    if (state.buffer) return new Uint8Array(state.buffer);
    if (!state.parts) return load(state.url, undefined, progress);
    const loaded = new Array(state.parts.length).fill(0);
    const parts = await Promise.all(
      state.parts.map((url, number) =>
        load(url, undefined, (bytes) => {
          loaded[number] = bytes;
          progress(loaded.reduce((sum, part) => sum + part), state.size ?? 0);
        }),
      ),
    );
    const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) {
      bytes.set(part, at);
      at += part.length;
      letGo(part);
    }
    return bytes;
  }

  // ---- running ----

  run() {
    if (this.#ended) throw new Error("The machine has ended; restart() starts it again");
    if (this.#running) return false;
    this.#running = true;
    this.#call("pause", 0);
    this.#wake();
    return true;
  }

  stop() {
    if (!this.#running) return false;
    this.#running = false;
    this.#call("pause", 1);
    this.#rest();
    this.#look(true);
    return true;
  }

  async restart() {
    this.#ended = false;
    this.#clearInput();
    await this.#powerOn();
    if (this.#running) this.#wake();
    else this.#call("pause", 1);
  }

  /** Lets go of memory; nothing may be called afterwards. */
  destroy() {
    this.#running = false;
    this.#ended = true;
    this.#rest();
    this.#network?.close();
    this.#network = undefined;
    this.#ear?.close?.();
    this.#files.onarrival = () => {};
    this.#exports = undefined;
    this.#files = undefined;
  }

  #clearInput() {
    this.#serial = [[], [], [], []];
    this.#console = [];
    this.#strokes = [];
    this.#frames = [];
  }

  /** Something is there to be done: the machine is looked at soon. */
  #wake() {
    if (!this.#running || this.#scheduled) return;
    this.#rest();
    this.#scheduled = true;
    this.#soon(() => {
      this.#scheduled = false;
      if (this.#running) this.#guarded(() => this.#turn());
    });
  }

  #rest() {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  /** Errors of the machine end it, and are told. */
  #guarded(task) {
    try {
      return task();
    } catch (error) {
      this.#running = false;
      this.#ended = true;
      this.onevent("error", error.message);
      return undefined;
    }
  }

  #turn() {
    const began = performance.now();
    let now = began;
    while (this.#running && now - began < TURN_MS) {
      this.#giveInput();
      const idle = this.#call("run", this.#budget);
      const after = performance.now();
      const took = after - now;
      now = after;
      if (idle < 0) return this.#end(idle);
      if (took > LONG_RUN_MS) this.#budget = Math.max(this.#budget >> 1, LEAST_BUDGET);
      else if (took < LONG_RUN_MS / 2) this.#budget = Math.min(this.#budget << 1, BUDGET);
      if (idle > 0) {
        this.#look();
        return this.#sleep(idle);
      }
    }
    this.#look();
    this.#wake();
  }

  #end(idle) {
    const why = text.decode(this.#outbox());
    this.#running = false;
    this.#ended = true;
    this.#look(true);
    if (idle === -2) this.onevent("error", why);
    else this.onevent("ended", why);
  }

  #sleep(millis) {
    const looks = this.#viewer && !this.#still ? IDLE_FRAME_MS : LONGEST_WAIT_MS;
    // What a device did not take is offered again.
    const offers = this.#hasInput() ? FRAME_MS : this.#plays ? SILENCE_MS : LONGEST_WAIT_MS;
    const wait = Math.min(millis, looks, offers);
    if (wait < 1) return this.#wake();
    // A timer that beats at about this rate goes on: a new one for each wait would fill an idle worker's memory, whose
    // garbage nobody collects. So would a message to itself, and the turn is taken at once.
    if (this.#timer !== undefined && Math.abs(wait - this.#beat) <= 1) return;
    clearInterval(this.#timer);
    // Timers cut off parts of milliseconds, and what was cut off would be waited for by looking at the clock.
    this.#beat = Math.ceil(wait);
    this.#timer = setInterval(this.#beats, this.#beat);
  }

  /** The count of instructions, the text screen and the picture, for who asked for them. */
  #look(now = false) {
    const time = performance.now();
    const passed = time - this.#countedAt;
    const count = this.#exports.env86_instructions(this.#desk);
    const much = count - this.#counted >= MUCH || this.#sent || this.#received;
    if (now || passed >= (much ? COUNT_MS : IDLE_COUNT_MS)) {
      [this.#countedAt, this.#counted] = [time, count];
      this.onevent("instructions", count);
      if (this.#sent) this.onevent("eth-transmit-end", [this.#sent]);
      if (this.#received) this.onevent("eth-receive-end", [this.#received]);
      this.#sent = this.#received = 0;
    }
    if (this.#plays && time - this.#playedAt > SILENCE_MS) {
      this.#plays = false;
      this.onevent("sound", false);
    }
    if (this.#viewer) this.#draw(now);
    const positions = !!this.#call("wants_positions");
    if (positions !== this.#positions) {
      this.#positions = positions;
      this.onevent("vmware-absolute-mouse", positions);
    }
  }

  // ---- the screen ----

  /** The picture, when it has changed: its size, and the lines that have. */
  nextFrame() {
    return new Promise((resolve) => {
      this.#viewer = resolve;
      if (!this.#running) this.#draw(true);
      else this.#wake();
    });
  }

  #draw(now) {
    const time = performance.now();
    this.#still = false;
    if (!now && time - this.#drawnAt < FRAME_MS) return;
    this.#drawnAt = time;
    const { env86_show, env86_picture, env86_is_still } = this.#exports;
    if (!env86_show) return;
    if (!env86_show(this.#desk)) {
      this.#still = env86_is_still(this.#desk) !== 0;
      return;
    }
    const [width, height, from, to, at] = [0, 1, 2, 3, 4].map((what) => env86_picture(this.#desk, what));
    const pixels = this.#view(at + from * width * 4, (to - from) * width * 4).slice();
    this.#viewer({ width, height, from, to, pixels });
    this.#viewer = undefined;
  }

  /** The rows of the text screen; nothing while it shows graphics. */
  screenText() {
    return this.#call("text") ? text.decode(this.#outbox().slice()).split("\n") : null;
  }

  // ---- input ----

  #hasInput() {
    return this.#strokes.length > 0 || this.#frames.length > 0 || this.#console.length > 0 || this.#serial.some((queue) => queue.length > 0);
  }

  #giveInput() {
    this.#serial.forEach((queue, port) => this.#feed(queue, () => this.#call("serial", port)));
    this.#feed(this.#console, () => this.#call("console", 0));
    while (this.#strokes.length > 0) {
      this.#put(this.#strokes[0]);
      if (!this.#call("scancodes")) break;
      this.#strokes.shift();
    }
    while (this.#frames.length > 0) {
      this.#put(this.#frames[0]);
      if (!this.#call("frame")) break;
      this.#frames.shift();
    }
  }

  /** Gives a device the pieces of a queue, as far as it takes them. */
  #feed(queue, give) {
    while (queue.length > 0) {
      this.#put(queue[0]);
      const taken = give();
      if (taken >= 0 && taken < queue[0].length) {
        queue[0] = queue[0].subarray(taken);
        return;
      }
      queue.shift();
    }
  }

  serialSend(port, bytes) {
    if (!(port in this.#serial)) throw new RangeError(`There is no serial port ${port}`);
    if (bytes.length > 0) this.#serial[port].push(bytes);
    this.#wake();
  }

  consoleSend(bytes) {
    if (bytes.length > 0) this.#console.push(bytes);
    this.#wake();
  }

  consoleSize(columns, rows) {
    this.#call("console_size", columns, rows);
    this.#wake();
  }

  /** Each stroke is a list of scan codes of set 1. */
  sendStrokes(strokes) {
    this.#strokes.push(...strokes.map((stroke) => Uint8Array.from(stroke)));
    this.#wake();
  }

  /** Types text as on a US keyboard. */
  type(string) {
    this.#put(bytesOf(string));
    this.#call("typed");
    this.sendStrokes(JSON.parse(text.decode(this.#outbox().slice())));
  }

  releaseKeys() {
    this.#call("release_keys");
    this.#wake();
  }

  pointerBy(dx, dy) {
    this.#call("pointer_by", dx, dy);
    this.#wake();
  }

  pointerAt(x, y) {
    this.#call("pointer_at", x, y);
    this.#wake();
  }

  wheel(steps) {
    this.#call("wheel", steps);
    this.#wake();
  }

  button(number, down) {
    this.#call("button", number, down ? 1 : 0);
    this.#wake();
  }

  powerButton() {
    this.#call("power_button");
    this.#wake();
  }

  // ---- media, states, memory, files ----

  /** Puts an image into a drive, or takes out what is there. */
  async setMedium(drive, image) {
    let name = "";
    if (image) {
      name = `${drive}:${++this.#media}`;
      // A floppy disk is read whole.
      await this.#bring(name, drive === "cdrom" ? image : { ...image, async: false });
    }
    this.#put(bytesOf(name));
    this.#check(this.#call("medium", DRIVES[drive]));
    this.#wake();
  }

  save() {
    this.#state = [];
    try {
      this.#check(this.#call("save"));
      const bytes = new Uint8Array(this.#state.reduce((sum, piece) => sum + piece.length, 0));
      let at = 0;
      for (const piece of this.#state) {
        bytes.set(piece, at);
        at += piece.length;
      }
      return bytes;
    } finally {
      this.#state = [];
    }
  }

  async restore(bytes) {
    const put = () => this.#put(bytes);
    await this.#patiently(() => {
      put();
      return this.#call("resume");
    });
    this.#ended = false;
    this.#clearInput();
    if (this.#running) this.#wake();
    else this.#call("pause", 1);
  }

  readMemory(address, length) {
    this.#call("read_memory", address, length);
    return this.#outbox().slice();
  }

  /** The content of a file of the guest's; nothing if there is none. */
  async readFile(path) {
    const answer = await this.#patiently(() => {
      this.#put(bytesOf(path));
      return this.#call("read_file");
    });
    return answer === NO_FILE ? null : this.#outbox().slice();
  }

  /** Tells whether its directory is there. */
  async writeFile(path, content) {
    const name = bytesOf(path);
    const both = new Uint8Array(name.length + content.length);
    both.set(name);
    both.set(content, name.length);
    const answer = await this.#patiently(() => {
      this.#put(both);
      return this.#call("write_file", name.length);
    });
    return answer !== NO_FILE;
  }
}
