"""Weights & Biases: the report of each audit, its verdict and every layer's numbers, in a run that is kept offline.

`sync_tensorboard=True` does not see them, for it watches TensorFlow's writers; the lines below log the reports.
Needs `pip install wandb`.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported: its start is chatty

import keras
import wandb
from sklearn.datasets import load_digits

from keras_initaudit import InitAudit

images, digits = load_digits(return_X_y=True)
hidden = [keras.layers.Dense(32, "relu", kernel_initializer="he_normal") for _ in range(4)]
model = keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10, "softmax")])
model.compile("adam", "sparse_categorical_crossentropy")

watch = InitAudit(log_dir=False)
with wandb.init(project="digits", mode="offline") as run:
    model.fit(images / 16.0, digits, verbose=0, callbacks=[watch])
    for report in watch.reports:
        numbers = {f"activation_rms/{row['path']}": row["activation_rms"] for row in report.layers}
        numbers |= {f"backward_rms/{row['path']}": row["backward_rms"] for row in report.layers}
        run.log({"loss": report.loss, "report": wandb.Html(report._repr_html_()), **numbers}, step=report.step)
    run.summary["verdict"] = watch.reports[-1].verdict
print(f"{len(watch.reports)} reports of {len(numbers)} numbers each: wandb sync {os.path.dirname(run.dir)}")
