// The page before there is any audit: how to make one.

import { copyButton, h } from "./dom.js";

const CODE = `from keras_initaudit import InitAudit

model.fit(x, y, callbacks=[InitAudit(log_dir="logs/run")])`;

export function drawEmpty() {
  return h(
    "section",
    { class: "empty" },
    h("h2", null, "No audit in these logs yet"),
    h("p", null, "This tab shows, for each run, whether the signal and the gradient reach every layer, from before the first update on. It needs a training with the callback ", h("code", null, "InitAudit"), ":"),
    h("div", { class: "remedy" }, h("div", { class: "remedy-head" }, h("span", null, "Python"), copyButton(CODE)), h("pre", null, h("code", null, CODE))),
    h("p", null, "Then start TensorBoard on the folder above: ", h("code", null, "tensorboard --logdir logs"), "."),
    h("p", { class: "quiet" }, "This page looks again every few seconds. If the training is running, check that it writes below the folder that TensorBoard was started with."),
  );
}
