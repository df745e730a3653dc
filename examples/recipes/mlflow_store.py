"""MLflow with a store on this machine: the verdict as a tag, the report as files, the numbers of each layer as metrics.

Needs `pip install mlflow`.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported: its start is chatty

import keras
import mlflow
from sklearn.datasets import load_digits

from keras_initaudit import InitAudit

images, digits = load_digits(return_X_y=True)
hidden = [keras.layers.Dense(32, "relu", kernel_initializer="he_normal") for _ in range(4)]
model = keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10, "softmax")])
model.compile("adam", "sparse_categorical_crossentropy")

watch = InitAudit(log_dir=False)
mlflow.set_tracking_uri("sqlite:///mlflow.db")
mlflow.create_experiment("digits", artifact_location="mlartifacts")
mlflow.set_experiment("digits")
with mlflow.start_run() as run:
    model.fit(images / 16.0, digits, verbose=0, callbacks=[watch])
    for report in watch.reports:
        rms = {
            f"activation_rms/{row['path']}": row["activation_rms"] for row in report.layers if row["kind"] == "Dense"
        }
        mlflow.log_metrics(rms, step=report.step)
    mlflow.set_tag("initaudit", report.verdict)
    mlflow.log_text(report.to_json(), "initaudit.json")
    mlflow.log_text(report._repr_html_(), "initaudit.html")

kept = mlflow.get_run(run.info.run_id).data
print(f"kept: {kept.tags['initaudit']}, {len(kept.metrics)} metrics; mlflow ui --backend-store-uri sqlite:///mlflow.db")
