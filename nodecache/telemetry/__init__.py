"""What nodecache tells about itself over HTTP: series for Prometheus, and its health."""
