// ws: an event is framed once, and that frame written to each socket. The argument is the port.
const { Sender, WebSocketServer } = require("ws");
const topics = new Map();
const snapshot = "welcome" + "x".repeat(100_000);
const server = new WebSocketServer({ port: Number(process.argv[2]), host: "127.0.0.1", backlog: 1024, perMessageDeflate: false });
server.on("connection", (socket) => {
  let topic = "";
  socket.on("message", (data) => {
    if (data[0] === 0x7b) {
      const frame = Buffer.concat(Sender.frame(data, { fin: true, opcode: 1, mask: false, readOnly: true, rsv1: false }));
      for (const one of topics.get(data.toString("latin1", 10, 15)) ?? []) one._socket.write(frame);
    } else if (data.toString().startsWith("subscribe ")) {
      topic = data.toString().slice(10);
      if (!topics.has(topic)) topics.set(topic, new Set());
      topics.get(topic).add(socket);
      socket.send("welcome");
    } else if (data.toString().startsWith("snapshot ")) {
      socket.send(snapshot);
    }
  });
  socket.on("close", () => topics.get(topic)?.delete(socket));
  socket.on("error", () => {});
});
