// The pointer and the keys on profile and heat map: a cursor in both, a read-out, the profile of the step under it.

import { h } from "./dom.js";
import { level as readOut, size } from "./format.js";

/** A read-out that follows the pointer. */
export function makeTip() {
  const box = h("div", { class: "tip", hidden: true, role: "status" });
  const show = (content, x, y) => {
    box.hidden = content === null;
    if (content === null) return;
    box.replaceChildren(...content);
    const { width, height } = box.getBoundingClientRect();
    box.style.left = `${Math.max(4, Math.min(x + 16, window.innerWidth - width - 8))}px`;
    box.style.top = `${Math.max(4, y + height + 24 > window.innerHeight ? y - height - 12 : y + 18)}px`;
  };
  return { box, show };
}

/** What stands in the read-out for one row at one audit; `lines` holds [statistic, curve] of that audit, `more` a line. */
export function reading(layer, i, step, lines, more = null) {
  const line = ([entry, drawn]) => {
    const value = drawn.broken[i] ? "not finite" : readOut(entry, drawn.level[i]);
    const measured = entry.level && !drawn.broken[i] ? ` (rms ${size(drawn.value[i])})` : "";
    return h("div", null, `${entry.name}: `, h("b", null, value), measured);
  };
  return [h("div", { class: "tip-head" }, layer.path), h("div", { class: "small" }, `${layer.kind ?? ""} · step ${step.toLocaleString("en")}`), ...lines.map(line), ...(more ? [h("div", { class: "small" }, more)] : [])];
}

/**
 * Follows pointer and keys.
 *
 * `on` has: `steps`, how many; `step`, the position of the shown one; `redraw(step)`, draws the profile of a step;
 * `read(layer, step)`, the read-out; `open(layer)`; `pin(step)`.
 */
export function follow(frame, profile, heat, tip, on) {
  let here = null;
  let drawn = on.step;
  let waiting = 0;
  const place = () => {
    const x = here === null ? -9 : frame.x(here.layer);
    for (const cursor of profile.querySelectorAll(".cursor")) for (const end of ["x1", "x2"]) cursor.setAttribute(end, x);
  };
  const show = (layer, step, x, y) => {
    here = layer === null ? null : { layer, step };
    heat.point(layer, step);
    if (drawn !== (step ?? on.step)) {
      drawn = step ?? on.step;
      cancelAnimationFrame(waiting); // one picture a frame, however fast the pointer is
      waiting = requestAnimationFrame(() => {
        on.redraw(drawn);
        place();
      });
    }
    place();
    tip.show(layer === null ? null : on.read(layer, drawn), x, y);
  };
  const leave = () => show(null, null);
  const open = () => here && on.open(here.layer);
  profile.addEventListener("pointermove", (event) => {
    const x = event.clientX - profile.getBoundingClientRect().left;
    if (x < frame.left || x > frame.width - frame.right) leave();
    else show(frame.at(x), on.step, event.clientX, event.clientY);
  });
  const cells = heat.element.querySelector("canvas.cells");
  cells.addEventListener("pointermove", (event) => {
    const cell = heat.at(event);
    show(cell.layer, cell.step, event.clientX, event.clientY);
  });
  for (const element of [profile, cells]) {
    element.addEventListener("pointerleave", leave);
    element.addEventListener("click", open);
  }
  cells.addEventListener("dblclick", () => here && on.pin(here.step));
  heat.element.addEventListener("blur", leave);
  heat.element.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (moves[event.key]) {
      const [sideways, down] = here ? moves[event.key] : [0, 0]; // the first key puts the cursor there
      const now = here ?? { layer: 0, step: on.step };
      const layer = Math.max(0, Math.min(frame.count - 1, now.layer + sideways));
      const step = Math.max(0, Math.min(on.steps - 1, now.step + down));
      const area = cells.getBoundingClientRect();
      show(layer, step, area.left + (layer + 0.5) * frame.cell, area.top + ((step + 0.5) * area.height) / on.steps);
    } else if (event.key === "Enter" && here) open();
    else if (event.key === " " && here) on.pin(here.step);
    else if (event.key === "Escape") leave();
    else return;
    event.preventDefault();
  });
}
