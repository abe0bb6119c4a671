#!/usr/bin/env node
// Plays the zoo's scripts on v86: `V86=node_modules/v86 ../run others/v86.mjs FOLDER` is `make zoo` with v86, under
// Node, in env86's place. It takes what `../run` says to env86 and the steps that recipes use. Times are the host's.
// A text screen is kept as text beside the name of the picture, because v86 draws fonts in browsers only.
import { readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { deflateSync } from "node:zlib";

const LIMIT = 30_000;
// The scripts' limits are meant for env86, and their sleeps for a guest's own time.
const PATIENCE = 4;
const LOOK = 100;
// Between two keys: BIOSes read a key every timer tick at worst.
const BETWEEN_KEYS = 100;
const UNITS = { ms: 1, s: 1000, m: 60_000 };
const FIRMWARE = "/usr/share/seabios";
// Scan codes of set 1.
const KEYS = {
  enter: [0x1c], space: [0x39], right: [0xe0, 0x4d], ctrl: [0x1d], alt: [0x38], delete: [0xe0, 0x53], b: [0x30],
};
const BREAK = 0x80;

class Failed extends Error {}

const { values } = parseArgs({
  args: process.argv.slice(3),
  options: Object.fromEntries(
    ["fda", "fdb", "hda", "hdb", "cdrom", "kernel", "initrd", "append", "memory", "screenshot", "script"]
      .map(name => [name, { type: "string" }])
      .concat(["no-console", "acpi", "persist"].map(name => [name, { type: "boolean" }])),
  ),
});

// v86 draws into one of these, and Node has none.
globalThis.ImageData = class {
  constructor(data, width, height) {
    Object.assign(this, { data, width, height });
  }
};

const file = path => {
  const bytes = readFileSync(path);
  return { buffer: bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) };
};
const build = process.env.V86 && `${process.env.V86}/build`;
if (!build) {
  console.error("V86 must name the folder of the npm package v86, from the root of the file system on");
  process.exit(2);
}
const { V86 } = await import(pathToFileURL(`${build}/libv86.mjs`));
const drives = ["fda", "fdb", "hda", "hdb", "cdrom"].filter(name => values[name]);
// What the guest writes goes into these.
const disks = Object.fromEntries(drives.map(name => [name, file(values[name])]));
// A Multiboot kernel has this in its first 8 KiB.
const MULTIBOOT = Buffer.from([0x02, 0xb0, 0xad, 0x1b]);
const kernel = values.kernel && file(values.kernel);
const isMultiboot = kernel && Buffer.from(kernel.buffer).subarray(0, 8192).includes(MULTIBOOT);
const machine = new V86({
  wasm_path: `${build}/v86.wasm`,
  bios: file(`${FIRMWARE}/bios.bin`),
  vga_bios: file(`${FIRMWARE}/vgabios-stdvga.bin`),
  memory_size: parseInt(values.memory ?? "512M") << 20,
  vga_memory_size: 8 << 20,
  acpi: values.acpi ?? false,
  autostart: true,
  disable_speaker: true,
  ...(kernel && { [isMultiboot ? "multiboot" : "bzimage"]: kernel, cmdline: values.append }),
  ...(values.initrd && { initrd: file(values.initrd) }),
  ...disks,
});

await new Promise(resolve => machine.add_listener("emulator-ready", resolve));
let serial = "";
machine.add_listener("serial0-output-byte", byte => serial += String.fromCharCode(byte));
let graphics = false;
machine.add_listener("screen-set-size", ([, , bpp]) => graphics = bpp !== 0);

const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));
const screen = () => machine.screen_adapter.get_text_screen().map(row => row.trimEnd()).join("\n");
const milliseconds = text => {
  const [, number, unit] = text.match(/^([\d.]+)(ms|s|m)$/);
  return number * UNITS[unit];
};

async function wait(what, source, limit = LIMIT) {
  for (const until = Date.now() + PATIENCE * limit; !source().includes(what); await sleep(LOOK)) {
    if (Date.now() > until) {
      const shown = graphics ? "graphics" : screen().trimEnd();
      throw new Failed(`${JSON.stringify(what)} did not come within ${PATIENCE * limit / 1000} s; the screen:\n${shown}`);
    }
  }
}

const words = {
  "wait-screen": (text, limit) => wait(text, screen, limit && milliseconds(limit)),
  "wait-serial": async (text, limit) => {
    await wait(text, () => serial, limit && milliseconds(limit));
    serial = serial.slice(serial.indexOf(text) + text.length);
  },
  // v86 does not say when a guest is idle.
  "wait-idle": () => sleep(20_000),
  sleep: time => sleep(PATIENCE * milliseconds(time)),
  send: text => machine.serial0_send(text),
  type: async text => {
    for (const char of text) {
      machine.keyboard_send_text(char);
      await sleep(BETWEEN_KEYS);
    }
  },
  key: async chord => {
    const codes = chord.split("-").map(name => KEYS[name] ?? (() => { throw new Failed(`no key ${name}`); })());
    machine.keyboard_send_scancodes(codes.flat());
    await sleep(BETWEEN_KEYS);
    machine.keyboard_send_scancodes(codes.reverse().flatMap(code => [...code.slice(0, -1), code.at(-1) | BREAK]));
    await sleep(BETWEEN_KEYS);
  },
};

const ESCAPES = { n: "\n", t: "\t" };
function* steps(source) {
  for (const line of source.split("\n")) {
    const found = [...line.matchAll(/"((?:[^"\\]|\\.)*)"|(#.*)|(\S+)/g)].filter(match => match[2] === undefined);
    if (found.length !== 0) {
      yield found.map(([, text, , word]) => word ?? text.replace(/\\(.)/g, (_, char) => ESCAPES[char] ?? char));
    }
  }
}

const crc = bytes => {
  let sum = ~0;
  for (const byte of bytes) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit++) {
      sum = sum & 1 ? (sum >>> 1) ^ 0xedb88320 : sum >>> 1;
    }
  }
  return ~sum >>> 0;
};

// The part of a picture that is on the screen.
function png({ image_data: { data, width: stride }, buffer_x, buffer_y, buffer_width: width, buffer_height: height }) {
  const chunk = (name, body) => {
    const named = Buffer.concat([Buffer.from(name), body]);
    const length = Buffer.alloc(4), sum = Buffer.alloc(4);
    length.writeUInt32BE(body.length);
    sum.writeUInt32BE(crc(named));
    return Buffer.concat([length, named, sum]);
  };
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width);
  header.writeUInt32BE(height, 4);
  // Eight bits each of red, green, blue and alpha.
  header.set([8, 6], 8);
  const pixels = Buffer.from(data.buffer, data.byteOffset, data.length);
  const row = y => 4 * ((buffer_y + y) * stride + buffer_x);
  const rows = Array.from({ length: height }, (_, y) =>
    Buffer.concat([Buffer.alloc(1), pixels.subarray(row(y), row(y) + 4 * width)]));
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  return Buffer.concat([signature, chunk("IHDR", header), chunk("IDAT", deflateSync(Buffer.concat(rows))),
    chunk("IEND", Buffer.alloc(0))]);
}

async function keep_screen(path) {
  if (!graphics) {
    writeFileSync(`${path}.txt`, `${screen()}\n`);
    return;
  }
  machine.screen_adapter.update_buffer = layers => {
    if (layers.length !== 0) {
      writeFileSync(path, png(layers[0]));
    }
  };
  // As a browser would: what has changed since the last time is drawn.
  for (let time = 0; time < 10; time++) {
    machine.v86.cpu.devices.vga.screen_fill_buffer();
    await sleep(LOOK);
  }
}

let status = 0;
try {
  for (const [word, ...rest] of steps(readFileSync(0, "utf8"))) {
    if (!words[word]) {
      throw new Failed(`The step ${word} is not known here`);
    }
    await words[word](...rest);
  }
} catch (error) {
  if (!(error instanceof Failed)) {
    throw error;
  }
  console.error(error.message);
  status = 1;
}
if (values.screenshot) {
  await keep_screen(values.screenshot);
}
if (values.persist) {
  drives.forEach(name => writeFileSync(values[name], Buffer.from(disks[name].buffer)));
}
process.exit(status);
