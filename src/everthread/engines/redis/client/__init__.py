"""The client for Redis servers: connections, topologies and routing."""
