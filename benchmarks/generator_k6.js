// The same heartbeats by k6.
import { WebSocket } from "k6/experimental/websockets";
import { Trend } from "k6/metrics";

const latency = new Trend("heartbeat", true);

export const options = {
  vus: Number(__ENV.ROBOTS),
  duration: `${__ENV.SECONDS}s`,
};

export default function () {
  const socket = new WebSocket(__ENV.WS_URL);
  let sent = 0;
  socket.onopen = () => {
    const timer = setInterval(() => {
      sent = Date.now();
      socket.send(JSON.stringify({ type: "heartbeat", cpu_percent: 12.5, memory_mb: 512.25 }));
    }, Number(__ENV.INTERVAL_S) * 1000);
    setTimeout(() => {
      clearInterval(timer);
      socket.close();
    }, Number(__ENV.SECONDS) * 1000);
  };
  socket.onmessage = () => latency.add(Date.now() - sent);
}
