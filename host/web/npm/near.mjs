// The way to a Machine in this thread: what Node has, and pages without workers; or to one that runs elsewhere, at a URL.
// Its script is loaded when it is wanted, because a page whose machine is in a worker has no use for it.

export class Near {
  #machine;

  constructor(onevent, url) {
    const made = url ? import("./remote.mjs").then(({ Remote }) => new Remote(url)) : import("./machine.mjs").then(({ Machine }) => new Machine());
    this.#machine = made.then((machine) => {
      machine.onevent = onevent;
      return machine;
    });
  }

  async call(method, ...args) {
    return (await this.#machine)[method](...args);
  }

  /** A call whose answer nobody waits for. */
  tell(method, ...args) {
    this.#machine.then((machine) => machine[method](...args));
  }

  close() {}
}
