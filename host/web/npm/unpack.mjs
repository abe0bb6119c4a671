// What is packed by Zstandard, which browsers do not unpack: a program for that, of its own and small.
import { load } from "./files.mjs";

/** A module's memory never shrinks: one of more than this is thrown away. */
const KEPT_BYTES = 8 << 20;
/** Frames of Zstandard, and files by gzip, begin with these. */
const ZSTANDARD = [0x28, 0xb5, 0x2f, 0xfd];
const GZIP = [0x1f, 0x8b];

let program;
let instance;

/** Whether bytes are packed. Some servers have unpacked already what they send. */
const begins = (bytes, magic) => magic.every((byte, at) => bytes[at] === byte);

/** The program itself is packed by gzip, which browsers and Node unpack. */
async function loadProgram() {
  const bytes = await load(new URL("./unpack.wasm.gz", import.meta.url).href);
  if (!begins(bytes, GZIP)) return WebAssembly.compile(bytes);
  const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return WebAssembly.compile(await new Response(plain).arrayBuffer());
}

/** The program, which a worker is given by its page. */
export function unpacker() {
  program ??= loadProgram();
  program.catch(() => (program = undefined));
  return program;
}

/** Unpacks by this program from now on. */
export function unpackBy(module) {
  program = Promise.resolve(module);
}

/** What is in a frame; what is none is given back. */
export async function unpacked(bytes) {
  if (!begins(bytes, ZSTANDARD)) return bytes;
  instance ??= unpacker().then((module) => WebAssembly.instantiate(module)).then(({ exports }) => ({
    exports,
    work: exports.unpack_new(),
  }));
  instance.catch(() => (instance = undefined));
  const { exports, work } = await instance;
  const { memory, unpack_room, unpack, unpack_plain, unpack_length } = exports;
  // The room may be in memory that has grown, of which the buffer is another.
  const at = unpack_room(work, bytes.length);
  new Uint8Array(memory.buffer, at, bytes.length).set(bytes);
  try {
    if (!unpack(work)) throw new Error("what is packed by Zstandard is damaged, or not whole");
    const [from, length] = [unpack_plain(work), unpack_length(work)];
    return new Uint8Array(memory.buffer, from, length).slice();
  } finally {
    if (memory.buffer.byteLength > KEPT_BYTES) instance = undefined;
  }
}

/** Nothing is there under that name, and asking again will not help. */
const isMissing = ({ cause }) => cause?.final || cause?.code === "ENOENT";

/**
 * Loads a file that is packed if its name says so, or if one with such a name is said to be beside it. Where that is
 * not there, the plain one is taken.
 */
export async function loadPacked(url, isBeside, progress) {
  if (/\.zst$/.test(url)) return unpacked(await load(url, undefined, progress));
  if (!isBeside) return load(url, undefined, progress);
  try {
    return await unpacked(await load(`${url}.zst`, undefined, progress));
  } catch (error) {
    if (!isMissing(error)) throw error;
    return load(url, undefined, progress);
  }
}
