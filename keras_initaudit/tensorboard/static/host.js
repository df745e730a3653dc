// What the page shares with the TensorBoard around it: its reload button, its dark mode, its address.
// All of it is optional: in a frame of another origin the page works without.

const PREFIX = "p.initaudit.";

function outside(read, otherwise) {
  try {
    return read(window.parent);
  } catch {
    return otherwise;
  }
}

/** Calls back whenever TensorBoard has read the logs again. */
export function onReload(callback) {
  const channel = new MessageChannel();
  channel.port1.onmessage = (event) => {
    const message = JSON.parse(event.data);
    if (message.isReply) return;
    channel.port1.postMessage(JSON.stringify({ type: message.type, id: message.id, payload: null, error: null, isReply: true }));
    if (message.type === "experimental.DataReloaded") callback();
  };
  window.parent.postMessage("experimental.bootstrap", "*", [channel.port2]);
}

/** Keeps `dark` on the root element as TensorBoard has it, and calls back at each change. */
export function followTheme(callback) {
  const body = outside((parent) => parent.document.body, null);
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const dark = body && body !== document.body ? body.classList.contains("dark-mode") : system.matches;
    if (document.documentElement.classList.toggle("dark", dark) !== apply.last) {
      apply.last = dark;
      callback();
    }
  };
  apply.last = null;
  if (body) new MutationObserver(apply).observe(body, { attributes: true, attributeFilter: ["class"] });
  system.addEventListener("change", apply);
  apply();
}

/** The view that the address asks for: a plain object of strings. */
export function readAddress() {
  const view = {};
  for (const part of outside((parent) => parent.location.hash, "").replace(/^#/, "").split("&")) {
    const [name, value = ""] = part.split("=");
    if (!name.startsWith(PREFIX)) continue;
    try {
      view[name.slice(PREFIX.length)] = decodeURIComponent(value);
    } catch {
      // a damaged address is no reason to show nothing
    }
  }
  return view;
}

/** Puts the view into the address, in place: no entry in the history for each click. */
export function writeAddress(view) {
  outside((parent) => {
    const others = parent.location.hash.replace(/^#/, "").split("&").filter((part) => part && !part.startsWith(PREFIX));
    if (others[0] !== "initaudit") return; // another tab is in front
    const own = Object.entries(view).filter(([, value]) => value !== null && value !== undefined && value !== "");
    const parts = [...others, ...own.map(([name, value]) => `${PREFIX}${name}=${encodeURIComponent(value)}`)];
    parent.history.replaceState(parent.history.state, "", `#${parts.join("&")}`);
  });
}

/** Calls back when the address was changed from outside: by a link, or by the history. */
export function onAddress(callback) {
  outside((parent) => parent.addEventListener("hashchange", () => callback(readAddress())));
}
