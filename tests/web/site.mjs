// A plain web server of a folder, as there are many: no ranges, no compression, no cache.
import { createServer } from "node:http";
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { extname, join, normalize } from "node:path";

const TYPES = {
  ".html": "text/html", ".mjs": "text/javascript", ".js": "text/javascript", ".css": "text/css", ".json": "application/json",
  ".wasm": "application/wasm",
};

/** Serves folders by the beginnings of their paths, the first that has a file. Counts what it gives. */
export async function serve(folders) {
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
      site.bytes += meta.size;
      response.writeHead(200, {
        "Content-Type": TYPES[extname(name)] ?? "application/octet-stream",
        "Content-Length": meta.size,
      });
      return createReadStream(file).pipe(response);
    }
    response.writeHead(404).end("Not found\n");
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  site.url = `http://127.0.0.1:${server.address().port}/`;
  site.close = () => (server.closeAllConnections?.(), server.close());
  return site;
}
