// The files that a machine is made of, by name: in memory, or fetched when they are asked for.
//
// A source has `size()` and `read(offset, to)`, which answer at once: a number, or PENDING or FAILED. What is
// pending is fetched meanwhile, and the files' `onarrival` is called when it has come.

export const PENDING = -1;
export const FAILED = -2;

/** Bytes of contents that are kept, of what can be fetched again. */
const CACHE_BYTES = 128 << 20;
/** Bytes of a request, where a disk is fetched by ranges. */
const CHUNK = 256 << 10;
/** A fetch is tried so often, with a pause before each further time. */
const TRIES = 3;
const PAUSE_MS = 500;

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Whether it is of no use to ask again: the server knows what was asked for, and has said no. */
const isFinal = (status) => status >= 400 && status < 500 && status !== 408 && status !== 429;

/** Node has no `fetch` for files. */
async function readLocal(url, range) {
  const { open } = await import("node:fs/promises");
  const file = await open(/^file:/.test(url) ? new URL(url) : url);
  try {
    const start = range ? range[0] : 0;
    const length = range ? range[1] - range[0] : (await file.stat()).size;
    const bytes = new Uint8Array(length);
    const { bytesRead } = await file.read(bytes, 0, length, start);
    return bytes.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

const isNode = typeof process !== "undefined" && !!process.versions?.node;
const isLocal = (url) => isNode && !/^(https?|data|blob):/.test(url);

/** Files that a page has brought with it: `{base, files}`, by their names below the URL `base`. */
let brought;

/** From now on, what is below `base` is what the page has brought, and nothing else is there. */
export function bring(base, files) {
  brought = { base, files };
}

/** What a page has brought, for its worker. */
export const whatIsBrought = () => brought;

async function readBrought(url, range) {
  const name = decodeURI(url.slice(brought.base.length).split(/[?#]/)[0]);
  const file = brought.files.get(name);
  if (!file) throw Object.assign(new Error(`${name}: the page has not brought it`), { final: true });
  const part = range ? file.slice(range[0], range[1]) : file;
  return new Uint8Array(await part.arrayBuffer());
}

/**
 * Gives up memory at once: a worker that has nothing to do collects no garbage. Nobody may have these bytes besides; what is
 * a part of something larger may be somebody's.
 */
export function letGo(bytes) {
  if (bytes.byteLength === bytes.buffer.byteLength) bytes.buffer.transfer?.(0);
}

/** Fetches once. `progress` is told (loaded, total). */
async function fetchOnce(url, range, progress) {
  if (brought && url.startsWith(brought.base)) return readBrought(url, range);
  if (isLocal(url)) return readLocal(url, range);
  const headers = range ? { Range: `bytes=${range[0]}-${range[1] - 1}` } : undefined;
  const response = await fetch(url, { headers });
  if (!response.ok) {
    throw Object.assign(new Error(`${url}: HTTP ${response.status}`), { final: isFinal(response.status) });
  }
  if (range && response.status !== 206) {
    await response.body?.cancel();
    throw Object.assign(new Error(`${url}: the server does not serve parts of files (Range)`), { final: true });
  }
  // The length is that of what is sent, which may be compressed.
  const length = Number(response.headers.get("content-length"));
  const total = response.headers.get("content-encoding") ? 0 : length;
  if (!progress || !response.body) return new Uint8Array(await response.arrayBuffer());
  const reader = response.body.getReader();
  const parts = [];
  let loaded = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    loaded += value.length;
    progress(loaded, total);
  }
  const bytes = new Uint8Array(loaded);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
    letGo(part);
  }
  return bytes;
}

/** Fetches a file, or the bytes `range[0]` up to `range[1]` of it, and tries again where that may help. */
export async function load(url, range, progress) {
  for (let again = 1; ; again++) {
    try {
      return await fetchOnce(url, range, progress);
    } catch (error) {
      if (error.final || error.code === "ENOENT" || again === TRIES) {
        throw new Error(`Cannot load ${url}: ${error.message}`, { cause: error });
      }
      await wait(PAUSE_MS * again);
    }
  }
}

/** The size of a file that is fetched by ranges. */
export async function sizeOf(url) {
  if (isLocal(url)) {
    const { stat } = await import("node:fs/promises");
    return (await stat(/^file:/.test(url) ? new URL(url) : url)).size;
  }
  const response = await fetch(url, { headers: { Range: "bytes=0-0" } });
  await response.body?.cancel();
  const total = /\/(\d+)$/.exec(response.headers.get("content-range") ?? "");
  if (response.status !== 206 || !total) {
    throw new Error(`${url}: its size is not known, because the server does not serve parts of files; give \`size\``);
  }
  return Number(total[1]);
}

/** Bytes in memory: somebody else's, too, or nobody's but this machine's. */
export class Bytes {
  constructor(bytes, own = false) {
    this.bytes = bytes instanceof Uint8Array ? bytes : new Uint8Array(bytes);
    this.own = own;
  }

  size() {
    return this.bytes.length;
  }

  read(offset, to) {
    const part = this.bytes.subarray(offset, offset + to.length);
    to.set(part);
    return part.length;
  }
}

/** Pieces of fetched files, the least used of which are forgotten. */
class Cache {
  #pieces = new Map();
  #bytes = 0;

  get(key) {
    const piece = this.#pieces.get(key);
    if (piece) {
      this.#pieces.delete(key);
      this.#pieces.set(key, piece);
    }
    return piece;
  }

  clear() {
    for (const piece of this.#pieces.values()) letGo(piece);
    this.#pieces.clear();
    this.#bytes = 0;
  }

  put(key, piece) {
    this.#pieces.set(key, piece);
    this.#bytes += piece.length;
    for (const [old, { length }] of this.#pieces) {
      // What came last is asked for next, however large it is.
      if (this.#bytes <= CACHE_BYTES || old === key) break;
      this.#pieces.delete(old);
      this.#bytes -= length;
    }
  }
}

/** All files of a machine. */
export class Files {
  #sources = new Map();
  #cache = new Cache();
  #pending = new Set();
  #lost = new Map();
  /** Called when something has come that was pending. */
  onarrival = () => {};
  /** Called with (name, error) when something cannot be fetched. */
  onerror = () => {};
  /** Called with (name, bytes) when a file has been read from the network. */
  onfetched = () => {};
  /** Where names that are not set are looked for: gives the URL of `fs/NAME`, or nothing. */
  locate = () => undefined;

  set(name, source) {
    this.#sources.set(name, source);
  }

  has(name) {
    return this.#sources.has(name);
  }

  /** Lets go of a file that the machine has and that nobody asks for again. A page's own bytes stay the page's. */
  letGo(name) {
    const source = this.#sources.get(name);
    if (!(source instanceof Bytes) || !source.own) return;
    this.#sources.delete(name);
    letGo(source.bytes);
  }

  /** Lets go of what has been fetched so far and can be fetched again. */
  forget() {
    this.#cache.clear();
  }

  size(name) {
    const source = this.#sources.get(name);
    if (source) return source.size();
    const piece = this.#piece(name, this.locate(name));
    return typeof piece === "number" ? piece : piece.length;
  }

  read(name, offset, to) {
    const source = this.#sources.get(name);
    if (source) return source.read(offset, to);
    const piece = this.#piece(name, this.locate(name));
    if (typeof piece === "number") return piece;
    const part = piece.subarray(offset, offset + to.length);
    to.set(part);
    return part.length;
  }

  /** A whole file, or the range of one. */
  #piece(name, url, range) {
    const key = range ? `${name}:${range[0]}` : name;
    const piece = this.#cache.get(key);
    if (piece) return piece;
    if (url === undefined) return FAILED;
    // An error is told once, and then asked again: a later read may succeed.
    if (this.#lost.delete(key)) return FAILED;
    if (!this.#pending.has(key)) {
      this.#pending.add(key);
      const loaded = typeof url === "function" ? url(range) : load(url, range);
      loaded
        .then((bytes) => {
          this.#cache.put(key, bytes);
          this.onfetched(name, bytes.length);
        })
        .catch((error) => {
          this.#lost.set(key, error);
          this.onerror(name, error);
        })
        .finally(() => {
          this.#pending.delete(key);
          this.onarrival();
        });
    }
    return PENDING;
  }

  /** Makes `name` a file of `size` bytes that is fetched in pieces of `chunk` bytes by `fetchPart([from, to])`. */
  setParts(name, size, fetchPart, chunk = CHUNK) {
    this.#sources.set(name, {
      size: () => size,
      read: (offset, to) => {
        let pending = false;
        const end = Math.min(offset + to.length, size);
        for (let start = offset - (offset % chunk); start < end; start += chunk) {
          const piece = this.#piece(name, fetchPart, [start, Math.min(start + chunk, size)]);
          if (piece === FAILED) return FAILED;
          if (piece === PENDING) {
            pending = true;
            continue;
          }
          const from = Math.max(offset, start);
          const part = piece.subarray(from - start, Math.min(end, start + chunk) - start);
          if (part.length < Math.min(end, start + chunk) - from) return FAILED;
          to.set(part, from - offset);
        }
        return pending ? PENDING : end - offset;
      },
    });
  }
}
