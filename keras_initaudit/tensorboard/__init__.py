"""The TensorBoard side: names and tags, the writer of the log, the plugin that serves it, the page."""
