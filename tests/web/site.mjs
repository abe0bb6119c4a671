// A plain web server of a folder, as there are many: no compression, no cache, and no ranges unless they are wanted.
import { createServer } from "node:http";
import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { extname, join, normalize } from "node:path";

const TYPES = {
  ".html": "text/html", ".mjs": "text/javascript", ".js": "text/javascript", ".css": "text/css", ".json": "application/json",
  ".wasm": "application/wasm",
};

/**
 * Serves folders by the beginnings of their paths, the first that has a file. Counts what it gives. With `ranges` parts of
 * files are served to who asks for them; `edit(name)` gives a function that changes the text of that file, or nothing.
 */
export async function serve(folders, { ranges = false, edit = () => undefined } = {}) {
  const site = { url: "", requests: 0, bytes: 0 };
  const server = createServer(async (request, response) => {
    const path = normalize(decodeURIComponent(new URL(request.url, "http://localhost").pathname));
    const name = path.endsWith("/") ? `${path}index.html` : path;
    site.requests++;
    for (const [prefix, folder] of folders) {
      if (!name.startsWith(prefix)) continue;
      const file = join(folder, name.slice(prefix.length));
      const meta = await stat(file).catch(() => undefined);
      if (!meta?.isFile()) continue;
      const type = TYPES[extname(name)] ?? "application/octet-stream";
      const change = edit(name);
      if (change) return response.writeHead(200, { "Content-Type": type }).end(change(await readFile(file, "utf8")));
      const part = ranges && /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "");
      const [start, end] = part ? [Number(part[1]), Math.min(Number(part[2]), meta.size - 1)] : [0, meta.size - 1];
      if (part && start > end) return response.writeHead(416, { "Content-Range": `bytes */${meta.size}` }).end();
      const length = end - start + 1;
      site.bytes += length;
      response.writeHead(part ? 206 : 200, {
        "Content-Type": type,
        "Content-Length": length,
        ...(part && { "Content-Range": `bytes ${start}-${end}/${meta.size}` }),
      });
      if (length === 0) return response.end();
      return createReadStream(file, { start, end }).pipe(response);
    }
    response.writeHead(404).end("Not found\n");
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  site.url = `http://127.0.0.1:${server.address().port}/`;
  site.close = () => (server.closeAllConnections?.(), server.close());
  return site;
}
