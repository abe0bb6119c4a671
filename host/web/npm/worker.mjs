// The machine's worker: carries calls and events between a page and its Machine.
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
    if (id !== undefined) postMessage({ id, value }, handed(value));
  } catch (error) {
    postMessage(id === undefined ? { event: "error", data: error.message } : { id, error: error.message });
  }
};
