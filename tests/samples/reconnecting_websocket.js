class ReconnectingWebSocket {
  constructor(url, options = {}) {
    this.url = url;
    this.minDelay = options.minDelay || 1000;
    this.maxDelay = options.maxDelay || 30000;
    this.currentDelay = this.minDelay;
    this.handlers = {};
    this.connect();
  }

  connect() {
    this.ws = new WebSocket(this.url);

    this.ws.onopen = () => {
      this.currentDelay = this.minDelay; // Reset on success
      if (this.handlers.open) this.handlers.open();
    };

    this.ws.onmessage = (event) => {
      if (this.handlers.message) this.handlers.message(event);
    };

    this.ws.onclose = (event) => {
      if (this.handlers.close) this.handlers.close(event);

      // Don't reconnect on auth failure
      if (event.code === 4001) {
        console.error('Authentication failed');
        return;
      }

      // Exponential backoff
      setTimeout(() => this.connect(), this.currentDelay);
      this.currentDelay = Math.min(this.currentDelay * 2, this.maxDelay);
    };

    this.ws.onerror = (error) => {
      if (this.handlers.error) this.handlers.error(error);
    };
  }

  on(event, handler) {
    this.handlers[event] = handler;
    return this;
  }

  send(data) {
    if (this.ws.readyState === WebSocket.OPEN) {
      this.ws.send(data);
    }
  }

  close() {
    this.shouldReconnect = false;
    this.ws.close();
  }
}
