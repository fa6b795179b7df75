// What `next start` is to the real one: a Node process that renders each page.
// node server.js -H 127.0.0.1 -p 3000
const { readFileSync } = require("fs");
const { createServer } = require("http");

const option = (name, otherwise) => {
  const at = process.argv.indexOf(name);
  return at < 0 ? otherwise : process.argv[at + 1];
};
const page = readFileSync("build/index.html", "utf8");
const routes = ["/", "/dashboard", "/upload"];

const server = createServer((request, response) => {
  const known = routes.includes(new URL(request.url, "http://localhost").pathname);
  response.writeHead(known ? 200 : 404, { "Content-Type": "text/html; charset=utf-8" });
  response.end(known ? page : "Not found");
});
server.listen(Number(option("-p", "3000")), option("-H", "127.0.0.1"));
// Requests under way are answered before it ends.
process.on("SIGTERM", () => server.close());
