"""The log and the TensorBoard tab: names and tags, the writer and the reader, the plugin that serves the page."""
