class MetricsStreamClient {
  constructor(token, interval = 5, environment = 'development') {
    this.token = token;
    this.interval = interval;
    this.environment = environment;
    this.ws = null;
    this.reconnectDelay = 1000;
    this.maxReconnectDelay = 30000;
  }

  connect() {
    const url = `ws://localhost:8000/api/v1/ws/metrics/stream?` +
      `token=${this.token}&interval=${this.interval}&environment=${this.environment}`;

    this.ws = new WebSocket(url);

    this.ws.onopen = () => {
      console.log('Metrics stream connected');
      this.reconnectDelay = 1000; // Reset on successful connect
    };

    this.ws.onmessage = (event) => {
      const message = JSON.parse(event.data);
      if (message.type === 'metrics') {
        this.handleMetrics(message.data, message.timestamp);
      }
    };

    this.ws.onclose = () => {
      console.log('Metrics stream disconnected, reconnecting...');
      setTimeout(() => this.connect(), this.reconnectDelay);
      this.reconnectDelay = Math.min(this.reconnectDelay * 2, this.maxReconnectDelay);
    };
  }

  handleMetrics(data, timestamp) {
    // Update dashboard
    document.getElementById('robot-count').textContent = data.robots.total;
    document.getElementById('active-robots').textContent = data.robots.active;
    document.getElementById('queue-depth').textContent = data.queue.depth;
    document.getElementById('jobs-today').textContent = data.jobs.completed_today;
  }

  disconnect() {
    if (this.ws) {
      this.ws.close();
    }
  }
}
