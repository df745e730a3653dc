"""A GAN with a training step of its own and two optimizers: the audit watches it as it watches any other `fit`.

One learns that a custom `train_step` needs nothing but the callback, and that the report names the part of the model
that is at fault: here the generator, whose weights are so small that its noise does not arrive at its images.
Run it with `python examples/custom_train_step.py`.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported: its start is chatty

import keras
import tensorflow as tf
from keras import layers
from sklearn.datasets import load_digits

from keras_initaudit import HeNormal, InitAudit

NOISE = 16


class GAN(keras.Model):
    """Makes digits of noise; a second network tells them from real ones."""

    def __init__(self, initializer_of_layer):
        super().__init__()
        hidden = [layers.Dense(64, "relu", kernel_initializer=initializer_of_layer()) for _ in range(6)]
        making = [keras.Input((NOISE,)), *hidden, layers.Dense(64, "sigmoid")]
        self.generator = keras.Sequential(making, name="generator")
        judging = [layers.Dense(64, "leaky_relu", kernel_initializer=HeNormal()) for _ in range(2)]
        self.critic = keras.Sequential([keras.Input((64,)), *judging, layers.Dense(1)], name="critic")

    def compile(self, generator_optimizer, critic_optimizer):
        super().compile()
        self.generator_optimizer, self.critic_optimizer = generator_optimizer, critic_optimizer
        self.entropy = keras.losses.BinaryCrossentropy(from_logits=True)

    def train_step(self, real):
        noise = tf.random.normal((tf.shape(real)[0], NOISE))
        with tf.GradientTape() as tape:
            scores = self.critic(tf.concat([real, self.generator(noise)], 0))
            labels = tf.concat([tf.ones_like(real[:, :1]), tf.zeros_like(real[:, :1])], 0)
            critic_loss = self.entropy(labels, scores)
        variables = self.critic.trainable_variables
        self.critic_optimizer.apply_gradients(zip(tape.gradient(critic_loss, variables), variables, strict=True))
        with tf.GradientTape() as tape:
            made = self.critic(self.generator(noise))
            generator_loss = self.entropy(tf.ones_like(made), made)
        variables = self.generator.trainable_variables
        self.generator_optimizer.apply_gradients(zip(tape.gradient(generator_loss, variables), variables, strict=True))
        return {"critic": critic_loss, "generator": generator_loss}


def main():
    images = (load_digits().data / 16.0).astype("float32")
    starts = {"stddev 0.01": lambda: keras.initializers.RandomNormal(stddev=0.01), "HeNormal": HeNormal}
    for name, initializer_of_layer in starts.items():
        print(f"=== a generator from {name} ===\n", flush=True)
        keras.utils.set_random_seed(0)
        gan = GAN(initializer_of_layer)
        gan.compile(keras.optimizers.Adam(2e-4, beta_1=0.5), keras.optimizers.Adam(2e-4, beta_1=0.5))
        seen = InitAudit(f"logs/gan/{name.replace(' ', '_')}")
        gan.fit(images, batch_size=64, epochs=20, verbose=0, callbacks=[seen])
        made = gan.generator(keras.random.normal((256, NOISE), seed=0))
        spread = float(keras.ops.mean(keras.ops.std(made, 0)))
        print(
            f"After {int(gan.generator_optimizer.iterations)} updates, the images that it makes differ by {spread:.1g}"
        )
        print(f"from each other, those of the data by {images.std(0).mean():.1g}.\n")


if __name__ == "__main__":
    main()
