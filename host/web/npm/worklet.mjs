// The end of the machine's sound: in the browser's thread for sound, which asks for 128 frames at a time.
import { Player } from "./player.mjs";

class Sound extends AudioWorkletProcessor {
  #player = new Player(sampleRate);

  constructor() {
    super();
    // The machine's worker has the other end.
    this.port.onmessage = ({ data: machine }) => {
      machine.onmessage = ({ data }) => this.#player.give(data);
    };
  }

  process(_, [[left, right = left]]) {
    this.#player.play(left, right);
    return true;
  }
}

registerProcessor("env86-sound", Sound);
