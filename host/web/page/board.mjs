// A keyboard on the screen, for fingers: two layers that fit a telephone, and the keys that telephones do not have.

/** Keys by their labels: scan codes of set 1, and what a terminal gets. */
const NAMED = {
  Esc: [[0x01], "\x1b"], Tab: [[0x0f], "\t"], "⌫": [[0x0e], "\x7f"], Enter: [[0x1c], "\r"], Space: [[0x39], " "],
  "←": [[0xe0, 0x4b], "\x1b[D"], "↑": [[0xe0, 0x48], "\x1b[A"], "↓": [[0xe0, 0x50], "\x1b[B"], "→": [[0xe0, 0x4d], "\x1b[C"],
};
const SPOKEN = { "⌫": "Backspace", "←": "Left", "↑": "Up", "↓": "Down", "→": "Right", "⇧": "Shift" };
/** Keys that stay down for the next one. */
const HELD = { Ctrl: [0x1d], Alt: [0x38], "⇧": [0x2a] };
const TOP = "Esc Tab Ctrl Alt ← ↑ ↓ →".split(" ");
const LAYERS = {
  abc: [[..."qwertyuiop"], [..."asdfghjkl"], ["⇧", ..."zxcvbnm", "⌫"], ["123", "-", "Space", ".", "/", "Enter"]],
  123: [[..."1234567890"], [..."!@#$%^&*()"], [..."-_=+[]{}\\|", "⌫"], [..."~`'\"", ":", ";", "<", ">", ",", "?"], ["abc", "/", "Space", ".", "Enter"]],
};

/**
 * Fills `element` with keys. `isScreen(text)` tells whether they are for the machine's own keyboard; if not, it has sent
 * the text to the terminal.
 */
export function makeBoard(element, machine, isScreen) {
  const held = new Set();
  let layer = "abc";

  const press = (codes, isDown) => machine.keyboard_send_scancodes(isDown ? codes : [...codes.slice(0, -1), codes.at(-1) | 0x80]);

  function send(label) {
    const [codes, sent] = NAMED[label] ?? [undefined, label];
    let text = held.has("⇧") ? sent.toUpperCase() : sent;
    if (held.has("Ctrl") && /^[a-z[\\\]]$/i.test(text)) text = String.fromCharCode(text.toUpperCase().charCodeAt(0) & 0x1f);
    if (held.has("Alt")) text = `\x1b${text}`;
    if (isScreen(text)) {
      const down = [...held].filter((name) => codes || name !== "⇧").map((name) => HELD[name]);
      for (const key of down) press(key, true);
      if (codes) {
        press(codes, true);
        press(codes, false);
      } else machine.keyboard_send_text(held.has("⇧") ? label.toUpperCase() : label);
      for (const key of down) press(key, false);
    }
    if (held.size === 0) return;
    held.clear();
    draw();
  }

  function use(label) {
    if (label in LAYERS) layer = label;
    else if (!(label in HELD)) return send(label);
    else if (!held.delete(label)) held.add(label);
    draw();
  }

  function key(label) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = held.has("⇧") && label.length === 1 ? label.toUpperCase() : label;
    if (SPOKEN[label]) button.ariaLabel = SPOKEN[label];
    if (label in HELD) button.ariaPressed = held.has(label);
    if (label === "Space") button.className = "space";
    else if (label.length > 1 || label in HELD || label === "⌫") button.className = "wide";
    // The focus stays where it is; a click comes from keyboards and readers of the screen, too.
    button.onpointerdown = (event) => event.preventDefault();
    button.onclick = () => use(label);
    return button;
  }

  function draw() {
    element.replaceChildren(
      ...[TOP, ...LAYERS[layer]].map((labels) => {
        const row = document.createElement("div");
        row.className = "keys";
        row.append(...labels.map(key));
        return row;
      }),
    );
  }
  draw();
}
