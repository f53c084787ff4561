"""The parent of a worker: holds its sockets and keeps it alive; few and small imports only."""
