// COM1 in a page: in a text area, or in a terminal by xterm.js, which the page brings.

/** Characters that a text area keeps. */
const KEPT = 100_000;
/** What COM1 says, and what it had said before a page came to a machine that runs elsewhere. */
const OUTPUT = ["serial0-output-bytes", "serial0-recalled-bytes"];

/** COM1 in a text area. */
export class SerialText {
  #machine;
  #area;
  #listeners;
  #output;

  constructor(area, machine) {
    this.#machine = machine;
    this.#area = area;
    const decoder = new TextDecoder();
    this.#output = (bytes) => {
      const text = decoder.decode(bytes, { stream: true });
      let all = area.value;
      for (const character of text) {
        if (character === "\b") all = all.slice(0, -1);
        else if (character !== "\r") all += character;
      }
      area.value = all.slice(-KEPT);
      area.scrollTop = area.scrollHeight;
    };
    for (const event of OUTPUT) machine.add_listener(event, this.#output);
    const named = { Enter: "\r", Backspace: "\x7f", Tab: "\t", Escape: "\x1b" };
    const key = (event) => {
      const { key: name, ctrlKey } = event;
      let text = named[name] ?? (name.length === 1 ? name : undefined);
      if (ctrlKey && /^[a-z[\\\]]$/i.test(name)) text = String.fromCharCode(name.toUpperCase().charCodeAt(0) & 0x1f);
      if (text === undefined || event.metaKey || event.altKey) return;
      machine.serial0_send(text);
      event.preventDefault();
    };
    const paste = (event) => {
      machine.serial0_send(event.clipboardData.getData("text").replace(/\r?\n/g, "\r"));
      event.preventDefault();
    };
    this.#listeners = { keydown: key, paste };
    for (const [name, listener] of Object.entries(this.#listeners)) area.addEventListener(name, listener);
  }

  destroy() {
    for (const event of OUTPUT) this.#machine.remove_listener(event, this.#output);
    for (const [name, listener] of Object.entries(this.#listeners)) this.#area.removeEventListener(name, listener);
  }
}

/** As the cursor of the machine's screen, a terminal's blinks no longer when nothing has happened for so long. */
const STEADY_MS = 10_000;

/** A terminal's cursor blinks while something happens. A browser draws for each blink, and in an idle page for nothing else. */
export function blinkWhileUsed(terminal) {
  let steady;
  // Old xterm.js, which a page may bring, has other ways.
  if (!terminal.options || !terminal.onCursorMove) return () => {};
  const blink = () => {
    clearTimeout(steady);
    if (!terminal.options.cursorBlink) terminal.options.cursorBlink = true;
    steady = setTimeout(() => (terminal.options.cursorBlink = false), STEADY_MS);
  };
  terminal.onCursorMove(blink);
  terminal.onData(blink);
  blink();
  return () => clearTimeout(steady);
}

/** COM1 in a terminal. */
export class SerialTerminal {
  #machine;
  #output;
  #calm;

  constructor(element, machine, Terminal) {
    if (!Terminal) throw new Error("The page has no xterm.js: load it before, or give its class Terminal");
    this.#machine = machine;
    this.terminal = new Terminal({ cursorBlink: true, scrollback: 10_000 });
    this.terminal.open(element);
    this.#calm = blinkWhileUsed(this.terminal);
    this.#output = (bytes) => this.terminal.write(bytes);
    for (const event of OUTPUT) machine.add_listener(event, this.#output);
    this.terminal.onData((text) => machine.serial0_send(text));
    this.terminal.onBinary((text) => machine.serial_send_bytes(0, Uint8Array.from(text, (c) => c.charCodeAt(0))));
  }

  destroy() {
    for (const event of OUTPUT) this.#machine.remove_listener(event, this.#output);
    this.#calm();
    this.terminal.dispose();
  }
}
