// A machine that runs in `env86 boot --console-url`: the page shows it, and sends what is typed. The same methods as those
// of the machine beside the page (machine.mjs), as far as they are there; what is said, and how, is in the program's
// sources (host/src/console/pages/viewer.rs).
const PROTOCOL = "env86.machine";
/** The first bytes of binary messages, and the forms of a part of the picture. */
const SAID = 1;
const PICTURE = 2;
const PALETTE = 1;
/** Bytes of COM1's in a message, and characters to be typed. */
const PIECE = 64 << 10;

/** What is packed by zlib. */
async function inflated(bytes) {
  const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(plain).arrayBuffer());
}

export class Remote {
  onevent = () => {};
  #socket;
  #opened;
  #calls = new Map();
  #last = 0;
  #status = {};
  /** Bytes of what COM1 had said before. */
  #recalled = 0;
  /** The picture, the lines of it that have been drawn and not been given, and who waits for them. */
  #picture = { width: 0, height: 0, pixels: new Uint32Array(0) };
  #drawn;
  #viewer;
  /** Parts are drawn one after the other. */
  #drawing = Promise.resolve();
  #over = false;

  constructor(url) {
    if (typeof WebSocket !== "function") throw new Error("control_url needs a browser, or Node 22 or later");
    this.#socket = new WebSocket(url, PROTOCOL);
    this.#socket.binaryType = "arraybuffer";
    this.#opened = new Promise((resolve, reject) => {
      this.#socket.onmessage = ({ data }) => this.#take(data, resolve);
      this.#socket.onclose = ({ reason }) => {
        reject(new Error("The machine does not let this page in: has it ended, and does the address have its token?"));
        this.#end(reason || "The connection to the machine is lost; load the page again to see it");
      };
    });
    this.#opened.catch(() => {});
  }

  /** Gives what the machine says of itself at first. */
  open() {
    return this.#opened;
  }

  #take(data, opened) {
    if (typeof data !== "string") {
      const bytes = new Uint8Array(data);
      if (bytes[0] === SAID) this.#said(bytes.subarray(1));
      else if (bytes[0] === PICTURE) this.#drawing = this.#drawing.then(() => this.#draw(bytes)).catch((error) => this.onevent("error", error.message));
      return;
    }
    const { id, value, error, event, data: about } = JSON.parse(data);
    if (id !== undefined) {
      const call = this.#calls.get(id);
      this.#calls.delete(id);
      if (error === undefined) call?.resolve(value);
      else call?.reject(new Error(error));
    } else if (event === "hello") {
      this.#recalled = about.recalled;
      this.#status.paused = about.paused;
      opened(about);
    } else if (event === "status") {
      const before = this.#status;
      this.#status = about;
      this.onevent("instructions", about.instructions);
      if (before.paused !== about.paused) this.onevent("paused", about.paused);
      if (before.wants_positions !== about.wants_positions) this.onevent("vmware-absolute-mouse", about.wants_positions);
      if (before.answers !== about.answers) this.onevent("terminal-answers", about.answers);
    } else this.onevent(event, about);
  }

  #said(bytes) {
    const recalled = bytes.subarray(0, this.#recalled);
    this.#recalled -= recalled.length;
    if (recalled.length > 0) this.onevent("recalled", { port: 0, bytes: recalled });
    if (recalled.length < bytes.length) this.onevent("serial", { port: 0, bytes: bytes.subarray(recalled.length) });
  }

  async #draw(bytes) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, 14);
    const [width, height, left, top, across, down] = [1, 3, 5, 7, 9, 11].map((at) => view.getUint16(at, true));
    const content = await inflated(bytes.subarray(14));
    const resized = width !== this.#picture.width || height !== this.#picture.height;
    if (resized) {
      this.#picture = { width, height, pixels: new Uint32Array(width * height).fill(0xff000000) };
    }
    const { pixels } = this.#picture;
    const color = (at) => 0xff000000 | (content[at + 2] << 16) | (content[at + 1] << 8) | content[at];
    const colors = bytes[13] === PALETTE ? Uint32Array.from({ length: content[0] + 1 }, (_, n) => color(1 + 3 * n)) : undefined;
    let from = colors ? 1 + 3 * colors.length : 0;
    for (let line = top; line < top + down; line++) {
      const start = line * width + left;
      for (let at = start; at < start + across; at++) {
        pixels[at] = colors ? colors[content[from]] : color(from);
        from += colors ? 1 : 3;
      }
    }
    const { from: first = top, to: last = top } = resized ? {} : this.#drawn ?? {};
    this.#drawn = { from: Math.min(first, top), to: Math.max(last, top + down) };
    this.#show();
  }

  /** Gives who waits for it what has been drawn. */
  #show() {
    if (!this.#drawn || !this.#viewer) return;
    const { width, height, pixels } = this.#picture;
    const { from, to } = this.#drawn;
    this.#viewer({ width, height, from, to, pixels: new Uint8Array(pixels.buffer, from * width * 4, (to - from) * width * 4) });
    this.#viewer = this.#drawn = undefined;
  }

  #end(reason) {
    if (this.#over) return;
    this.#over = true;
    for (const { reject } of this.#calls.values()) reject(new Error(reason));
    this.#calls.clear();
    this.#drawing.then(() => this.#viewer?.(undefined));
    this.onevent("ended", reason);
  }

  #send(method, args, id) {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify({ id, method, args }));
  }

  #call(method, args) {
    return new Promise((resolve, reject) => {
      if (this.#over) return reject(new Error("The machine has ended"));
      const id = ++this.#last;
      this.#calls.set(id, { resolve, reject });
      this.#send(method, args, id);
    });
  }

  /** The next part of the picture, in whole lines. */
  nextFrame() {
    return new Promise((resolve) => {
      this.#viewer = resolve;
      if (this.#drawn) this.#show();
      else if (this.#over) resolve(undefined);
      else this.#send("nextFrame");
    });
  }

  screenText() {
    return this.#call("screenText");
  }

  run() {
    return this.#call("run");
  }

  async stop() {
    await this.#call("stop");
    return true;
  }

  restart() {
    return this.#call("restart");
  }

  /** The page goes; the machine stays. */
  destroy() {
    this.#over = true;
    this.#socket.close();
  }

  sendStrokes(strokes) {
    this.#send("sendStrokes", strokes.map((codes) => Array.from(codes)));
  }

  releaseKeys() {
    this.#send("releaseKeys");
  }

  type(text) {
    for (let at = 0; at < text.length; at += PIECE) this.#send("type", text.slice(at, at + PIECE));
  }

  serialSend(port, bytes) {
    if (port !== 0) throw new Error("Of this machine only COM1 is at hand");
    for (let at = 0; at < bytes.length; at += PIECE) this.#send("serialSend", Array.from(bytes.subarray(at, at + PIECE)));
  }

  pointerBy(dx, dy) {
    this.#send("pointerBy", [dx, dy]);
  }

  pointerAt(x, y) {
    this.#send("pointerAt", [x, y]);
  }

  wheel(steps) {
    this.#send("wheel", steps);
  }

  button(number, down) {
    this.#send("button", [number, down]);
  }

  powerButton() {
    this.#send("powerButton");
  }

  /** Who listens makes no difference: there are no such events. */
  watch() {}
}

for (const name of ["save", "restore", "setMedium", "readMemory", "readFile", "writeFile", "consoleSend", "consoleSize", "netReceive", "hear"]) {
  Remote.prototype[name] = () => {
    throw new Error(`${name}: a machine of \`env86 boot --console-url\` does not do that for a page; the program's own commands do`);
  };
}
