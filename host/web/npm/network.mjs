// The other end of the cable in the machine's network card: a relay that is reached by a WebSocket, one Ethernet frame
// a message, as `env86 network` and v86's relays speak; or other pages of this browser.

/** Frames that wait until a relay is there; of more, the oldest are lost. */
const WAITING = 64;
/** A relay that is lost is sought again after so long, at first and at most. */
const AGAIN_MS = 1000;
const LATEST_MS = 10_000;
/** Bytes that wait to be sent; beyond, frames are lost, as on a wire. */
const SENDING = 4 << 20;

/** What a URL of a relay means. `onframe(bytes)` and `onchange(isUp)` are called. */
export function connect(url, onframe, onchange) {
  if (/^wss?:/.test(url)) return new Relay(url, onframe, onchange);
  if (/^inbrowser(:|$)/.test(url)) return new Channel(onframe, onchange);
  throw new Error(`network_relay_url: "${url}" cannot be used; a relay is at ws:, wss: or "inbrowser"`);
}

class Relay {
  #url;
  #onframe;
  #onchange;
  #socket;
  #timer;
  #pause = AGAIN_MS;
  #waiting = [];
  #over = false;

  constructor(url, onframe, onchange) {
    if (typeof WebSocket !== "function") {
      throw new Error("network_relay_url: there is no WebSocket here; Node has it since 22, or with --experimental-websocket");
    }
    this.#url = url;
    this.#onframe = onframe;
    this.#onchange = onchange;
    this.#open();
  }

  #open() {
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.#pause = AGAIN_MS;
      this.#onchange(true);
      for (const frame of this.#waiting.splice(0)) socket.send(frame);
    };
    socket.onmessage = ({ data }) => data instanceof ArrayBuffer && this.#onframe(new Uint8Array(data));
    socket.onclose = () => {
      if (this.#over) return;
      this.#onchange(false);
      this.#timer = setTimeout(() => this.#open(), this.#pause);
      this.#pause = Math.min(2 * this.#pause, LATEST_MS);
    };
  }

  send(frame) {
    if (this.#socket.readyState === 1) {
      if (this.#socket.bufferedAmount < SENDING) this.#socket.send(frame);
      return;
    }
    this.#waiting.push(frame);
    if (this.#waiting.length > WAITING) this.#waiting.shift();
  }

  close() {
    this.#over = true;
    clearTimeout(this.#timer);
    this.#socket.close();
  }
}

/** All pages of this browser and site that say so are on one wire; v86's are on the same. */
class Channel {
  #channel = new BroadcastChannel("v86-inbrowser-0");

  constructor(onframe, onchange) {
    this.#channel.onmessage = ({ data }) => data instanceof Uint8Array && onframe(data);
    // Node ends although a wire is there.
    this.#channel.unref?.();
    queueMicrotask(() => onchange(true));
  }

  send(frame) {
    this.#channel.postMessage(frame);
  }

  close() {
    this.#channel.close();
  }
}
