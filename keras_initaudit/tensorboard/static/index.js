// What TensorBoard calls to start the page in its frame.

import { start } from "./app.js";

export async function render() {
  document.documentElement.lang = "en";
  document.title = "Init Audit";
  const style = document.createElement("link");
  style.rel = "stylesheet";
  style.href = new URL("style.css", import.meta.url);
  const styled = new Promise((done) => (style.onload = style.onerror = done));
  document.head.append(style);
  await styled; // the colours of the canvases are read from it
  const root = document.createElement("main");
  document.body.append(root);
  start(root);
}
