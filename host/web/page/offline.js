// The page without a network: a service worker that keeps its files. `env86 prepare --offline` puts before this what
// they are, FILES, and VERSION, which changes when one of them does.

const CACHE = `env86 ${registration.scope} ${VERSION}`;
const OURS = `env86 ${registration.scope} `;
/** Files that are fetched at the same time. */
const AT_ONCE = 6;

async function fill() {
  const cache = await caches.open(CACHE);
  const rest = [...FILES];
  const one = async () => {
    for (let name; (name = rest.shift()) !== undefined; ) {
      // What a stop has left is not fetched again.
      if (!(await cache.match(name))) await cache.add(new Request(name, { cache: "no-cache" }));
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, one));
}

addEventListener("install", (event) => event.waitUntil(fill().then(() => skipWaiting())));

addEventListener("activate", (event) => {
  const clean = async () => {
    for (const name of await caches.keys()) if (name.startsWith(OURS) && name !== CACHE) await caches.delete(name);
    await clients.claim();
  };
  event.waitUntil(clean());
});

/** The part of a file that is asked for, as a web server gives it. */
async function part(response, range) {
  const [, first, last] = /^bytes=(\d+)-(\d*)$/.exec(range) ?? [];
  if (first === undefined) return response;
  const whole = await response.blob();
  const end = Math.min(last ? Number(last) + 1 : whole.size, whole.size);
  if (Number(first) >= end) return new Response(null, { status: 416, headers: { "Content-Range": `bytes */${whole.size}` } });
  const headers = { "Content-Range": `bytes ${first}-${end - 1}/${whole.size}`, "Content-Length": end - first };
  return new Response(whole.slice(Number(first), end), { status: 206, headers });
}

addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method !== "GET" || !request.url.startsWith(registration.scope)) return;
  const answer = async () => {
    const cache = await caches.open(CACHE);
    const kept = await cache.match(request, { ignoreSearch: true, ignoreVary: true });
    if (!kept) return fetch(request);
    const range = request.headers.get("range");
    return range ? part(kept, range) : kept;
  };
  event.respondWith(answer());
});
