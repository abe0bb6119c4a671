// The machine's screen on a canvas.

/** A screen in `container`: in the canvas that is there, as pages made for v86 have it, or in one of its own. */
export class Screen {
  #link;
  #context;
  #container;
  #scale;
  #looking = false;
  #over = false;

  constructor(container, link, { scaling } = {}) {
    this.#container = container;
    this.#link = link;
    this.canvas = container.querySelector("canvas") ?? container.appendChild(document.createElement("canvas"));
    this.canvas.style.display = "block";
    if (!this.canvas.hasAttribute("aria-label")) this.canvas.setAttribute("aria-label", "Screen of the machine");
    // Pages made for v86 have an element for text, the first `div`. Others are the page's own.
    const text = container.querySelector(":scope > div");
    if (text && !text.contains(this.canvas)) text.style.display = "none";
    if (scaling) this.canvas.style.imageRendering = scaling;
    this.#context = this.canvas.getContext("2d", { alpha: false, desynchronized: true });
  }

  /** Draws what changes, when the page is seen, until the end. */
  look() {
    if (this.#looking) return;
    this.#looking = true;
    const next = async () => {
      if (this.#over) return;
      const frame = await this.#link.call("nextFrame").catch(() => undefined);
      if (!frame || this.#over) return;
      this.#draw(frame);
      requestAnimationFrame(next);
    };
    next();
  }

  #draw({ width, height, from, to, pixels }) {
    const { canvas } = this;
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
      if (this.#scale) this.setScale(...this.#scale);
    }
    if (to === from) return;
    const lines = new ImageData(new Uint8ClampedArray(pixels.buffer, pixels.byteOffset, pixels.length), width, to - from);
    this.#context.putImageData(lines, 0, from);
  }

  /** Points of the page for a dot. 1 and 1 leave the size to the page's style. */
  setScale(x, y) {
    this.#scale = [x, y];
    const { style, width, height } = this.canvas;
    style.width = x === 1 && y === 1 ? "" : `${width * x}px`;
    style.height = x === 1 && y === 1 ? "" : `${height * y}px`;
  }

  goFullscreen() {
    return this.#container.requestFullscreen();
  }

  /** An image element with the picture. */
  screenshot() {
    const image = new Image();
    image.src = this.canvas.toDataURL("image/png");
    return image;
  }

  destroy() {
    this.#over = true;
  }
}
