// Keeps the shell of the page for times without a network. The name changes with the assets, so that an update is seen.
const SHELL = "shell-index-94b296ed";
const FILES = ["/", "/assets/index-94b296ed.js", "/assets/index-298646bb.css", "/assets/icon-082140cd.svg"];

self.addEventListener("install", (event) => event.waitUntil(caches.open(SHELL).then((cache) => cache.addAll(FILES))));

self.addEventListener("activate", (event) =>
  event.waitUntil(
    caches.keys().then((names) => Promise.all(names.filter((name) => name !== SHELL).map((name) => caches.delete(name)))),
  ),
);

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  if (event.request.method !== "GET" || url.origin !== location.origin || url.pathname.startsWith("/api/")) return;
  // The network first: a page that is a deploy behind is worse than one that takes a moment.
  event.respondWith(
    fetch(event.request).catch(async () => {
      const kept = await caches.match(event.request.mode === "navigate" ? "/" : event.request);
      return kept ?? Response.error();
    }),
  );
});
