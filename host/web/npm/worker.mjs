// The machine's worker: carries calls and events between a page and its Machine.
import { letGo } from "./files.mjs";
import { Machine } from "./machine.mjs";

const machine = new Machine();

/** What is large is handed over, not copied. */
const handed = (value) => {
  const bytes = ArrayBuffer.isView(value) ? value : value?.pixels;
  return bytes ? [bytes.buffer] : [];
};

machine.onevent = (event, data) => postMessage({ event, data }, handed(data));

onmessage = async ({ data: { id, method, args } }) => {
  try {
    const value = await machine[method](...args);
    // A state is large, and the page has kept its own.
    if (method === "restore") letGo(args[0]);
    if (id !== undefined) postMessage({ id, value }, handed(value));
  } catch (error) {
    postMessage(id === undefined ? { event: "error", data: error.message } : { id, error: error.message });
  }
};
