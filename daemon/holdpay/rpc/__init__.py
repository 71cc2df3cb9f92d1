"""The local gRPC service on the Unix socket: thin."""
