"""The dream: synthetic robots and watchers, virtual-time queues, experiments, reports."""
