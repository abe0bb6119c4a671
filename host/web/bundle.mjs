// One classic script of the package's modules, for pages without modules: `<script src="env86.js">` gives the globals
// `V86`, `V86Starter` and `env86.boot`, and so does `importScripts("env86.js")` in a worker of the page's. The same script
// is the machine's worker and the browser's thread for sound, which it tells by where it is run.
//
//   node bundle.mjs FOLDER OUT [PAGE]
//
// FOLDER has the modules. PAGE is a module that is run besides, as the page's own: for a page that is one file, where the
// script has no address. What is understood of imports and exports is what is written there.
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

const [, , folder, out, page] = process.argv;
if (out === undefined) {
  console.error("usage: node bundle.mjs FOLDER OUT [PAGE]");
  process.exit(2);
}

/** Modules in an order in which each comes after those that it imports. */
const order = [];
const sources = new Map();

async function add(name) {
  if (sources.has(name)) return;
  const source = await readFile(join(folder, name), "utf8");
  sources.set(name, source);
  const imports = source.matchAll(/^import (?:\{[^}]*\} from )?"\.\/([^"]+)";$/gm);
  for (const [, other] of imports) await add(other);
  for (const [, other] of source.matchAll(/\bimport\("\.\/([^"]+)"\)/g)) await add(other);
  order.push(name);
}

const identifier = (name) => `$${name.replace(/\W/g, "_")}`;

/** A module as a function that is called when it is wanted, and once. */
function wrapped(name) {
  const exported = [];
  let code = sources.get(name);
  code = code.replace(/^import \{([^}]*)\} from "\.\/([^"]+)";$/gm, (_, names, other) =>
    `const {${names.replace(/ as /g, ": ")}} = ${identifier(other)}();`);
  code = code.replace(/\bimport\("\.\/([^"]+)"\)/g, (_, other) => `Promise.resolve(${identifier(other)}())`);
  code = code.replace(/^export default \w+;$/gm, "");
  code = code.replace(/^export ((?:async )?(?:function|class|const|let) (\w+))/gm, (_, declaration, one) => {
    exported.push(one);
    return declaration;
  });
  // As those who make xterm.js smaller write it.
  code = code.replace(/^\/\/# sourceMappingURL=.*$/gm, "");
  code = code.replace(/\bexport\s*\{([^{}]*)\};?\s*$/, (_, names) => {
    for (const one of names.split(",")) exported.push(one.trim().replace(/^(\S+) as (\S+)$/, "$2: $1"));
    return "";
  });
  code = code.replace(/\bimport\.meta\.url\b/g, "$here");
  if (/^(import|export)\b/m.test(code) || /import\.meta/.test(code)) {
    throw new Error(`${name} has an import or an export that bundle.mjs does not understand`);
  }
  return `const ${identifier(name)} = $once(${name === page ? "async " : ""}() => {\n${code}\nreturn { ${exported.join(", ")} };\n});\n`;
}

for (const name of ["env86.mjs", "worker.mjs", "worklet.mjs", ...(page ? [page] : [])]) await add(name);
// The worker is this script, and so is the worklet.
const link = sources.get("link.mjs");
const sound = sources.get("sound.mjs");
sources.set("link.mjs", link.replace('new URL("./worker.mjs", import.meta.url)', "new URL($script)")
  .replace('type: "module", ', "").replace("`import ${JSON.stringify(script.href)};`", "`globalThis.$env86 = ${JSON.stringify(script.href)}; importScripts($env86);`"));
sources.set("sound.mjs", sound.replace('new URL("./worklet.mjs", import.meta.url)', "$worklet()"));
if (sources.get("link.mjs") === link || sources.get("sound.mjs") === sound) throw new Error("link.mjs or sound.mjs is not as bundle.mjs knows it");

const script = `// env86 as one classic script, made by host/web/bundle.mjs of the modules beside it.
(() => {
"use strict";
/** A worker is not told the address of a script that it imports; an error there tells it. */
const $imported = () => /(?:blob:)?\\w+:\\/\\/\\S+?(?=:\\d+(?::\\d+)?\\)?$)/m.exec(new Error().stack)?.[0];
/** Where this script's files are, and where it is itself: a script that stands in the page has an address made for it. */
const $own = globalThis.document?.currentScript;
const $here = globalThis.$env86 ?? ($own ? $own.src || document.baseURI : $imported() ?? globalThis.location?.href);
const $script = $own && !$own.src ? URL.createObjectURL(new Blob([$own.textContent], { type: "text/javascript" })) : $here;
/** A page from a disk may not load the address made for its script as a module, but may one that has the script in it. */
const $worklet = () => ($own && !$own.src ? "data:text/javascript," + encodeURIComponent($own.textContent) : $script);
const $once = (make) => {
  let made;
  return () => (made ??= make());
};
${order.map(wrapped).join("\n")}
if (typeof AudioWorkletProcessor === "function") $worklet_mjs();
else if (typeof WorkerGlobalScope === "function" && globalThis.name === $link_mjs().WORKER) $worker_mjs();
else {
  const { V86, boot, FileNotFoundError } = $env86_mjs();
  Object.assign(globalThis, { V86, V86Starter: V86, env86: { V86, boot, FileNotFoundError } });${page ? `\n  ${identifier(page)}();` : ""}
}
})();
`;
// It may stand in a page.
await writeFile(out, script.replace(/<\/script/gi, "<\\/script").replace(/<!--/g, "<\\!--"));
