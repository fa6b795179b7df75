// The ledger's page: today's rates as they change, and who brought what. Works offline with what it saw last.
const status = document.querySelector("#status");
const show = (selector, rows) => {
  const list = document.querySelector(selector);
  list.replaceChildren(...rows.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
};

async function load() {
  const day = new Date().toISOString().slice(0, 10);
  const [farmers, entries] = await Promise.all(
    ["/api/v1/farmers", `/api/v1/daily-entries?day=${day}`].map(async (path) => {
      const answer = await fetch(path);
      if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
      return answer.json();
    }),
  );
  const names = Object.fromEntries(farmers.map((farmer) => [farmer.id, farmer.name]));
  show("#farmers", farmers.map((farmer) => `${farmer.name}, ${farmer.village}`));
  show("#entries", entries.map((entry) => `${names[entry.farmer_id]}: ${entry.weight_kg} kg ${entry.flower}, ₹${entry.amount}`));
  status.textContent = "up to date";
}

function listen() {
  const socket = new WebSocket(`wss://api.${location.host}/ws`);
  socket.onmessage = (event) => {
    const message = JSON.parse(event.data);
    if (message.type === "rates") show("#rates", Object.entries(message.rates).map(([flower, rate]) => `${flower}: ₹${rate}/kg`));
  };
  socket.onclose = () => setTimeout(listen, 5000);
}

load().catch((error) => (status.textContent = `offline (${error.message})`));
listen();
if ("serviceWorker" in navigator) navigator.serviceWorker.register("/sw.js");
