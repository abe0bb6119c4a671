// Keyboard and mouse of a page.

/** Scan codes of set 1 by DOM's names of keys (UI Events KeyboardEvent code values). */
const KEYS = {};
const row = (first, names) => names.split(" ").forEach((name, n) => (KEYS[name] = [first + n]));
row(0x01, "Escape Digit1 Digit2 Digit3 Digit4 Digit5 Digit6 Digit7 Digit8 Digit9 Digit0 Minus Equal Backspace Tab");
row(0x10, "KeyQ KeyW KeyE KeyR KeyT KeyY KeyU KeyI KeyO KeyP BracketLeft BracketRight Enter ControlLeft");
row(0x1e, "KeyA KeyS KeyD KeyF KeyG KeyH KeyJ KeyK KeyL Semicolon Quote Backquote ShiftLeft Backslash");
row(0x2c, "KeyZ KeyX KeyC KeyV KeyB KeyN KeyM Comma Period Slash ShiftRight NumpadMultiply AltLeft Space CapsLock");
row(0x3b, "F1 F2 F3 F4 F5 F6 F7 F8 F9 F10 NumLock ScrollLock Numpad7 Numpad8 Numpad9 NumpadSubtract Numpad4 Numpad5");
row(0x4d, "Numpad6 NumpadAdd Numpad1 Numpad2 Numpad3 Numpad0 NumpadDecimal");
Object.assign(KEYS, { IntlBackslash: [0x56], F11: [0x57], F12: [0x58] });
const extended = {
  NumpadEnter: 0x1c, ControlRight: 0x1d, NumpadDivide: 0x35, PrintScreen: 0x37, AltRight: 0x38, Home: 0x47, ArrowUp: 0x48,
  PageUp: 0x49, ArrowLeft: 0x4b, ArrowRight: 0x4d, End: 0x4f, ArrowDown: 0x50, PageDown: 0x51, Insert: 0x52,
  Delete: 0x53, MetaLeft: 0x5b, MetaRight: 0x5c, ContextMenu: 0x5d,
};
for (const [name, code] of Object.entries(extended)) KEYS[name] = [0xe0, code];
/** The key that goes up by itself. */
const PAUSE = [0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5];
/** The codes of a stroke that is released. */
const up = (codes) => [...codes.slice(0, -1), codes.at(-1) | 0x80];

/** What is typed there is not for the machine. */
const isField = (target) => target?.closest?.("input, textarea, select, [contenteditable], .xterm, dialog, button");

/** The page's keyboard. */
export class Keyboard {
  #enabled = true;
  #down = new Set();
  #listeners;

  constructor(send, releaseAll) {
    const key = (event, isDown) => {
      const { code } = event;
      const codes = code === "Pause" ? PAUSE : KEYS[code];
      if (!this.#enabled || !codes || event.defaultPrevented) return;
      // A key goes up wherever it goes up.
      if (isDown ? isField(event.target) : !this.#down.has(code)) return;
      event.preventDefault();
      if (isDown) this.#down.add(code);
      else this.#down.delete(code);
      if (isDown || code !== "Pause") send(isDown ? codes : up(codes));
    };
    const lose = () => {
      if (this.#down.size > 0) releaseAll();
      this.#down.clear();
    };
    this.#listeners = { keydown: (event) => key(event, true), keyup: (event) => key(event, false), blur: lose };
    for (const [name, listener] of Object.entries(this.#listeners)) window.addEventListener(name, listener);
  }

  setEnabled(enabled) {
    this.#enabled = enabled;
  }

  destroy() {
    for (const [name, listener] of Object.entries(this.#listeners)) window.removeEventListener(name, listener);
  }
}

/** The page's mouse, and one finger. */
export class Mouse {
  #enabled = true;
  #absolute = false;
  #canvas;
  #listeners;

  constructor(canvas, tell) {
    this.#canvas = canvas;
    canvas.style.touchAction = "none";
    const move = (event) => {
      if (!this.#enabled) return;
      if (this.#absolute && document.pointerLockElement !== canvas) {
        const { left, top, width, height } = canvas.getBoundingClientRect();
        // The middle of the pixel: its corner would be the dot before, once rounded.
        const place = (at, size) => Math.max(0, Math.min(0xffff, Math.round(((at + 0.5) / size) * 0xffff)));
        tell("pointerAt", place(event.clientX - left, width), place(event.clientY - top, height));
      } else if (event.movementX || event.movementY) {
        tell("pointerBy", Math.round(event.movementX), Math.round(event.movementY));
      }
    };
    const button = (event, down) => {
      if (!this.#enabled) return;
      move(event);
      if (down) canvas.setPointerCapture?.(event.pointerId);
      tell("button", event.button, down);
      if (event.button !== 0) event.preventDefault();
    };
    this.#listeners = {
      pointermove: move,
      pointerdown: (event) => button(event, true),
      pointerup: (event) => button(event, false),
      pointercancel: (event) => button(event, false),
      contextmenu: (event) => this.#enabled && event.preventDefault(),
      wheel: (event) => {
        if (!this.#enabled || event.deltaY === 0) return;
        tell("wheel", Math.sign(event.deltaY));
        event.preventDefault();
      },
    };
    for (const [name, listener] of Object.entries(this.#listeners)) {
      canvas.addEventListener(name, listener, { passive: false });
    }
  }

  /** The guest wants to know where the pointer is, not how far it has moved. */
  setAbsolute(absolute) {
    this.#absolute = absolute;
  }

  setEnabled(enabled) {
    this.#enabled = enabled;
  }

  lock() {
    this.#canvas.requestPointerLock();
  }

  destroy() {
    for (const [name, listener] of Object.entries(this.#listeners)) this.#canvas.removeEventListener(name, listener);
  }
}
