// What the machine plays, from a page's loudspeakers. Browsers let a page be heard only after its user has done
// something there, and a device that is open uses a processor: it is open while the machine plays, and no longer.

/** The device is closed when nothing has been played for so long. */
const CLOSE_MS = 3000;
const GESTURES = ["pointerdown", "keydown"];

export class Sound {
  #link;
  #context;
  #gain;
  #volume = 1;
  #plays = false;
  #allowed = false;
  #closing;
  #gesture;

  constructor(link) {
    this.#link = link;
    this.#gesture = () => {
      this.#forget();
      this.#allowed = true;
      this.#open();
    };
    if (navigator.userActivation?.hasBeenActive) this.#allowed = true;
    else for (const name of GESTURES) window.addEventListener(name, this.#gesture, true);
  }

  #forget() {
    for (const name of GESTURES) window.removeEventListener(name, this.#gesture, true);
  }

  /** The machine has begun to play, or has ended. */
  plays(does) {
    this.#plays = does;
    clearTimeout(this.#closing);
    if (does) this.#open();
    else this.#closing = setTimeout(() => this.#context?.then(({ suspend }) => suspend()).catch(() => {}), CLOSE_MS);
  }

  setVolume(volume) {
    this.#volume = Math.max(0, Math.min(1, volume));
    if (this.#gain) this.#gain.gain.value = this.#volume;
    this.#open();
  }

  get volume() {
    return this.#volume;
  }

  #open() {
    if (!this.#plays || !this.#allowed || this.#volume === 0) return;
    clearTimeout(this.#closing);
    this.#context ??= this.#make();
    // A page without sound is a page: the machine goes on.
    this.#context.then(({ resume }) => this.#plays && resume()).catch((error) => {
      console.warn(`env86: no sound: ${error.message}`);
    });
  }

  async #make() {
    const context = new AudioContext({ latencyHint: "interactive" });
    await context.audioWorklet.addModule(new URL("./worklet.mjs", import.meta.url));
    const node = new AudioWorkletNode(context, "env86-sound", { numberOfInputs: 0, outputChannelCount: [2] });
    this.#gain = new GainNode(context, { gain: this.#volume });
    node.connect(this.#gain).connect(context.destination);
    const { port1, port2 } = new MessageChannel();
    node.port.postMessage(port1, [port1]);
    await this.#link.call("hear", port2);
    return {
      resume: () => context.resume(),
      suspend: () => context.suspend(),
      close: () => context.close(),
    };
  }

  destroy() {
    this.#forget();
    clearTimeout(this.#closing);
    this.#plays = false;
    this.#context?.then(({ close }) => close()).catch(() => {});
  }
}
