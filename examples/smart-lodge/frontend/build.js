// What `next build` is to the real one: makes the page that server.js serves.
const { mkdirSync, readFileSync, writeFileSync } = require("fs");

const page = readFileSync("page.html", "utf8").replace(/%API_URL%/g, process.env.NEXT_PUBLIC_API_URL || "/api");
mkdirSync("build", { recursive: true });
writeFileSync("build/index.html", page);
