// Socket.IO: rooms. The argument is the port.
const http = require("node:http").createServer();
const { Server } = require("socket.io");
const io = new Server(http, { maxHttpBufferSize: 1 << 24 });
const snapshot = "x".repeat(100_000);
io.on("connection", (socket) => {
  socket.on("subscribe", (topic) => {
    socket.join(topic);
    socket.emit("welcome");
  });
  socket.on("snapshot", (topic) => {
    socket.join(topic);
    socket.emit("welcome", snapshot);
  });
  socket.on("publish", (event) => io.to(event.topic).emit("event", event));
});
http.listen(Number(process.argv[2]), "127.0.0.1", 1024);
