// The way to a Machine in a worker, so that a busy guest never stops the page.

/** What such a worker is called, by which a script that is page and worker knows which it is. */
export const WORKER = "env86 machine";

/** A Machine in a worker. */
export class Far {
  #worker;
  #calls = new Map();
  #last = 0;

  constructor(onevent) {
    const script = new URL("./worker.mjs", import.meta.url);
    this.#worker = new Worker(sameOrigin(script), { type: "module", name: WORKER });
    this.#worker.onmessage = ({ data: { id, value, error, event, data } }) => {
      if (event !== undefined) return onevent(event, data);
      const call = this.#calls.get(id);
      this.#calls.delete(id);
      if (error === undefined) call?.resolve(value);
      else call?.reject(new Error(error));
    };
    this.#worker.onerror = (event) => {
      const error = new Error(`The machine's worker has failed: ${event.message ?? "its script cannot be loaded"}`);
      for (const { reject } of this.#calls.values()) reject(error);
      this.#calls.clear();
      onevent("error", error.message);
    };
  }

  call(method, ...args) {
    return new Promise((resolve, reject) => {
      const id = ++this.#last;
      this.#calls.set(id, { resolve, reject });
      this.#worker.postMessage({ id, method, args }, args.filter((arg) => arg instanceof MessagePort));
    });
  }

  tell(method, ...args) {
    this.#worker.postMessage({ method, args });
  }

  close() {
    this.#worker.terminate();
    this.#calls.clear();
  }
}

/** A worker's script has to come from the page's own origin; one from elsewhere is imported by one that does. */
function sameOrigin(script) {
  if (script.protocol === "blob:" || script.origin === location.origin) return script;
  const code = `import ${JSON.stringify(script.href)};`;
  return URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
}
